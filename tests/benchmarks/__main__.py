"""All benchmarks, one after the other, which takes hours.

    pip install -e '.[bench]' && python -m tests.benchmarks

Each is a process of its own, whose progress is on standard error. The last line of the output is
one JSON object: every benchmark's own by its command. The exit code is 1 if one of them failed or
found a figure below what is asked of it.
"""

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


def main() -> int:
    """Runs them."""
    results = {}
    worst = 0
    for module, *arguments in commands():
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
