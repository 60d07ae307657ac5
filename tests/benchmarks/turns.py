"""Lets the sides of a benchmark take turns, each in a process of its own, alone on the machine.

A side is a function that makes a step. `main` starts the benchmark's module for one side after the
other with `--side=NAME`; there, `_serve` takes steps whenever it is asked to, and the process ends
before the next side's begins. All have their turn twice, so that none has the machine's best hour.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from radimagenet_jax import huge_pages, processor
from tests.keras_networks import KERAS_APPLICATIONS

Step = Callable[[], object]

OURS = "ours"
# Times the faster peer: with less, a benchmark fails.
LEAST = 1.2
# Of each side.
_TURNS = 2


def parser(module: str, rounds: int) -> argparse.ArgumentParser:
    """The arguments that all have: network, batch, size of the images, rounds and peers.

    Args:
      module: The benchmark's, which `main` starts again for each side.
      rounds: Steps in each turn of a side, unless asked otherwise.
    """
    made = argparse.ArgumentParser(prog=f"python -m {module}")
    add_sizes(made)
    made.add_argument("--rounds", type=int, default=rounds)
    made.add_argument("--peers", default="keras,torch", help="or one of them, or none")
    made.set_defaults(module=module)
    return made


def add_sizes(to: argparse.ArgumentParser) -> None:
    """Adds the network, the batch and the size of the images."""
    to.add_argument("--model", choices=list(KERAS_APPLICATIONS), default="resnet50")
    to.add_argument("--batch", type=int, default=16)
    to.add_argument("--size", type=int, default=224, help="side of the images")


def main(
    arguments: argparse.ArgumentParser,
    sides: Mapping[str, Callable[[argparse.Namespace], Step]],
    described: Sequence[str],
) -> int:
    """Starts a process for one side after the other, and prints rates and ratios.

    Args:
      arguments: Of `parser`, perhaps with more.
      sides: Make a step of one batch, 'ours' and its peers.
      described: Options that the result repeats.

    Returns:
      The exit code: 1 if ours is below `LEAST` times the faster peer.
    """
    arguments.add_argument("--side", choices=list(sides), help=argparse.SUPPRESS)
    options = arguments.parse_args()
    if options.side:
        _serve(lambda: sides[options.side](options))
        return 0
    peers = [] if options.peers == "none" else options.peers.split(",")
    known = [name for name in sides if name != OURS]
    if unknown := set(peers) - set(known):
        arguments.error(
            f"--peers has {', '.join(sorted(unknown))}; known are {' and '.join(known)}."
        )
    taken = _take_turns(options.module, [OURS, *peers], options.rounds)
    rates = {name: round(options.batch / seconds, 3) for name, seconds in taken.items()}
    ratios = {name: round(rates[OURS] / rates[name], 3) for name in peers}
    figures = {"images_per_second": rates, "ratios": ratios, "cpus": os.cpu_count()}
    figures["processor"] = processor.name()
    print(json.dumps({name: getattr(options, name) for name in described} | figures))
    return int(any(ratio < LEAST for ratio in ratios.values()))


def environment_of(side: str) -> dict[str, str]:
    """What a side's process is started with."""
    environment = dict(os.environ)
    if side == OURS:
        huge_pages.ask_for(environment)  # as every command of ours does
    return environment


def _take_turns(module: str, names: Sequence[str], rounds: int) -> dict[str, float]:
    """Median seconds of a step for each side.

    Args:
      module: The benchmark's, which takes this process' arguments and `--side`.
      names: Of the sides.
      rounds: Steps that are measured in each turn of a side.

    Raises:
      RuntimeError: If a side's process ends.
    """
    command = [sys.executable, "-m", module, *sys.argv[1:], "--side"]
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for name in [*names] * _TURNS:
        side = subprocess.Popen(
            [*command, name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment_of(name),
        )
        try:
            print(f"{name}: warm after {_reply(side):.1f} s", file=sys.stderr)
            assert side.stdin is not None
            for _ in range(rounds):
                print(file=side.stdin, flush=True)
                seconds[name].append(_reply(side))
                print(f"{name}: {seconds[name][-1]:.2f} s", file=sys.stderr)
        finally:
            side.kill()
            side.wait()
    return {name: statistics.median(measured) for name, measured in seconds.items()}


def _reply(side: subprocess.Popen[str]) -> float:
    assert side.stdout is not None
    line = side.stdout.readline()
    if not line:
        raise RuntimeError(f"{' '.join(map(str, side.args))} ended with {side.wait()}")
    return float(line)


def _serve(make: Callable[[], Step]) -> None:
    """Takes two steps, then one for each line of the input; answers with its seconds."""
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


def fastest_format(make: Callable[[Any], Step]) -> Step:
    """PyTorch's step in the memory format in which it is faster the second time."""
    import torch

    def seconds(step: Step) -> float:
        step()
        began = time.perf_counter()
        step()
        return time.perf_counter() - began

    return min(map(make, (torch.contiguous_format, torch.channels_last)), key=seconds)
