"""A task of two uneven folds in memory, and studies of shallow networks on it."""

import dataclasses
from collections.abc import Callable, Sequence

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from configs import study_base
from radimagenet_jax.data.datasets import SPLITS, Dataset, Split
from radimagenet_jax.studies import plan
from radimagenet_jax.studies.images import Images, gather
from tests.networks import KNOWN

COUNT = 50
# (train, val, test): four steps of 8 in one fold and five in the other. The last batches have 6
# images: statistics over one or two would make rounding errors large.
FOLDS = {
    1: (range(12, 42), range(6), range(6, 12)),
    2: (range(38), range(38, 44), range(44, 50)),
}


@pytest.fixture(autouse=True, scope="session")
def compiled_quickly():
    """Programs that run for seconds: XLA's costly passes would take most of the time."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


def _pictures(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Noise with a bright spot in every second image."""
    rng = np.random.default_rng(3)
    labels = np.arange(COUNT, dtype=np.int32) % 2
    pixels = rng.integers(0, 120, (COUNT, size, size, 1), dtype=np.uint8)
    for k in np.flatnonzero(labels):
        row, column = rng.integers(size // 4, size // 2, 2)
        pixels[k, row : row + size // 6, column : column + size // 6] += 90
    return pixels, labels


def dataset(fold: int, size: int, **other: Sequence[int]) -> Dataset:
    """A fold; `other` gives a split other images."""
    pixels, labels = _pictures(size)
    splits = [
        Split(
            images=pixels[list(chosen)],
            labels=labels[list(chosen)],
            keys=tuple(f"image{k}" for k in chosen),
            patients=("",) * len(chosen),
            ids=np.array(chosen, np.uint32),
        )
        for chosen in (dict(zip(SPLITS, FOLDS[fold], strict=True)) | other).values()
    ]
    return Dataset("spots", *splits, ("benign", "malignant"), "Made here.", f"{fold}", ())


@pytest.fixture(scope="session")
def make_images() -> Callable[[int], Images]:
    return lambda size: gather((1, 2), lambda fold: dataset(fold, size))


@pytest.fixture(scope="session")
def make_config() -> Callable[..., ConfigDict]:
    def make(model: str = "resnet50", **study: object) -> ConfigDict:
        config = study_base.get_config("breast")
        config.image_size = KNOWN[model].size
        config.batch_size = 8
        config.epochs = 3
        config.batch_norm_momentum = 0.7
        config.study.models = (model,)
        config.study.folds = (1, 2)
        config.study.trunk_batch = 16
        config.study.settings = (("freezeall", 1e-2), ("freezeall", 1e-3))
        config.study.model_options[model] = ConfigDict(dict(KNOWN[model].shallow))
        for name, value in study.items():
            config.study[name] = value
        plan.validate(config)
        return config

    return make


def replaced(images: Images, **fields: object) -> Images:
    return dataclasses.replace(images, **fields)
