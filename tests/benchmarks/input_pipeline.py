"""Reading and decoding images of 224 x 224 pixels: ours, Keras' and PyTorch's way.

    pip install -e '.[bench]' && python -m tests.benchmarks.input_pipeline

The same files on the same cores, in a shuffled order, in batches of 64, without augmentation:
Keras' ImageDataGenerator (alone or behind its OrderedEnqueuer, whichever is faster) and PyTorch's
DataLoader with a worker for each core and Pillow read the released files; ours reads the records
that they were prepared to. All give images of 224 x 224 (ours with one channel, which the device
replicates). Each is measured in turn, three times; the median counts. The last line of the output
is one JSON object; the exit code is 1 if ours is below 3 times Keras or 1.5 times PyTorch.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from tests.benchmarks.prepare import SIDE, generate

BATCH = 64
REPEATS = 3
LEAST = {"keras": 3.0, "torch": 1.5}


def main() -> int:
    """Generates the files, measures each pipeline in processes of its own, and compares."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.input_pipeline")
    parser.add_argument("--files", type=int, default=4000)
    parser.add_argument("--folder", help="where to work, a temporary folder by default")
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        name, folder = options.measure
        print(json.dumps(PIPELINES[name](Path(folder))))
        return 0
    from radimagenet_jax.data.preparation import prepare

    rates: dict[str, list[float]] = {name: [] for name in PIPELINES}
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        generate(Path(folder), options.files)
        prepare("radimagenet", folder)
        for _ in range(REPEATS):
            for name, measured in rates.items():
                measured.append(_in_a_process(name, folder))
                print(f"{name}: {measured[-1]:.0f} images/s", file=sys.stderr)
    middle = {name: statistics.median(measured) for name, measured in rates.items()}
    ratios = {name: middle["ours"] / middle[name] for name in LEAST}
    print(
        json.dumps(
            {
                "images_per_second": {name: round(rate, 1) for name, rate in middle.items()},
                "ratios": {name: round(ratio, 2) for name, ratio in ratios.items()},
                "cpus": os.cpu_count(),
            }
        )
    )
    return int(any(ratios[name] < least for name, least in LEAST.items()))


def _in_a_process(name: str, folder: str) -> float:
    done = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks.input_pipeline", "--measure", name, folder],
        check=True,
        capture_output=True,
        text=True,
    )
    return float(done.stdout.splitlines()[-1])


def ours(folder: Path) -> float:
    """Records through grain, decoded in threads."""
    from radimagenet_jax.data import datasets, streaming
    from radimagenet_jax.training.order import DataOrder

    split = datasets.load("radimagenet", folder, SIDE, streaming="true").train
    assert isinstance(split, streaming.StreamedSplit)
    order = DataOrder(len(split), BATCH, seed=0, shuffle=True)
    steps = order.steps_per_epoch
    found = streaming.batches(split, order, np.arange(BATCH), 0, 2 * steps)
    return _rate(lambda: next(found).images, steps)


def keras(folder: Path) -> float:
    """ImageDataGenerator as the published scripts use it, without its augmentation."""
    import tf_keras

    def flow() -> tf_keras.preprocessing.image.DirectoryIterator:
        return tf_keras.preprocessing.image.ImageDataGenerator().flow_from_directory(
            folder / "downloads/manual/radimagenet/radiology_ai",
            target_size=(SIDE, SIDE),
            batch_size=BATCH,
            class_mode="sparse",
            interpolation="nearest",
        )

    alone = flow()
    rate = _rate(lambda: next(alone)[0], len(alone))
    enqueuer = tf_keras.utils.OrderedEnqueuer(flow(), use_multiprocessing=False)
    enqueuer.start(workers=os.cpu_count(), max_queue_size=10)
    batches = enqueuer.get()
    ahead = _rate(lambda: next(batches)[0], len(alone))
    enqueuer.stop()
    return max(rate, ahead)


def torch(folder: Path) -> float:
    """DataLoader with a process for each core."""
    import torch
    from PIL import Image

    paths = sorted((folder / "downloads/manual/radimagenet").rglob("*.png"))

    class Files(torch.utils.data.Dataset):
        def __len__(self) -> int:
            return len(paths)

        def __getitem__(self, index: int) -> torch.Tensor:
            with Image.open(paths[index]) as image:
                return torch.from_numpy(np.array(image.convert("RGB")))

    loader = torch.utils.data.DataLoader(
        Files(), BATCH, shuffle=True, num_workers=os.cpu_count() or 1, persistent_workers=True
    )
    iter(loader)  # its processes start
    batches = iter(loader)
    return _rate(lambda: next(batches).numpy(), len(loader))


def _rate(draw: Callable[[], np.ndarray], steps: int) -> float:
    """Images a second over an epoch, the first batches left out."""
    warm = min(8, steps // 4)
    for _ in range(warm):
        draw()
    began = time.perf_counter()
    images = sum(len(draw()) for _ in range(steps - warm))
    return images / (time.perf_counter() - began)


PIPELINES: dict[str, Callable[[Path], float]] = {"ours": ours, "keras": keras, "torch": torch}


if __name__ == "__main__":
    sys.exit(main())
