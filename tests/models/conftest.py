"""Networks small enough to differentiate in a second, with every kind of layer in them."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from flax import traverse_util

from radimagenet_jax import models
from tests.networks import KNOWN


@pytest.fixture(scope="session")
def shallow() -> Callable[..., Any]:
    """Makes a shallow network by name, with two classes unless told otherwise."""

    def make(name: str, **fields: Any) -> Any:
        return models.create(name, **{"num_classes": 2, **KNOWN[name].shallow, **fields})

    return make


@pytest.fixture(scope="session")
def random_variables() -> Callable[..., dict[str, Any]]:
    """Draws all variables of a network, statistics included, so that none is trivial."""

    def draw(model: Any, image_size: int, seed: int = 5) -> dict[str, Any]:
        rng = np.random.default_rng(seed)
        shapes = traverse_util.flatten_dict(models.variable_shapes(model, image_size), sep="/")
        leaves = {}
        for name, leaf in shapes.items():
            role = name.rpartition("/")[2]
            if role == "kernel":
                value = rng.normal(0, np.sqrt(2 / np.prod(leaf.shape[:-1])), leaf.shape)
            elif role in ("scale", "var"):
                value = rng.uniform(0.5, 1.5, leaf.shape)
            else:
                value = rng.normal(0, 0.2, leaf.shape)
            leaves[name] = value.astype(leaf.dtype)
        return traverse_util.unflatten_dict(leaves, sep="/")

    return draw
