"""Average pools equal Keras' in value, and their gradients the definition's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from radimagenet_jax.models import pooling

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
