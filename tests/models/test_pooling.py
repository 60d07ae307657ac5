"""Pools equal Keras' in value, and their gradients the definition's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from radimagenet_jax.models.ops import platform, pooling

sizes = pytest.mark.parametrize("size", [(1, 1), (2, 3), (8, 8), (9, 7)])


def images(size):
    return np.random.default_rng(1).normal(1, 1, (2, *size, 5)).astype(np.float32)


@sizes
def test_smooth_is_keras_same_average_without_the_padding(size):
    import keras

    x = images(size)
    layer = keras.layers.AveragePooling2D(3, strides=1, padding="same")
    np.testing.assert_allclose(pooling.smooth(jnp.asarray(x)), layer(x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("size", [(2, 3), (8, 8), (9, 7)])
def test_halve_is_keras_valid_average(size):
    import keras

    x = images(size)
    layer = keras.layers.AveragePooling2D(2, strides=2)
    np.testing.assert_allclose(pooling.halve(jnp.asarray(x)), layer(x), rtol=1e-5, atol=1e-6)


@sizes
def test_smooth_has_the_gradient_of_a_windowed_average(size):
    x = images(size)

    def by_definition(x):
        return nn.avg_pool(x, (3, 3), (1, 1), "SAME", count_include_pad=False)

    ours = jax.grad(lambda x: jnp.sum(jnp.sin(pooling.smooth(x))))(x)
    theirs = jax.grad(lambda x: jnp.sum(jnp.sin(by_definition(x))))(x)
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("pool", [pooling.smooth, pooling.halve])
def test_the_dtype_is_kept(pool):
    assert pool(jnp.ones((1, 4, 4, 2), jnp.bfloat16)).dtype == jnp.bfloat16
    np.testing.assert_array_equal(pool(jnp.ones((1, 5, 5, 1))), 1)


@pytest.mark.parametrize("path", ["cpu", "gpu", "plain"])
@pytest.mark.parametrize(
    ("window", "stride", "padding"),
    [(3, 2, "VALID"), (3, 2, "SAME"), (3, 2, ((1, 1), (1, 1))), (3, 1, "SAME"), (2, 2, "VALID")],
)
@pytest.mark.parametrize("size", [(8, 8), (9, 7), (3, 4)])
def test_the_maximum_and_its_gradient_are_xlas_also_among_equals(
    size, window, stride, padding, path
):
    # Whole numbers, so that a window has its maximum several times, as after a ReLU.
    x = np.random.default_rng(1).integers(-2, 3, (2, *size, 5)).astype(np.float32)

    def by_definition(x):
        return nn.max_pool(x, (window, window), (stride, stride), padding)

    with platform.force(path):
        found, gradient = jax.vjp(
            lambda x: pooling.max_pool(x, window, stride, padding), jnp.asarray(x)
        )
        dy = np.random.default_rng(2).normal(0, 1, found.shape).astype(np.float32)
        (dx,) = gradient(dy)
    expected, expected_gradient = jax.vjp(by_definition, jnp.asarray(x))
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_allclose(dx, expected_gradient(dy)[0], rtol=1e-6, atol=1e-6)
