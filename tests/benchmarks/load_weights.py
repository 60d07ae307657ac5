"""Loading each network's released form, against Keras 3 on JAX loading its own.

    pip install -e '.[test]' && python -m tests.benchmarks.load_weights

Full Keras files of random weights are written first. The two sides alternate; medians. Keras reads
the weights alone into a network that stands already (`load_weights`), which leaves out what its
`load_model` needs to build one. The last line of the output is one JSON object.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "jax")

import jax
import keras

from radimagenet_jax import load_pretrained
from radimagenet_jax.console import console
from tests.keras_networks import KERAS_APPLICATIONS

ROUNDS = 5


def main() -> None:
    """Measures every network that is asked for."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.load_weights",
        description="Time load_pretrained and Keras' load_weights on the same files.",
    )
    parser.add_argument("--model", nargs="*", default=list(KERAS_APPLICATIONS))
    options = parser.parse_args()
    networks = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in options.model:
            path = Path(folder, f"{name}.h5")
            base = getattr(keras.applications, KERAS_APPLICATIONS[name])(
                weights=None, include_top=False, pooling="avg"
            )
            base.save(path)
            ours, theirs = [], []
            for _ in range(ROUNDS):
                ours.append(
                    _seconds(
                        lambda path=path: load_pretrained(path, preprocessing="torch").variables
                    )
                )
                theirs.append(_seconds(lambda path=path, base=base: base.load_weights(path)))
            figures = {"seconds": statistics.median(ours), "keras": statistics.median(theirs)}
            networks[name] = figures | {"ratio": figures["keras"] / figures["seconds"]}
            console.print(
                f"{name}: {figures['seconds']:.2f} s, Keras {figures['keras']:.2f} s, "
                f"{path.stat().st_size / 1e6:.0f} MB"
            )
            path.unlink()
    print(json.dumps({"networks": networks}))


def _seconds(load: Callable[[], object]) -> float:
    start = time.perf_counter()
    jax.block_until_ready(load())
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
