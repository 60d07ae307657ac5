"""Whether runs on this machine's accelerator are equal, and its features those of a CPU.

    pip install -e '.[cuda13]' && python -m tests.benchmarks.reproducible

The quickstart (or `--config`) runs with one seed: twice on a machine that has just been set up,
the second time without the compiled programs of the first; once more, killed after its first
checkpoint and resumed without them. These three must end with the same digest of parameters; a
fourth, with `config.deterministic=False`, may not, and says what the speed costs. Then the four
networks' float32 features of random images, with random weights, are compared with a CPU's, to the
largest feature. The last line is one JSON object; the exit code is 1 if a run differs or a feature
is off by more than 1e-5.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from radimagenet_jax.training import determinism

PATIENCE = 600.0
MOST = 1e-5
SEEN = ("chip", "jaxlib", "driver")


def main() -> int:
    """Runs, strikes, compares."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.reproducible")
    parser.add_argument("--config", default="configs/quickstart.py", metavar="PAGE")
    parser.add_argument("--size", type=int, default=224, help="side of the images for features")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        found = {
            "first": result(folder, options.config, "first"),
            "again": result(folder, options.config, "again"),
            "killed": result(folder, options.config, "killed", kill=True),
            "free": result(folder, options.config, "free", "--config.deterministic=False"),
        }
    digests = {run: each["params_digest"][:12] for run, each in found.items()}
    seconds = {run: each["train"]["seconds"] for run, each in found.items()}
    differences = features(options.size)
    machine = found["first"]["machines"][-1]
    print(
        json.dumps(
            {
                "digests": digests,
                "seconds_of_training": seconds,
                "features": differences,
                **{name: machine[name] for name in SEEN if name in machine},
            }
        )
    )
    equal = len({digests[run] for run in ("first", "again", "killed")}) == 1
    return int(not equal or max(differences.values()) > MOST)


def result(folder: Path, page: str, run: str, *more: str, kill: bool = False) -> dict:
    """The result.json of a run that has no compiled program at hand when it starts."""
    workdir = folder / run
    command = [sys.executable, "-m", "radimagenet_jax.main", f"--config={page}", *more]
    command += [f"--workdir={workdir}", f"--config.dataset.data_dir={folder / 'data'}"]

    def start(programs: str) -> subprocess.Popen[bytes]:
        # XLA's choices of kernels are shared, as on one machine; compiled programs are not.
        environment = os.environ | {
            "XDG_CACHE_HOME": str(folder / "cache"),
            "JAX_COMPILATION_CACHE_DIR": str(folder / programs),
        }
        return subprocess.Popen(command, env=environment, stdout=sys.stderr)

    if kill:
        process = start(f"{run}-struck")
        until = time.monotonic() + PATIENCE
        while not any(workdir.glob("checkpoints/[0-9]*/digests.json")):
            if process.poll() is not None or time.monotonic() > until:
                raise RuntimeError("the run ended, or took too long, before its first checkpoint")
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
        process.wait()
    if code := start(run).wait():
        raise RuntimeError(f"{' '.join(command)} ended with {code}")
    return json.loads((workdir / "result.json").read_text())


def features(size: int) -> dict[str, float]:
    """Largest difference of the pooled features from a CPU's, to the largest of them."""
    determinism.ask(True, ".")
    import jax
    import numpy as np

    from radimagenet_jax import models
    from radimagenet_jax.training import initialise

    images = np.random.default_rng(0).uniform(-0.5, 0.5, (4, size, size, 3)).astype(np.float32)
    found = {}
    for name in models.names():
        model = models.create(name, num_classes=2)
        variables = initialise.scratch(model, size, 0, "glorot_uniform")
        pooled = [
            np.asarray(
                jax.jit(lambda v, x, model=model: model.apply(v, x)[1]["pooled"])(
                    *jax.device_put((variables, images), device)
                )
            )
            for device in (jax.devices("cpu")[0], jax.devices()[0])
        ]
        found[name] = float(np.abs(pooled[0] - pooled[1]).max() / np.abs(pooled[0]).max())
    return found


if __name__ == "__main__":
    sys.exit(main())
