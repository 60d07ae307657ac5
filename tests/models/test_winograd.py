"""Winograd's convolution equals the definition's, wherever it is used."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from radimagenet_jax.models import platform, winograd
from radimagenet_jax.models.convolution import conv

SAME = ((1, 1), (1, 1))
NONE = ((0, 0), (0, 0))


def drawn(height, width, channels, features, n=2):
    rng = np.random.default_rng(7)
    x = rng.normal(0, 1, (n, height, width, channels)).astype(np.float32)
    scale = 1 / np.sqrt(9 * channels)
    kernel = rng.normal(0, scale, (3, 3, channels, features)).astype(np.float32)
    return jnp.asarray(x), jnp.asarray(kernel)


def in_double(x, kernel, pads):
    """The definition, summed in float64."""
    x = np.pad(np.asarray(x, np.float64), ((0, 0), *pads, (0, 0)))
    height, width = x.shape[1] - 2, x.shape[2] - 2
    return sum(
        x[:, i : i + height, j : j + width] @ np.asarray(kernel[i, j], np.float64)
        for i in range(3)
        for j in range(3)
    )


@pytest.mark.parametrize("pads", [SAME, NONE, ((0, 2), (1, 0)), ((2, 0), (0, 3))])
@pytest.mark.parametrize("size", [(8, 8), (7, 9), (4, 5), (3, 3)])
def test_result_is_that_of_the_definition(size, pads):
    x, kernel = drawn(*size, 24, 10)
    found = jax.jit(functools.partial(winograd.convolve, pads=pads))(x, kernel)
    expected = in_double(x, kernel, pads)
    assert found.shape == expected.shape
    # Outputs are of variance 1.
    np.testing.assert_allclose(found, expected, rtol=0, atol=5e-6)


def test_wide_layers_lose_no_more_than_rounding():
    x, kernel = drawn(14, 14, 512, 32)
    error = jnp.abs(winograd.convolve(x, kernel, SAME) - in_double(x, kernel, SAME))
    assert float(error.max()) < 2e-5


def test_a_pixel_that_is_not_finite_spoils_its_surroundings_alone():
    x, kernel = drawn(12, 12, 24, 24)
    found = winograd.convolve(x.at[0, 6, 6, 0].set(jnp.nan), kernel, SAME)
    assert not np.isfinite(found[0, 5:8, 5:8]).any()
    expected = winograd.convolve(x, kernel, SAME)
    np.testing.assert_array_equal(found[0, :4], expected[0, :4])
    np.testing.assert_array_equal(found[1], expected[1])


def test_portions_change_nothing_but_rounding(monkeypatch):
    x, kernel = drawn(13, 10, 24, 10, n=4)
    dy, _ = drawn(13, 10, 10, 1, n=4)
    whole = winograd.convolve(x, kernel, SAME), winograd.kernel_gradient(x, dy, SAME)
    monkeypatch.setattr(winograd, "_PORTION_BYTES", 0)
    monkeypatch.setattr(winograd, "_PORTION_ROWS", 1)
    assert "scan" in str(jax.make_jaxpr(functools.partial(winograd.convolve, pads=SAME))(x, kernel))
    np.testing.assert_allclose(winograd.convolve(x, kernel, SAME), whole[0], rtol=0, atol=5e-6)
    np.testing.assert_allclose(
        winograd.kernel_gradient(x, dy, SAME), whole[1], rtol=0, atol=1e-6 * x[..., 0].size
    )


@pytest.mark.parametrize("pads", [SAME, NONE, ((0, 2), (1, 0))])
@pytest.mark.parametrize("size", [(8, 8), (7, 9), (3, 3)])
def test_kernel_gradient_is_that_of_the_definition(size, pads):
    x, kernel = drawn(*size, 24, 10)
    expected, pull = jax.vjp(
        lambda kernel: jax.lax.conv_general_dilated(
            x, kernel, (1, 1), pads, dimension_numbers=("NHWC", "HWIO", "NHWC")
        ),
        kernel,
    )
    dy = jnp.sin(7 * expected)
    (expected,) = pull(dy)
    found = jax.jit(functools.partial(winograd.kernel_gradient, pads=pads))(x, dy)
    assert found.shape == expected.shape
    scale = float(jnp.abs(expected).max())
    np.testing.assert_allclose(found, expected, rtol=0, atol=5e-6 * scale)


def test_a_layer_of_many_channels_takes_it_and_a_small_one_does_not():
    def products(channels, features, size, dtype=jnp.float32, strides=(1, 1)):
        x, kernel = (a.astype(dtype) for a in drawn(size, size, channels, features))
        with platform.force("cpu"):
            traced = jax.make_jaxpr(lambda x, kernel: conv(x, kernel, strides, SAME))(x, kernel)
        return str(traced).count("dot_general")

    assert products(128, 128, 32) == 36
    assert products(16, 256, 64) == 0
    assert products(128, 128, 20) == 0
    assert products(128, 128, 32, jnp.bfloat16) == 0
    assert products(128, 128, 32, strides=(2, 2)) == 0


@pytest.mark.parametrize("argnum", [0, 1])
def test_gradients_are_those_of_the_definition(argnum):
    x, kernel = drawn(33, 32, 128, 128)

    def gradient(path):
        with platform.force(path):
            loss = jax.grad(lambda *at: jnp.sum(jnp.sin(conv(*at, (1, 1), SAME))), argnum)
            return jax.jit(loss)(x, kernel)

    expected = gradient("plain")
    scale = float(jnp.abs(expected).max())
    np.testing.assert_allclose(gradient("cpu"), expected, rtol=0, atol=1e-5 * scale)


def test_images_side_by_side_under_vmap_are_convolved_each_by_its_own_kernel():
    x, kernel = drawn(32, 32, 128, 128)
    kernels = jnp.stack([kernel, -2 * kernel])
    with platform.force("cpu"):
        found = jax.jit(jax.vmap(lambda kernel: conv(x, kernel, (1, 1), SAME)))(kernels)
    once = winograd.convolve(x, kernel, SAME)
    np.testing.assert_allclose(found, jnp.stack([once, -2 * once]), rtol=0, atol=2e-5)
