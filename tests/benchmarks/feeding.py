"""Does a chip wait for its images? The feed and the loop of a run, before a chip of a set speed.

    python -m tests.benchmarks.feeding [--images=6000] [--batch=256] [--rounds=3] [--workers=2]

RadImageNet's layout with images of 224 x 224 pixels is generated, prepared and decoded. In place of
the compiled step stands a chip that takes T ms for a batch, one after the other, while the host may
do what it likes; all else is a run's own: order, threads that read and decode, batches on the
devices, steps on their way. In each round the cores first decode as fast as they can; T is then
such that the chip wants 80 % of that rate, and is fed from encoded and from decoded records;
last it wants 5,000 images a second, from decoded ones. Worker processes in the place of threads
decode as fast as they can too, and what the run's own process then has to do for an image, in the
time of its cores, says how far they may scale. A share is the time for which the chip was
busy, of the time from one of its first batches to the last; the median of the rounds counts. The
last line of the output is one JSON object; the exit code is 1 if a share is below 0.97, or a core
reads fewer than 10,000 decoded images in a second of its time.
"""

import argparse
import contextlib
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np

from radimagenet_jax.data import datasets
from radimagenet_jax.data.streaming import StreamedSplit, batches
from radimagenet_jax.training import sharding, stepping
from radimagenet_jax.training.feed import StreamedFeed
from radimagenet_jax.training.order import DataOrder
from tests.benchmarks.prepare import SIDE, generate

PICTURES = 300
SECONDS = 5.0  # of each measurement, about
WARM = 5  # batches before those that count, beside those read ahead
OF_DECODED = 0.8
FAST = 5000  # images a second
LEAST_SHARE, LEAST_READ = 0.97, 10_000


class Done:
    """A step's sums, there once the step is done."""

    def __init__(self, when: float):
        self._when = when

    def __array__(self, *_: Any, **__: Any) -> np.ndarray:
        """Waits as `jax.device_get` does, without Python's lock."""
        time.sleep(max(0.0, self._when - time.perf_counter()))
        return np.zeros(())


class Chip:
    """Stands for a compiled step: each batch takes so many seconds, from when it is there.

    Attributes:
      seconds: For a batch.
      done: When each batch was, or will be, done.
    """

    def __init__(self, seconds: float):
        self.seconds = seconds
        self.done: list[float] = []

    def lower(self, *_: Any) -> "Chip":
        """As a jitted function has it."""
        return self

    def compile(self) -> "Chip":
        """As what `lower` gives has it."""
        return self

    def __call__(self, state: None, *batch: Any) -> tuple[None, dict[str, Done]]:
        """Begins a step when its batch is there and the one before is done."""
        jax.block_until_ready(batch)
        free = self.done[-1] if self.done else 0.0
        self.done.append(max(free, time.perf_counter()) + self.seconds)
        return state, {"loss": Done(self.done[-1])}

    @property
    def share(self) -> float:
        """Of the time after the first batches, that for which it was busy."""
        return (len(self.done) - 1 - WARM) * self.seconds / (self.done[-1] - self.done[WARM])


def main() -> int:
    """Prepares the set, and measures round after round."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.feeding")
    parser.add_argument("--images", type=int, default=6000)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--folder", help="where to work, a temporary folder by default")
    options = parser.parse_args()
    rounds = []
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        generate(Path(folder), options.images, PICTURES)
        encoded, decoded = (_train_split(folder, way) for way in ("true", "decoded"))
        for _ in range(options.rounds):
            threads, own = decoding_rate(encoded, options.batch)
            workers, own_with = decoding_rate(encoded, options.batch, options.workers)
            wanted = OF_DECODED * threads
            rounds.append(
                {
                    "wanted": wanted,
                    "workers_to_threads": workers / threads,
                    "own": own,
                    "own_with_workers": own_with,
                    "encoded": share(encoded, options.batch, wanted),
                    "decoded": share(decoded, options.batch, wanted),
                    f"decoded_at_{FAST}": share(decoded, options.batch, FAST),
                    "read_by_a_core": reading_rate(decoded),
                    "load": os.getloadavg()[0],
                }
            )
            print({name: round(value, 3) for name, value in rounds[-1].items()}, file=sys.stderr)
    middle = {name: statistics.median(one[name] for one in rounds) for name in rounds[0]}
    shares = {name: round(middle[name], 3) for name in ("encoded", "decoded")}
    fast = round(middle[f"decoded_at_{FAST}"], 3)
    summary = {
        "share_of_device": shares,
        f"share_at_{FAST}_decoded": fast,
        "device_images_per_second": round(middle["wanted"]),
        "cores_decode_images_per_second": round(middle["wanted"] / OF_DECODED),
        "workers": options.workers,
        "workers_to_threads": round(middle["workers_to_threads"], 2),
        "own_microseconds_an_image": {
            "threads": round(middle["own"]),
            "workers": round(middle["own_with_workers"]),
        },
        "decoded_images_per_second_of_a_core": round(middle["read_by_a_core"]),
        "batch": options.batch,
        "rounds": options.rounds,
        "load": round(middle["load"], 1),
        "cpus": os.cpu_count(),
    }
    print(json.dumps(summary))
    is_slow = min(*shares.values(), fast) < LEAST_SHARE or middle["read_by_a_core"] < LEAST_READ
    return int(is_slow)


def _train_split(folder: str, way: str) -> StreamedSplit:
    split = datasets.load("radimagenet", folder, SIDE, streaming=way).train
    assert isinstance(split, StreamedSplit)
    return split


def decoding_rate(split: StreamedSplit, batch: int, workers: int = 0) -> tuple[float, float]:
    """Images a second of the threads or workers alone; and microseconds of this process for one."""
    order = DataOrder(len(split), batch, seed=0, shuffle=True)
    found = batches(split, order, np.arange(batch), 0, 1_000_000, workers=workers)
    with contextlib.closing(found):
        for _ in range(WARM):
            next(found)
        images, began, own = 0, time.perf_counter(), time.process_time()
        while time.perf_counter() - began < SECONDS:
            images += len(next(found).images)
        return images / (time.perf_counter() - began), (time.process_time() - own) / images * 1e6


def reading_rate(split: StreamedSplit) -> float:
    """Images in a second of one core's time, of a thread alone, in a shuffled order."""
    order = np.random.default_rng(0).permutation(len(split))
    began = time.process_time()
    for start in range(0, len(order), 32):
        split.read(order[start : start + 32])
    return len(order) / (time.process_time() - began)


def share(split: StreamedSplit, batch: int, rate: float) -> float:
    """How busy a chip of that rate is, fed from a split."""
    mesh = sharding.make_mesh({"data": 1}, batch)
    order = DataOrder(len(split), batch, seed=0, shuffle=True)
    feed, whole = StreamedFeed(split, mesh), sharding.replicated(mesh)
    steps = stepping.SingleSteps(lambda *batch: batch, feed, order, whole, mesh)
    chip = Chip(batch / rate)
    steps._lazy = chip
    last = WARM + 1 + int(SECONDS / chip.seconds)
    steps.compile(None, 0, last)
    for step in range(last):
        steps.advance(None, step, last)
    return chip.share


if __name__ == "__main__":
    sys.exit(main())
