"""BatchNorm follows Keras in both modes, and its moving variance either convention."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from radimagenet_jax.models.layers import BatchNorm

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
