"""How fast the whole of `main` trains from each way of feeding it, beside its step alone.

    python -m tests.benchmarks.whole_runs [--ways=resident,sharded,encoded,decoded] \
        [--images=24000] [--config=configs/radimagenet.py] [--config.batch_size=256 ...]

RadImageNet's layout with images of 224 x 224 pixels is generated (300 pictures, each linked under
many names), prepared and decoded. First the compiled step is timed on one batch that stays on the
devices. Then `main` runs once for each way and is stopped by SIGTERM. Counted of the ways that read
from disk are the steps of the first epoch from the twentieth on, without what was read ahead while
it compiled; of images that live on the devices, two epochs of a compiled loop. Meant for a GPU;
other fields of the config may be set, and are the same for all. The last line of the output is one
JSON object; the exit code is 1 if a way is below 95 % of the step alone.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from tests.benchmarks.prepare import SIDE, generate

# The value of config.dataset.streaming.
WAYS = {"resident": "false", "sharded": "sharded", "encoded": "true", "decoded": "decoded"}
ON_DEVICES = ("resident", "sharded")
PICTURES = 300
LEAST = 0.95
LOGGED = 10  # steps between two rows of metrics.jsonl
WARM, TIMED = 10, 100  # steps alone
STOPPED = (0, 143)


def main() -> int:
    """Prepares the set, then times the step alone and each way."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.whole_runs")
    parser.add_argument("--ways", default=",".join(WAYS))
    parser.add_argument("--images", type=int, default=24_000)
    parser.add_argument("--config", default="configs/radimagenet.py")
    parser.add_argument("--folder", help="where to work, a temporary folder by default")
    parser.add_argument("--alone", help=argparse.SUPPRESS)
    options, overrides = parser.parse_known_args()
    if options.alone:
        print(json.dumps(alone(options.config, overrides, Path(options.alone))))
        return 0
    ways = options.ways.split(",")
    if unknown := set(ways) - set(WAYS):
        parser.error(f"--ways has {', '.join(sorted(unknown))}; there are {', '.join(WAYS)}")
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        prepared = prepare(folder, options.images)
        step = in_a_process(options.config, overrides, folder)
        print(step, file=sys.stderr)
        if step["steps_per_epoch"] < 4 * LOGGED:
            parser.error(f"an epoch has {step['steps_per_epoch']} steps; give more --images")
        found = {}
        for way in ways:
            rows = run(way, options.config, overrides, folder, step["steps_per_epoch"])
            rate = rate_of(way, rows, step["batch_size"])
            found[way] = {
                "images_per_second": round(rate, 1),
                "input_wait": round(rows[-1]["input_wait"], 4),
                "share_of_step": round(rate / step["images_per_second"], 3),
            }
            print(way, found[way], file=sys.stderr)
    summary = {"step": step, "ways": found, "seconds": prepared, "cpus": os.cpu_count()}
    print(json.dumps(summary))
    return int(any(one["share_of_step"] < LEAST for one in found.values()))


def prepare(folder: Path, images: int) -> dict[str, float]:
    """Generates, prepares and decodes the set; tells the seconds that each took."""
    from radimagenet_jax.data import datasets, preparation

    def encoded() -> None:
        preparation.prepare("radimagenet", folder)
        datasets.load("radimagenet", folder, SIDE, streaming="true")  # reads all of it once

    stages = {
        "generating": lambda: generate(folder, images, PICTURES),
        "preparing": encoded,
        "decoding": lambda: datasets.load("radimagenet", folder, SIDE, streaming="decoded"),
    }
    seconds = {}
    for name, work in stages.items():
        began = time.perf_counter()
        work()
        seconds[name] = round(time.perf_counter() - began, 1)
    return seconds


def in_a_process(config: str, overrides: list[str], folder: Path) -> dict[str, Any]:
    """Times the step alone in a process of its own, which gives the device back."""
    done = subprocess.run(
        [
            *(sys.executable, "-m", "tests.benchmarks.whole_runs", f"--alone={folder}"),
            *(f"--config={config}", *overrides),
        ],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


def alone(page: str, overrides: list[str], folder: Path) -> dict[str, Any]:
    """Takes steps on one batch, as a run takes them."""
    import jax

    from radimagenet_jax.data import datasets
    from radimagenet_jax.models import ops
    from radimagenet_jax.training import config as config_pages
    from radimagenet_jax.training import determinism, network, sharding, stepping
    from radimagenet_jax.training.feed import Inputs, StreamedFeed
    from radimagenet_jax.training.order import DataOrder
    from radimagenet_jax.training.program import Values

    config = config_pages.load(page, overrides)
    determinism.ask(config.deterministic, folder)  # as a run does, for the same kernels
    ops.keep_compiled_programs()
    mesh = sharding.make_mesh(config.mesh.to_dict(), config.batch_size, config.accumulate)
    dataset = datasets.load("radimagenet", folder, config.image_size, streaming="true")
    labels = dataset.train.labels
    start = network.build(config, dataset.class_names, mesh.size)
    values = Values.of(config, labels, len(dataset.class_names))
    state = start.program.state(start.variables, values)
    layout = sharding.state_layout(state, mesh, config.shard_optimizer)
    state = jax.tree.map(sharding.place, state, layout)

    class SameBatch(StreamedFeed):
        def inputs(self, order: DataOrder, first: int, last: int) -> Iterator[Inputs]:
            (batch,) = islice(super().inputs(order, first, first + 1), 1)
            for _ in range(first, last):
                yield batch

    order = DataOrder(len(labels), config.batch_size, config.seed, shuffle=True)
    feed = SameBatch(dataset.train, mesh)
    step = start.program.train_step(values)
    stepper = stepping.stepper("false", step, feed, order, layout, mesh)
    began = time.perf_counter()
    stepper.compile(state, 0, WARM + TIMED)
    determinism.keep()
    compiled = time.perf_counter()
    for number in range(WARM):
        state, _ = stepper.advance(state, number, WARM)
    warm = time.perf_counter()
    for number in range(WARM, WARM + TIMED):
        state, _ = stepper.advance(state, number, WARM + TIMED)
    seconds = time.perf_counter() - warm
    return {
        "images_per_second": round(TIMED * config.batch_size / seconds, 1),
        "compile_seconds": round(compiled - began, 1),
        "device": f"{mesh.size} x {jax.devices()[0].device_kind}",
        "model": config.model,
        "batch_size": config.batch_size,
        "steps_per_epoch": order.steps_per_epoch,
        "dtype": config.dtype,
        "augment": config.augment,
    }


def run(
    way: str, config: str, overrides: list[str], folder: Path, steps_per_epoch: int
) -> list[dict[str, Any]]:
    """Trains until enough steps are taken; returns the rows that count of what the run wrote."""
    workdir = folder / way
    command = [
        *(sys.executable, "-m", "radimagenet_jax.main"),
        *(f"--config={config}", f"--workdir={workdir}"),
        f"--config.dataset.data_dir={folder}",
        f"--config.dataset.streaming={WAYS[way]}",
        *("--config.epochs=1000", f"--config.log_every={LOGGED}", "--config.checkpoint_every=0"),
        *overrides,
    ]
    # A compiled loop writes its rows when it ends, at the end of an epoch on a fast device.
    enough = (steps_per_epoch - 1) // LOGGED * LOGGED
    if way in ON_DEVICES:
        enough = 2 * steps_per_epoch
    process = subprocess.Popen(command, stdout=sys.stderr)
    try:
        while process.poll() is None:
            rows = written(workdir)
            if rows and rows[-1]["step"] >= enough:
                break
            time.sleep(0.2)
    finally:
        process.terminate()
        code = process.wait()
    rows = [row for row in written(workdir) if row["step"] <= enough]
    if code not in STOPPED or not rows or rows[-1]["step"] < enough:
        raise SystemExit(f"the run in {way} ended with {code}")
    return rows


def rate_of(way: str, rows: list[dict[str, Any]], batch_size: int) -> float:
    """Images a second, by the run's own clock."""
    last = rows[-1]["images_per_second"]
    if way in ON_DEVICES:
        return last

    def seconds(row: dict[str, Any]) -> float:
        """That the clock had counted, from the second step on."""
        return (row["step"] - 1) * batch_size / row["images_per_second"]

    images = (rows[-1]["step"] - rows[1]["step"]) * batch_size
    return images / (seconds(rows[-1]) - seconds(rows[1]))


def written(workdir: Path) -> list[dict[str, Any]]:
    """The whole rows of the training split."""
    path = workdir / "metrics.jsonl"
    if not path.is_file():
        return []
    lines = path.read_text().split("\n")[:-1]
    return [row for row in map(json.loads, lines) if row["split"] == "train"]


if __name__ == "__main__":
    sys.exit(main())
