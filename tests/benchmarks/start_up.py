"""From the command to the first training step: cold, and with compiled programs cached.

    pip install -e . && python -m tests.benchmarks.start_up --model=inception_resnet_v2

The main job on the embedded phantoms, whole networks from scratch, all layers learning. The first
start compiles everything; the second finds its programs in the cache. Each ends at its first row of
the log, so a step is in the time. The last line of the output is one JSON object.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from radimagenet_jax.data.preparation import prepare
from tests.benchmarks import turns

PATIENCE = 900.0


def main() -> int:
    """Starts twice."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.start_up")
    turns.add_sizes(parser)
    parser.add_argument("--structure", default="unfreezeall")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare("phantom", folder / "data")
        seconds = {
            start: round(first_step(options, folder, start), 1) for start in ("cold", "warm")
        }
    print(json.dumps({**vars(options), "seconds_to_first_step": seconds, "cpus": os.cpu_count()}))
    return 0


def first_step(options: argparse.Namespace, folder: Path, start: str) -> float:
    """Seconds until a new run has logged its first step; it is ended then."""
    workdir = folder / start
    command = [
        *(sys.executable, "-m", "radimagenet_jax.main", "--config=configs/covid.py"),
        f"--workdir={workdir}",
        f"--config.dataset.data_dir={folder / 'data'}",
        "--config.dataset.name=phantom",
        "--config.dataset.positive=lesion",
        "--config.augment=none",
        f"--config.model={options.model}",
        f"--config.structure={options.structure}",
        f"--config.batch_size={options.batch}",
        f"--config.image_size={options.size}",
        "--config.log_every=1",
    ]
    log = workdir / "metrics.jsonl"
    began = time.perf_counter()
    with subprocess.Popen(
        command,
        env=os.environ | {"JAX_COMPILATION_CACHE_DIR": str(folder / "xla")},
        stdout=sys.stderr,
    ) as process:
        try:
            while not (log.exists() and log.read_bytes().endswith(b"\n")):
                if process.poll() is not None or time.perf_counter() - began > PATIENCE:
                    raise RuntimeError(f"no step after {time.perf_counter() - began:.0f} s")
                time.sleep(0.05)
            return time.perf_counter() - began
        finally:
            process.kill()


if __name__ == "__main__":
    sys.exit(main())
