"""How much of the training time passes outside the compiled step?

    pip install -e . && python -m tests.benchmarks.outside_step --config=configs/quickstart.py

The main job on the embedded phantoms, with the images on the device and streamed from disk, each a
run of its own. Counted are whole epochs from the second step on, without evaluation and saving at
their ends, whose seconds are given beside: what is left over is waiting for input, the log and the
progress bar. The last line of the output is one JSON object; the exit code is 1 if more than 5 %
(resident) or 15 % (streaming) is outside.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from radimagenet_jax.data.preparation import prepare

MOST = {"resident": 0.05, "streaming": 0.15}


def main() -> int:
    """Runs both ways and reads what the runs say of themselves."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.outside_step")
    parser.add_argument("--config", default="configs/quickstart.py")
    parser.add_argument("--epochs", type=int, default=3)
    options, more = parser.parse_known_args()
    found = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare("phantom", folder / "data")
        for way in MOST:
            command = [
                *(sys.executable, "-m", "radimagenet_jax.main", f"--config={options.config}"),
                f"--workdir={folder / way}",
                f"--config.epochs={options.epochs}",
                "--config.dataset.name=phantom",
                "--config.dataset.positive=lesion",
                f"--config.dataset.data_dir={folder / 'data'}",
                f"--config.dataset.streaming={str(way == 'streaming').lower()}",
                *more,
            ]
            began = time.perf_counter()
            subprocess.run(command, check=True, stdout=sys.stderr)
            seconds = time.perf_counter() - began
            result = json.loads((folder / way / "result.json").read_text())
            found[way] = {"run_seconds": round(seconds, 1)} | {
                name: round(result["train"][name], 4)
                for name in ("seconds", "images_per_second", "input_wait", "outside_step")
            }
    print(json.dumps({"config": options.config, "epochs": options.epochs} | found))
    return int(any(found[way]["outside_step"] > most for way, most in MOST.items()))


if __name__ == "__main__":
    sys.exit(main())
