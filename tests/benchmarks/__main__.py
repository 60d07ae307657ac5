"""All benchmarks, one after the other, which takes hours.

    pip install -e '.[bench]' && python -m tests.benchmarks
    pip install -e '.[cuda13,bench]' && python -m tests.benchmarks --accelerator

The second is for a GPU or TPU: whether runs are equal there, how fast the step is beside its peers
with its kernels by time, and whether a whole run keeps the chip busy. Each is a process of its own,
whose progress is on standard error. The last line of the output is one JSON object: every
benchmark's own by its command. The exit code is 1 if one of them failed or found a figure below
what is asked of it.
"""

import argparse
import json
import subprocess
import sys

from tests.keras_networks import KERAS_APPLICATIONS

STRUCTURES = ("freezeall", "unfreezeall")


def commands() -> list[list[str]]:
    """The module and arguments of each."""
    found = [
        ["train_step", f"--model={model}", f"--structure={structure}"]
        for model in KERAS_APPLICATIONS
        for structure in STRUCTURES
    ]
    found += [["inference", f"--model={model}"] for model in KERAS_APPLICATIONS]
    found += [
        ["study", f"--model={model}", f"--structure={structure}", "--keras_runs=1"]
        for model in KERAS_APPLICATIONS
        for structure in ("freezeall", "unfreezetop10", "unfreezeall")
    ]
    found += [
        [name, f"--model={model}"]
        for name in ("start_up", "memory")
        for model in KERAS_APPLICATIONS
    ]
    others = (
        "coverage",
        "input_pipeline",
        "feeding",
        "prepare",
        "load_weights",
        "outside_step",
        "kills",
        "trajectory",
    )
    return [*found, *([name] for name in others)]


def on_accelerator() -> list[list[str]]:
    """The module and arguments of each that a GPU or TPU is for."""
    steps = [["accelerator", f"--model={model}", "--kernels=60"] for model in KERAS_APPLICATIONS]
    return [["reproducible"], *steps, ["whole_runs"]]


def main() -> int:
    """Runs them."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks")
    parser.add_argument(
        "--accelerator", action="store_true", help="those that a GPU or TPU is for, and no others"
    )
    options = parser.parse_args()
    results = {}
    worst = 0
    for module, *arguments in on_accelerator() if options.accelerator else commands():
        name = " ".join([module, *arguments])
        print(f"tests.benchmarks.{name}", file=sys.stderr)
        done = subprocess.run(
            [sys.executable, "-m", f"tests.benchmarks.{module}", *arguments],
            stdout=subprocess.PIPE,
            text=True,
        )
        lines = done.stdout.splitlines()
        try:
            results[name] = json.loads(lines[-1]) if lines else None
        except ValueError:
            results[name] = None
        if results[name] is None:
            print(f"{name} ended with {done.returncode} and no result", file=sys.stderr)
        worst = max(worst, int(done.returncode != 0))
    print(json.dumps(results))
    return worst


if __name__ == "__main__":
    sys.exit(main())
