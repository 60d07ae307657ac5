"""BatchNorm follows Keras in both modes, and its moving variance either convention."""

import functools
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from radimagenet_jax.models.layers import BatchNorm
from radimagenet_jax.models.ops import platform
from radimagenet_jax.models.ops.normalisation import normalise
from tests.conftest import PROJECT

SHAPE = (5, 4, 3, 6)
PIXELS = SHAPE[0] * SHAPE[1] * SHAPE[2]


@pytest.fixture
def x():
    rng = np.random.default_rng(2)
    # Channels far from zero and of very different spread, where careless variances fail.
    offset, spread = rng.normal(0, 3, 6), 10.0 ** rng.uniform(-1, 1, 6)
    return (offset + spread * rng.normal(0, 1, SHAPE)).astype(np.float32)


@pytest.fixture
def variables():
    rng = np.random.default_rng(3)
    return {
        "params": {
            "scale": rng.uniform(0.5, 1.5, 6).astype(np.float32),
            "bias": rng.normal(0, 1, 6).astype(np.float32),
        },
        "batch_stats": {
            "mean": rng.normal(0, 1, 6).astype(np.float32),
            "var": rng.uniform(0.5, 1.5, 6).astype(np.float32),
        },
    }


def keras_layer(variables, epsilon, use_scale):
    import keras

    layer = keras.layers.BatchNormalization(momentum=0.9, epsilon=epsilon, scale=use_scale)
    layer.build(SHAPE)
    values = [*variables["params"].values(), *variables["batch_stats"].values()]
    layer.set_weights(values if use_scale else values[1:])
    return layer


def ours(variables, x, mask=None, *, use_scale=True, **fields):
    if not use_scale:
        variables = {**variables, "params": {"bias": variables["params"]["bias"]}}
    layer = BatchNorm(momentum=0.9, use_scale=use_scale, **fields)
    return layer.apply(variables, x, mask, mutable=["batch_stats"])


@pytest.mark.parametrize("use_scale", [True, False])
@pytest.mark.parametrize("epsilon", [1.001e-5, 1e-3])
@pytest.mark.parametrize("training", [True, False])
def test_it_normalises_and_updates_as_keras_does(x, variables, use_scale, epsilon, training):
    layer = keras_layer(variables, epsilon, use_scale)
    expected = np.asarray(layer(x, training=training))
    y, updates = ours(
        variables,
        x,
        use_scale=use_scale,
        inference=not training,
        epsilon=epsilon,
        bessel_correction=False,  # Keras 3 on JAX keeps the biased variance
    )
    np.testing.assert_allclose(y, expected, rtol=2e-4, atol=2e-4)
    stats = updates["batch_stats"]
    np.testing.assert_allclose(stats["mean"], layer.moving_mean.value, rtol=1e-5)
    np.testing.assert_allclose(stats["var"], layer.moving_variance.value, rtol=1e-4)
    moved = not np.array_equal(stats["mean"], variables["batch_stats"]["mean"])
    assert moved == training


def test_bessels_correction_enters_the_moving_variance_and_nothing_else(x, variables):
    plain = ours(variables, x, inference=False, epsilon=1e-3, bessel_correction=False)
    fused = ours(variables, x, inference=False, epsilon=1e-3, bessel_correction=True)
    np.testing.assert_array_equal(fused[0], plain[0])
    before, plain, fused = variables["batch_stats"], *(u["batch_stats"] for _, u in (plain, fused))
    np.testing.assert_array_equal(fused["mean"], plain["mean"])
    entered = [(stats["var"] - 0.9 * before["var"]) / 0.1 for stats in (plain, fused)]
    np.testing.assert_allclose(entered[0], x.var((0, 1, 2)), rtol=1e-4)
    np.testing.assert_allclose(entered[1] / entered[0], PIXELS / (PIXELS - 1), rtol=1e-4)
    assert (entered[1] > entered[0]).all()


@pytest.mark.parametrize("bessel_correction", [True, False])
def test_padding_counts_neither_in_the_moments_nor_in_their_number(x, variables, bessel_correction):
    fields = {"inference": False, "epsilon": 1e-3, "bessel_correction": bessel_correction}
    mask = np.array([1, 0, 1, 1, 0], np.float32)
    real = mask > 0
    y, updates = ours(variables, x, mask, **fields)
    alone, expected = ours(variables, x[real], **fields)
    np.testing.assert_allclose(y[real], alone, rtol=1e-4, atol=1e-4)
    for name, value in expected["batch_stats"].items():
        np.testing.assert_allclose(updates["batch_stats"][name], value, rtol=1e-4)
    as_booleans, _ = ours(variables, x, mask.astype(bool), **fields)
    np.testing.assert_array_equal(as_booleans, y)


@pytest.mark.parametrize("groups", [1, 5])
def test_a_batch_of_padding_alone_leaves_the_moving_statistics_alone(x, variables, groups):
    fields = {"inference": False, "epsilon": 1e-3, "stats_groups": groups}
    shift = np.linspace(1, 2, 6, dtype=np.float32)
    layer = BatchNorm(momentum=0.9, **fields)
    _, updates = layer.apply(variables, x, np.zeros(5), shift, mutable=["batch_stats"])
    for name, before in variables["batch_stats"].items():
        np.testing.assert_array_equal(updates["batch_stats"][name], before)


def test_a_single_pixel_has_no_unbiased_variance_and_stays_finite(variables):
    y, updates = ours(
        variables,
        np.full((1, 1, 1, 6), 2, np.float32),
        inference=False,
        epsilon=1e-3,
        bessel_correction=True,
    )
    np.testing.assert_allclose(y[0, 0, 0], variables["params"]["bias"], atol=1e-5)
    np.testing.assert_allclose(
        updates["batch_stats"]["var"], 0.9 * variables["batch_stats"]["var"], rtol=1e-6
    )


def test_bfloat16_inputs_are_normalised_by_float32_statistics(x, variables):
    fields = {"inference": False, "epsilon": 1e-3}
    half = jnp.asarray(x, jnp.bfloat16)
    y, updates = ours(variables, half, dtype=jnp.bfloat16, **fields)
    assert y.dtype == jnp.bfloat16
    _, expected = ours(variables, np.asarray(half, np.float32), **fields)
    for name, value in expected["batch_stats"].items():
        assert updates["batch_stats"][name].dtype == jnp.float32
        np.testing.assert_allclose(updates["batch_stats"][name], value, rtol=1e-5)


@pytest.mark.parametrize("real", [6, 4, 3])  # with 4 and 3, the last group is padding alone
def test_each_group_is_normalised_as_if_it_were_the_batch(x, variables, real):
    fields = {"inference": False, "epsilon": 1e-3}
    x = np.concatenate([x, 2 * x[:1] + 1])
    mask = (np.arange(6) < real).astype(np.float32)
    y, updates = ours(variables, x, mask, stats_groups=3, **fields)
    before, entered = variables["batch_stats"], {"mean": 0.0, "var": 0.0}
    for first in range(0, real, 2):
        own = slice(first, min(first + 2, real))
        alone, moved = ours(variables, x[own], **fields)
        np.testing.assert_allclose(y[own], alone, rtol=1e-4, atol=1e-4)
        for name, value in moved["batch_stats"].items():
            entered[name] += (value - 0.9 * before[name]) / 0.1 * (own.stop - first) / real
    for name, value in entered.items():
        expected = 0.9 * before[name] + 0.1 * value
        np.testing.assert_allclose(updates["batch_stats"][name], expected, rtol=1e-4, atol=1e-5)


COLLECTIVES = """
import jax, jax.numpy as jnp
from jax.sharding import PartitionSpec
from radimagenet_jax.models.ops import platform
from radimagenet_jax.models.layers import BatchNorm
from radimagenet_jax.models.ops.normalisation import normalise
from radimagenet_jax.training import sharding

mesh = sharding.make_mesh({"data": 8}, 16)
x = jax.ShapeDtypeStruct((16, 4, 4, 6), jnp.float32, sharding=sharding.by_example(mesh))
for groups in (1, 8):
    layer = BatchNorm(inference=False, epsilon=1e-3, stats_groups=groups)
    variables = layer.init(jax.random.key(0), jnp.zeros(x.shape))
    def gradient(x):
        y = lambda x: jnp.sum(jnp.sin(layer.apply(variables, x, mutable=["batch_stats"])[0]))
        return jax.grad(y)(x)
    print(jax.jit(gradient).lower(x).compile().as_text().count(" all-reduce("))
"""


def test_devices_that_normalise_by_themselves_do_not_talk():
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "--xla_force_host_platform_device_count=8",
    }
    found = subprocess.run(
        [sys.executable, "-c", COLLECTIVES],
        env=environment,
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=True,
    )
    together, alone = map(int, found.stdout.split())
    assert together > 0
    assert alone == 0


def test_its_gradient_is_that_of_batch_normalisation(x, variables):
    def loss(fields, x):
        y, _ = ours(variables, x, epsilon=1e-3, **fields)
        return jnp.sum(jnp.sin(y))

    def by_definition(x):
        mean, var = x.mean((0, 1, 2)), x.var((0, 1, 2))
        y = (x - mean) / jnp.sqrt(var + 1e-3)
        y = y * variables["params"]["scale"] + variables["params"]["bias"]
        return jnp.sum(jnp.sin(y))

    gradient = jax.grad(lambda x: loss({"inference": False}, x))(x)
    np.testing.assert_allclose(gradient, jax.grad(by_definition)(x), rtol=1e-3, atol=1e-4)


def defined(x, shift, weights, scale, bias):
    """Normalisation as its definition differentiates."""
    x = x + shift
    counted = weights[:, None, None, None]
    pixels = weights.sum() * x.shape[1] * x.shape[2]
    mean = (x * counted).sum((0, 1, 2)) / pixels
    var = (counted * (x - mean) ** 2).sum((0, 1, 2)) / pixels
    return (x - mean) * jax.lax.rsqrt(var + 1e-3) * scale + bias, (mean, var)


@pytest.mark.parametrize("path", ["cpu", "plain"])
def test_its_gradients_are_those_of_the_definition(x, variables, path):
    weights = np.array([1, 0, 1, 1, 1], np.float32)
    shift = np.linspace(-1, 1, 6, dtype=np.float32)
    arguments = (x, shift, variables["params"]["scale"], variables["params"]["bias"])

    def gradients(function):
        def loss(x, shift, scale, bias):
            y, (mean, var) = function(x, shift, weights, scale, bias)
            return (jnp.sin(y) * weights[:, None, None, None]).sum() + (mean * var).sum()

        return jax.jit(jax.value_and_grad(loss, (0, 1, 2, 3)))(*arguments)

    with platform.force(path):
        value, found = gradients(functools.partial(normalise, epsilon=1e-3))
    expected_value, expected = gradients(defined)
    np.testing.assert_allclose(value, expected_value, rtol=1e-4)
    for ours, theirs in zip(found, expected, strict=True):
        scale = np.abs(theirs).max()
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-4 * scale)
