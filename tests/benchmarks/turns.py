"""Lets the sides of a benchmark take turns, each in a process of its own.

A side is a function that makes a step. `take_turns` starts the benchmark's module once for each
side with `--side=NAME`; there, `serve` takes a step whenever it is asked to.
"""

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence

Step = Callable[[], object]


def peers_of(option: str, known: Sequence[str]) -> list[str]:
    """Reads `--peers`: names separated by commas, or 'none'.

    Raises:
      ValueError: If a name is not known.
    """
    peers = [] if option == "none" else option.split(",")
    if unknown := set(peers) - set(known):
        raise ValueError(
            f"--peers has {', '.join(sorted(unknown))}; known are {' and '.join(known)}."
        )
    return peers


def take_turns(module: str, names: Sequence[str], rounds: int) -> dict[str, float]:
    """Median seconds of a step for each side; one begins to compile when the last is ready.

    Args:
      module: The benchmark's, which takes this process' arguments and `--side`.
      names: Of the sides.
      rounds: Steps of each side.

    Raises:
      RuntimeError: If a side's process ends.
    """
    command = [sys.executable, "-m", module, *sys.argv[1:], "--side"]
    started: dict[str, subprocess.Popen[str]] = {}
    try:
        for name in names:
            started[name] = subprocess.Popen(
                [*command, name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
            print(f"{name}: warm after {_reply(started[name]):.1f} s", file=sys.stderr)
        seconds: dict[str, list[float]] = {name: [] for name in names}
        for _ in range(rounds):
            for name, side in started.items():
                assert side.stdin is not None
                print(file=side.stdin, flush=True)
                seconds[name].append(_reply(side))
                print(f"{name}: {seconds[name][-1]:.2f} s", file=sys.stderr)
    finally:
        for side in started.values():
            side.kill()
            side.wait()
    return {name: statistics.median(measured) for name, measured in seconds.items()}


def _reply(side: subprocess.Popen[str]) -> float:
    assert side.stdout is not None
    line = side.stdout.readline()
    if not line:
        raise RuntimeError(f"{' '.join(map(str, side.args))} ended with {side.wait()}")
    return float(line)


def serve(make: Callable[[], Step]) -> None:
    """Takes two steps, then one for each line of the input; answers with the seconds of each."""
    # What libraries print goes to standard error, so that the answers stay alone.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    began = time.perf_counter()
    step = make()
    step()
    step()
    print(time.perf_counter() - began, file=answers, flush=True)
    for _ in sys.stdin:
        began = time.perf_counter()
        step()
        print(time.perf_counter() - began, file=answers, flush=True)


def fastest(steps: Sequence[Step]) -> Step:
    """The one of several steps that is fastest the second time."""

    def seconds(step: Step) -> float:
        step()
        began = time.perf_counter()
        step()
        return time.perf_counter() - began

    return min(steps, key=seconds)
