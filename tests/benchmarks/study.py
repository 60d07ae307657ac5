"""A study's engine against its runs one by one, and against the published Keras loop.

    pip install -e '.[bench]'
    python -m tests.benchmarks.study --model=resnet50 --structure=freezeall

Both sides train the same runs (by default two learning rates in five folds) on the phantoms, with
the published augmentation, batch by batch, and evaluate every epoch. Images are made beforehand;
our two sides compile in a warm-up of one epoch. `one by one` is
our own trainer's step with everything compiled once. `keras` is what the published scripts do:
tf_keras, ImageDataGenerator, model.fit, its graph built within the time. With `--alone_runs` and
`--keras_runs` so many of the runs are trained, whose mean counts for the others, since all do
the same work. The last line of the output is one JSON object.
"""

import argparse
import json
import os
import time
from collections.abc import Callable

# TensorFlow's remarks on missing accelerators; it reads this when it is imported.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from ml_collections import ConfigDict

from configs import study_base
from radimagenet_jax import huge_pages
from radimagenet_jax.console import console
from radimagenet_jax.data.datasets import Dataset, Split
from radimagenet_jax.data.images import resize_nearest
from radimagenet_jax.data.splits import stand_in
from radimagenet_jax.studies import alone, plan, shared
from radimagenet_jax.studies.images import Images, gather
from tests.benchmarks import published
from tests.keras_networks import KERAS_APPLICATIONS
from tfds_builders.phantom.patients import draw_split

RATES = {"freezeall": (1e-2, 1e-3), "unfreezetop10": (1e-2, 1e-3), "unfreezeall": (1e-3, 1e-4)}


def main() -> int:
    """Times both sides."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.study")
    parser.add_argument("--model", default="resnet50")
    parser.add_argument("--structure", default="freezeall", choices=RATES)
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--count", type=int, default=200, help="images of all folds")
    parser.add_argument("--batch_size", type=int, default=16)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--views", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--alone_runs", type=int, default=0, help="of the runs; 0: all, -1: none")
    parser.add_argument("--keras_runs", type=int, default=0)
    options = parser.parse_args()
    images = gather(range(1, options.folds + 1), phantoms(options.count, options.size))
    config = study(options)
    (group, *others) = plan.groups(config)
    runs = [run for each in (group, *others) for run in each.runs]
    sides: dict[str, Callable[[int], None]] = {"ours": lambda epochs: ours(config, images, epochs)}
    counts = {"ours": len(runs)}
    if options.alone_runs >= 0:
        few = runs[: options.alone_runs or len(runs)]
        sides["one_by_one"] = lambda epochs: one_by_one(config, few, images, epochs)
        counts["one_by_one"] = len(few)
    if options.keras_runs:
        sides["keras"] = lambda epochs: by_keras(
            options, runs[: options.keras_runs], images, epochs
        )
        counts["keras"] = options.keras_runs
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for name, side in sides.items():
        console.print(f"{name}: warming up")
        if name != "keras":
            side(1)
    for _ in range(options.rounds):
        for name, side in sides.items():
            began = time.perf_counter()
            side(options.epochs)
            took = (time.perf_counter() - began) * len(runs) / counts[name]
            seconds[name].append(took)
            console.print(f"{name}: {took:.1f} s for {len(runs)} runs")
    medians = {name: float(np.median(times)) for name, times in seconds.items()}
    faster = {f"faster_than_{n}": m / medians["ours"] for n, m in medians.items() if n != "ours"}
    print(json.dumps({**vars(options), "runs": len(runs), "seconds": medians, **faster}))
    return 0


def study(options: argparse.Namespace) -> ConfigDict:
    """The study of one structure at its two rates in all folds."""
    config = study_base.get_config("breast")
    config.image_size, config.batch_size = options.size, options.batch_size
    config.study.models = (options.model,)
    config.study.folds = tuple(range(1, options.folds + 1))
    config.study.settings = tuple((options.structure, rate) for rate in RATES[options.structure])
    config.study.views = (options.views,)
    plan.validate(config)
    return config


def phantoms(count: int, size: int) -> Callable[[int], Dataset]:
    """Loads a fold of the stand-in split of phantom slices, three channels as BUSI has."""
    drawn = []
    for slice_ in draw_split("train", count):
        drawn.append(slice_)
        if len(drawn) == count:
            break
    labels = np.array([slice_.has_lesion for slice_ in drawn], np.int32)
    pixels = np.stack([resize_nearest(slice_.pixels[..., None], size) for slice_ in drawn])
    pixels = np.repeat(pixels, 3, axis=-1)

    def load(fold: int) -> Dataset:
        names = [f"slice{k}" for k in range(count)]
        chosen = stand_in([str(label) for label in labels], names, fold)
        splits = [
            Split(
                images=pixels[places],
                labels=labels[places],
                keys=tuple(names[k] for k in places),
                patients=("",) * len(places),
                ids=np.array(places, np.uint32),
            )
            for places in (chosen["train"], chosen["val"], chosen["test"])
        ]
        return Dataset("phantoms", *splits, ("benign", "malignant"), "Drawn here.", "", ())

    return load


def ours(config: ConfigDict, images: Images, epochs: int) -> None:
    """All runs as the study computes them."""
    config.epochs = epochs
    for group in plan.groups(config):
        if group.has_trunk:
            shared.train(config, group.runs, images, 1, lambda epoch: None)
        else:
            alone.train(config, group.runs[0], images, 1, lambda epoch: None)


def one_by_one(config: ConfigDict, runs: list[plan.Run], images: Images, epochs: int) -> None:
    """Runs by the ordinary step."""
    config.epochs = epochs
    for run in runs:
        alone.train(config, run, images, 1, lambda epoch: None)


def by_keras(
    options: argparse.Namespace, runs: list[plan.Run], images: Images, epochs: int
) -> None:
    """Runs by the loop of the published scripts."""
    import tf_keras as keras

    generator = keras.preprocessing.image.ImageDataGenerator
    prepared = published.prepared()
    for run in runs:
        keras.backend.clear_session()
        build = getattr(keras.applications, KERAS_APPLICATIONS[options.model])
        base = build(
            weights=None,
            include_top=False,
            pooling="avg",
            input_shape=(options.size, options.size, 3),
        )
        frozen = {"freezeall": len(base.layers), "unfreezetop10": len(base.layers) - 10}
        for layer in base.layers[: frozen.get(options.structure, 0)]:
            layer.trainable = False
        head = keras.layers.Dense(2, activation="softmax")(keras.layers.Dropout(0.5)(base.output))
        model = keras.Model(base.input, head)
        model.compile(keras.optimizers.Adam(run.learning_rate), loss="binary_crossentropy")
        parts = {}
        for split, options_of in (("train", {**published.ranges(), **prepared}), ("val", prepared)):
            places = images.splits[run.fold][split]
            x = images.read(places).astype(np.float32)
            y = np.eye(2, dtype=np.float32)[images.labels[places]]
            parts[split] = generator(**options_of).flow(x, y, batch_size=options.batch_size)
        model.fit(parts["train"], validation_data=parts["val"], epochs=epochs, verbose=0)


if __name__ == "__main__":
    huge_pages.restart_with()  # as every command does; Keras has them here too
    raise SystemExit(main())
