"""What a network is fed with, from files on disk: ours, and the ways of Keras, PyTorch and tf.data.

    pip install -e '.[bench]' && python -m tests.benchmarks.input_pipeline

The same files on the same cores, in a shuffled order, in batches of 64 of 224 x 224 pixels,
decoded, resized, augmented (the published `rotate_flip`), normalised and in RGB float32. Keras is
the published scripts' ImageDataGenerator (alone or behind its OrderedEnqueuer, whichever is
faster), PyTorch a DataLoader with a worker for each core that decodes and turns images by Pillow,
tf.data a parallel map with TensorFlow's own decoder and projective transform; these read the
released files. Ours reads the records that they were prepared to, decodes in threads and augments
on the device, here the same cores. With --augment=none images are only read, decoded and resized,
as bytes.
Each is measured in turn, three times; the median counts. The last line of the output is one JSON
object; the exit code is 1 if ours is below 5 times Keras or 1.5 times one of the others (without
augmentation, of which Keras is the slowest part: 3 times Keras).
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

from tests.benchmarks import published, turns
from tests.benchmarks.prepare import SIDE, generate

BATCH = 64
REPEATS = 3
LEAST = {"keras": 5.0, "torch": 1.5, "tf.data": 1.5}
LEAST_UNAUGMENTED = {**LEAST, "keras": 3.0}
# What the peers are given: maps (N, 2, 3), mean (3,) and divisor.
DRAWN = "drawn.npz"


def main() -> int:
    """Generates the files, measures each pipeline in processes of its own, and compares."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.input_pipeline")
    parser.add_argument("--files", type=int, default=4000)
    parser.add_argument("--augment", choices=("published", "none"), default="published")
    parser.add_argument("--folder", help="where to work, a temporary folder by default")
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        name, folder = options.measure
        print(json.dumps(PIPELINES[name](Path(folder), options.augment != "none")))
        return 0
    from radimagenet_jax.data.preparation import prepare

    rates: dict[str, list[float]] = {name: [] for name in PIPELINES}
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        generate(Path(folder), options.files)
        prepare("radimagenet", folder)
        draw_for_peers(Path(folder))
        for _ in range(REPEATS):
            for name, measured in rates.items():
                measured.append(_in_a_process(name, folder, options.augment))
                print(f"{name}: {measured[-1]:.0f} images/s", file=sys.stderr)
    middle = {name: statistics.median(measured) for name, measured in rates.items()}
    wanted = LEAST_UNAUGMENTED if options.augment == "none" else LEAST
    ratios = {name: middle["ours"] / middle[name] for name in wanted}
    print(
        json.dumps(
            {
                "augment": options.augment,
                "images_per_second": {name: round(rate, 1) for name, rate in middle.items()},
                "ratios": {name: round(ratio, 2) for name, ratio in ratios.items()},
                "cpus": os.cpu_count(),
            }
        )
    )
    return int(any(ratios[name] < least for name, least in wanted.items()))


def _in_a_process(name: str, folder: str, augment: str) -> float:
    command = [sys.executable, "-m", "tests.benchmarks.input_pipeline", f"--augment={augment}"]
    done = subprocess.run(
        [*command, "--measure", name, folder],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        env=turns.environment_of(name),
    )
    return float(done.stdout.splitlines()[-1])


def ours(folder: Path, augmented: bool) -> float:
    """Records through grain, decoded in threads, augmented as the training step does."""
    import jax

    from radimagenet_jax.data import augment, datasets, streaming
    from radimagenet_jax.models import preprocess
    from radimagenet_jax.training.order import DataOrder

    split = datasets.load("radimagenet", folder, SIDE, streaming="true").train
    assert isinstance(split, streaming.StreamedSplit)
    order = DataOrder(len(split), BATCH, seed=0, shuffle=True)
    steps = order.steps_per_epoch
    found = streaming.batches(split, order, np.arange(BATCH), 0, 2 * steps)
    if not augmented:
        return _rate(lambda: next(found).images, steps)
    key = jax.random.key(0)

    @jax.jit
    def fed(images: jax.Array, ids: jax.Array) -> jax.Array:
        varied = augment.augment(images, ids, 0, key, augment.POLICIES["rotate_flip"])
        return preprocess.normalize(varied, preprocess.PUBLISHED, "RGB")

    def draw() -> np.ndarray:
        batch = next(found)
        return np.asarray(fed(batch.images, batch.ids))

    return _rate(draw, steps)


def keras(folder: Path, augmented: bool) -> float:
    """ImageDataGenerator as the published scripts use it."""
    import tf_keras

    def flow() -> tf_keras.preprocessing.image.DirectoryIterator:
        options = {**published.ranges(), **published.prepared()} if augmented else {}
        generator = tf_keras.preprocessing.image.ImageDataGenerator(**options)
        return generator.flow_from_directory(
            folder / "downloads/manual/radimagenet/radiology_ai",
            target_size=(SIDE, SIDE),
            batch_size=BATCH,
            class_mode="sparse",
            interpolation="nearest",
        )

    alone = flow()
    # Its augmentation takes long enough that a part of an epoch tells.
    steps = len(alone) // 4 if augmented else len(alone)
    rate = _rate(lambda: next(alone)[0], steps)
    enqueuer = tf_keras.utils.OrderedEnqueuer(flow(), use_multiprocessing=False)
    enqueuer.start(workers=os.cpu_count(), max_queue_size=10)
    batches = enqueuer.get()
    ahead = _rate(lambda: next(batches)[0], steps)
    enqueuer.stop()
    return max(rate, ahead)


def torch(folder: Path, augmented: bool) -> float:
    """DataLoader with a process for each core, images turned by Pillow."""
    import torch
    from PIL import Image

    paths = _files(folder)
    drawn = np.load(folder / DRAWN)
    maps, divisor = drawn["maps"].reshape(-1, 6), float(drawn["divisor"])
    mean = torch.from_numpy(drawn["mean"])[:, None, None] / divisor

    class Files(torch.utils.data.Dataset):
        def __len__(self) -> int:
            return len(paths)

        def __getitem__(self, index: int) -> torch.Tensor:
            with Image.open(paths[index]) as opened:
                image = opened.convert("RGB").resize((SIDE, SIDE), Image.Resampling.NEAREST)
            if not augmented:
                return torch.from_numpy(np.array(image))
            image = image.transform(
                image.size, Image.Transform.AFFINE, maps[index], Image.Resampling.BILINEAR
            )
            return torch.from_numpy(np.array(image)).permute(2, 0, 1).div(divisor) - mean

    loader = torch.utils.data.DataLoader(
        Files(), BATCH, shuffle=True, num_workers=os.cpu_count() or 1, persistent_workers=True
    )
    iter(loader)  # its processes start
    batches = iter(loader)
    return _rate(lambda: next(batches).numpy(), len(loader))


def tf_data(folder: Path, augmented: bool) -> float:
    """A parallel map by TensorFlow's own operations, ahead of what is asked for."""
    import tensorflow as tf

    paths = _files(folder)

    def load(path: tf.Tensor) -> tf.Tensor:
        image = tf.io.decode_png(tf.io.read_file(path), channels=3)
        return tf.image.resize(image, (SIDE, SIDE), "nearest")

    def vary(images: tf.Tensor, matrices: tf.Tensor) -> tf.Tensor:
        images = tf.raw_ops.ImageProjectiveTransformV3(
            images=tf.cast(images, tf.float32),
            transforms=matrices,
            output_shape=(SIDE, SIDE),
            fill_value=0.0,
            interpolation="BILINEAR",
            fill_mode="NEAREST",
        )
        return (images - drawn["mean"]) / drawn["divisor"]

    drawn = dict(np.load(folder / DRAWN))
    # Its maps are projective, with two more coefficients.
    matrices = np.pad(drawn["maps"].reshape(-1, 6), ((0, 0), (0, 2)))
    files = tf.data.Dataset.from_tensor_slices(([str(path) for path in paths], matrices))
    found = files.shuffle(len(paths)).map(lambda path, drawn: (load(path), drawn), tf.data.AUTOTUNE)
    found = found.batch(BATCH)
    found = found.map(vary if augmented else lambda images, _: images, tf.data.AUTOTUNE)
    batches = found.prefetch(tf.data.AUTOTUNE).as_numpy_iterator()
    return _rate(lambda: next(batches), -(-len(paths) // BATCH))


def draw_for_peers(folder: Path) -> None:
    """Keeps what each image is turned by, as its pixels (x, y) are read, and how it is normalised.

    PyTorch's workers are forked, which JAX does not bear, so it stays out of the peers' processes.
    """
    import jax

    from radimagenet_jax.data import augment
    from radimagenet_jax.models import preprocess

    policy = augment.POLICIES["rotate_flip"]
    assert policy is not None
    keys = jax.random.split(jax.random.key(0), len(_files(folder)))
    maps = jax.vmap(lambda key: augment.drawn_map(key, policy, (SIDE, SIDE)))(keys)
    scheme = preprocess.SCHEMES[preprocess.PUBLISHED]
    np.savez(
        folder / DRAWN,
        # From (row, column) to (x, y), on both sides.
        maps=np.asarray(maps)[:, ::-1][:, :, [1, 0, 2]],
        mean=np.array(scheme.mean[::-1], np.float32),
        divisor=np.float32(scheme.std[0]),
    )


def _files(folder: Path) -> list[Path]:
    return sorted((folder / "downloads/manual/radimagenet").rglob("*.png"))


def _rate(draw: Callable[[], np.ndarray], steps: int) -> float:
    """Images a second over an epoch, the first batches left out."""
    warm = min(8, steps // 4)
    for _ in range(warm):
        draw()
    began = time.perf_counter()
    images = sum(len(draw()) for _ in range(steps - warm))
    return images / (time.perf_counter() - began)


PIPELINES: dict[str, Callable[[Path, bool], float]] = {
    "ours": ours,
    "keras": keras,
    "torch": torch,
    "tf.data": tf_data,
}


if __name__ == "__main__":
    sys.exit(main())
