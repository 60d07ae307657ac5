"""All paths of the convolution, forwards and backwards, equal XLA's own."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from radimagenet_jax.models.ops import platform
from radimagenet_jax.models.ops.convolution import conv

# (height, width), kernel, channels in and out, strides, padding.
GEOMETRIES = [
    ((7, 9), (1, 1), (5, 8), (1, 1), "VALID"),
    ((7, 9), (1, 1), (8, 5), (2, 2), "VALID"),
    ((8, 6), (1, 1), (4, 4), (2, 2), ((1, 0), (0, 1))),
    ((8, 8), (3, 3), (4, 6), (1, 1), "SAME"),
    ((9, 8), (3, 3), (4, 6), (2, 2), "VALID"),
    ((8, 9), (3, 3), (40, 3), (2, 2), "SAME"),
    ((9, 11), (1, 7), (3, 4), (1, 1), "SAME"),
    ((11, 9), (7, 1), (50, 4), (1, 1), "SAME"),
    ((13, 15), (7, 7), (3, 4), (2, 2), ((3, 3), (3, 3))),
    ((10, 11), (2, 3), (3, 4), (3, 2), ((0, 2), (1, 0))),
    ((7, 8), (2, 2), (3, 4), (3, 3), "VALID"),
    # Fewer channels out than in.
    ((9, 8), (3, 3), (16, 4), (1, 1), "SAME"),
    ((9, 8), (3, 2), (16, 4), (1, 1), ((0, 2), (1, 0))),
    ((6, 7), (3, 3), (8, 4), (1, 1), ((3, 0), (0, 1))),
    # Fewer pixels than channels.
    ((3, 2), (3, 3), (4, 20), (1, 1), "SAME"),
    ((4, 3), (3, 2), (4, 20), (1, 1), ((0, 1), (1, 0))),
    # Images smaller than the kernel.
    ((2, 2), (3, 3), (4, 6), (1, 1), "SAME"),
    ((2, 4), (3, 3), (4, 6), (2, 2), ((1, 1), (1, 1))),
    ((1, 1), (5, 5), (3, 4), (1, 1), "SAME"),
]


def by_definition(x, kernel, strides, padding):
    return jax.lax.conv_general_dilated(
        x, kernel, strides, padding, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def drawn(size, window, channels):
    rng = np.random.default_rng(3)
    x = rng.normal(0, 1, (2, *size, channels[0])).astype(np.float32)
    kernel = rng.normal(0, 1, (*window, *channels)).astype(np.float32)
    return x, kernel


def value_and_gradients(convolve, argnums):
    def loss(x, kernel):
        y = convolve(x, kernel)
        return jnp.sum(jnp.sin(y)), y

    return jax.jit(jax.value_and_grad(loss, argnums, has_aux=True))


@pytest.mark.parametrize("path", ["cpu", "gpu", "plain"])
@pytest.mark.parametrize(("size", "window", "channels", "strides", "padding"), GEOMETRIES)
def test_value_and_gradients_are_those_of_xla(size, window, channels, strides, padding, path):
    x, kernel = drawn(size, window, channels)
    settings = {"strides": strides, "padding": padding}
    expected = value_and_gradients(functools.partial(by_definition, **settings), (0, 1))(x, kernel)
    with platform.force(path):
        found = value_and_gradients(functools.partial(conv, **settings), (0, 1))(x, kernel)
    for ours, theirs in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert ours.shape == theirs.shape
        scale = float(jnp.abs(theirs).max())
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=2e-6 * max(scale, 1))


@pytest.mark.parametrize("path", ["cpu", "gpu", "plain"])
@pytest.mark.parametrize("argnum", [0, 1])
def test_a_gradient_of_one_argument_alone_is_the_same(argnum, path):
    x, kernel = drawn((9, 8), (3, 3), (4, 6))
    settings = {"strides": (2, 2), "padding": "SAME"}
    with platform.force(path):
        convolve = functools.partial(conv, **settings)
        _, both = value_and_gradients(convolve, (0, 1))(x, kernel)
        _, alone = value_and_gradients(convolve, argnum)(x, kernel)
    np.testing.assert_allclose(alone, both[argnum], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("path", ["cpu", "gpu", "plain"])
def test_a_result_that_counts_nowhere_has_a_gradient_of_zero(path):
    x, kernel = drawn((5, 5), (3, 3), (2, 2))
    with platform.force(path):
        gradients = jax.grad(
            lambda x, kernel: jax.lax.stop_gradient(conv(x, kernel, (1, 1), "SAME")).sum(), (0, 1)
        )(x, kernel)
    assert not any(np.asarray(gradient).any() for gradient in gradients)


@pytest.mark.parametrize("path", ["cpu", "gpu", "plain"])
def test_bfloat16_stays_bfloat16(path):
    x, kernel = (jnp.asarray(value, jnp.bfloat16) for value in drawn((6, 6), (3, 3), (4, 4)))
    with platform.force(path):
        (_, y), gradients = value_and_gradients(
            functools.partial(conv, strides=(1, 1), padding="SAME"), (0, 1)
        )(x, kernel)
    assert {value.dtype for value in (y, *gradients)} == {jnp.dtype(jnp.bfloat16)}


@pytest.mark.parametrize(("chip", "strided"), [("cuda", 0), ("tpu", 3)])
def test_on_a_gpu_a_strided_1x1_kernel_and_its_gradients_meet_only_the_pixels_they_read(
    chip, strided
):
    x, kernel = drawn((8, 8), (1, 1), (4, 6))
    step = value_and_gradients(functools.partial(conv, strides=(2, 2), padding="VALID"), (0, 1))
    lowered = step.trace(x, kernel).lower(lowering_platforms=(chip,)).as_text()
    convolutions = [line for line in lowered.splitlines() if "stablehlo.convolution" in line]
    assert len(convolutions) == 3
    # The strides of the first, and what they become in the gradients.
    apart = ("stride = [2, 2]", "lhs_dilate = [2, 2]", "rhs_dilate = [2, 2]")
    assert sum(any(word in line for word in apart) for line in convolutions) == strided


def test_what_is_materialized_is_the_same_whatever_it_holds():
    for x in (np.array([[np.nan, np.inf], [-0.0, 1]], np.float32), np.full((2, 3), -1, np.int32)):
        with platform.force("cpu"):
            np.testing.assert_array_equal(jax.jit(lambda x: platform.materialized(x))(x), x)
            batched = jax.jit(jax.vmap(lambda x: platform.materialized(x)))(x)
        np.testing.assert_array_equal(batched, x)


def test_what_is_materialized_is_computed_once():
    def sines(path):
        def read_twice(x):
            y = platform.materialized(jnp.sin(x))
            return y[1:] * y[:-1] + y[2:].sum()

        with platform.force(path):
            return (
                jax.jit(read_twice).lower(jnp.ones((1000, 100))).compile().as_text().count("sine(")
            )

    assert sines("cpu") == 1 < sines("plain")
