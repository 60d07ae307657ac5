"""Networks to export, with values under which features neither vanish nor explode."""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
import pytest

from radimagenet_jax import models
from radimagenet_jax.exports.source import Source
from radimagenet_jax.models.layers import Layers, block_output, relu
from radimagenet_jax.models.ops.pooling import halve, max_pool, smooth
from radimagenet_jax.weights.contract import Contract
from tests.conftest import COMPILED_QUICKLY
from tests.keras_networks import random_values

LABELS = ("benign", "malignant", "normal")
_PAD_1 = ((1, 1), (1, 1))
_ROLES = {"scale": "gamma", "mean": "moving_mean", "var": "moving_variance"}

Make = Callable[..., Source]
Reference = Callable[[Source, np.ndarray], dict[str, np.ndarray]]


class Tiny(models.Network):
    """All operations of the published networks, a few times each."""

    min_image_size = 16

    def blocks(self, x: jax.Array, layers: Layers) -> dict[str, jax.Array]:
        x = relu(layers.conv_norm(x, ("conv", "bn"), 8, 7, stride=2, padding=((3, 3), (3, 3))))
        x = max_pool(x, 3, 2, _PAD_1)
        y = relu(layers.conv_norm(x, ("conv1", "bn1"), 8, 3, padding="SAME", use_bias=False))
        x = block_output(jax.numpy.concatenate([x, y, smooth(x), max_pool(x, 3, 1, "SAME")], -1))
        return {"spatial": halve(relu(layers.conv(x, "last", 16)))}


@pytest.fixture(scope="module", autouse=True)
def _tiny_is_known() -> Iterator[None]:
    models.register(models.Architecture("tiny_to_export", Tiny))
    yield
    del models._architectures()["tiny_to_export"]


@pytest.fixture(scope="session")
def make_source() -> Make:
    """Makes a network with a head of three classes, or without."""

    def make(
        name: str,
        size: int,
        *,
        labels: tuple[str, ...] | None = LABELS,
        variant: str | None = None,
        preprocessing: tuple[str, str] = ("caffe_div255", "BGR"),
    ) -> Source:
        variant = models.architecture(name).variants[0] if variant is None else variant
        classes = len(labels) if labels else None
        model = models.create(name, variant=variant, num_classes=classes)
        images = np.zeros((1, size, size, 3), np.float32)
        shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), images))
        rng = np.random.default_rng(0)

        def value(path: Any, leaf: Any) -> np.ndarray:
            role = path[-1].key
            return random_values(_ROLES.get(role, role), leaf.shape, rng)

        variables = jax.tree_util.tree_map_with_path(value, shapes)
        contract = Contract(name, variant, *preprocessing, "a test", "mine", "0" * 64, labels)
        return Source(model, variables, contract, size)

    return make


@pytest.fixture(scope="module")
def tiny(make_source: Make) -> Source:
    """One for images of 32 pixels that is exported in a second."""
    return make_source("tiny_to_export", 32)


@pytest.fixture(scope="session")
def reference() -> Reference:
    """What the network gives, without the code that exports it."""

    def apply(source: Source, images: np.ndarray) -> dict[str, np.ndarray]:
        @jax.jit
        def run(images: jax.Array) -> Any:
            x = source.contract.input.of(images)
            logits, out = source.model.apply(source.variables, x)
            return logits, out["pooled"]

        logits, pooled = run.lower(images).compile(compiler_options=COMPILED_QUICKLY)(images)
        found = {"features": np.asarray(pooled)}
        if logits is not None:
            found["probabilities"] = np.asarray(jax.nn.softmax(logits))
        return found

    return apply


def telling_apart(source: Source, features: np.ndarray) -> tuple[Source, np.ndarray]:
    """The same network with a head that tells images of these features (N, C) apart.

    Returns:
      The network, and its probabilities (N, classes) of those images.
    """
    features = features.astype(np.float64)
    classes = len(source.contract.labels or ())
    draws = np.random.default_rng(1).normal(size=(features.shape[1], classes))
    kernel = draws / (features.std(0)[:, None] + 1e-6) / np.sqrt(features.shape[1])
    bias = -features.mean(0) @ kernel
    head = {"kernel": kernel.astype(np.float32), "bias": bias.astype(np.float32)}
    params = {**source.variables["params"], "head": head}
    scores = np.exp(features @ head["kernel"] + head["bias"])
    source = dataclasses.replace(source, variables={**source.variables, "params": params})
    return source, scores / scores.sum(-1, keepdims=True)


def assert_agree(found: dict[str, Any], expected: dict[str, np.ndarray]) -> None:
    """Equal within 1e-4: probabilities as they are, features relative to the largest."""
    assert set(found) == set(expected)
    assert np.ptp(expected["features"]) > 0
    for name, values in expected.items():
        scale = np.abs(values).max() if name == "features" else 1
        np.testing.assert_allclose(found[name] / scale, values / scale, atol=1e-4, err_msg=name)
