"""A two-dimensional convolution whose gradients are fast on CPU too.

XLA on CPU has one good convolution: forward, undilated, of few output positions' worth of kernel;
where channels and pixels are many, minimal filtering needs fewer products still. The gradients
that XLA's transposition rules make are not of that kind: the kernel's gradient is a convolution
with a window as large as the image, and the input's gradient of a strided convolution is one over a
dilated image. Here they are written as what XLA on CPU is fast at: matrix products and undilated
forward convolutions.
"""

import dataclasses
import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from radimagenet_jax.models import platform, winograd
from radimagenet_jax.models.pixels import Pair, interleaved, shifted
from radimagenet_jax.models.products import summed_products

Padding = str | Sequence[Pair]

_LAYOUT = ("NHWC", "HWIO", "NHWC")


def conv(x: jax.Array, kernel: jax.Array, strides: Pair, padding: Padding) -> jax.Array:
    """Convolves as `jax.lax.conv_general_dilated` does; has a first derivative only.

    Args:
      x: (N, H, W, C) floats.
      kernel: (height, width, C, D) of the same dtype.
      strides: (height, width).
      padding: 'SAME', 'VALID', or ((top, bottom), (left, right)), none of them negative.

    Returns:
      (N, H', W', D) of the same dtype.
    """
    if isinstance(padding, str):
        padding = jax.lax.padtype_to_pads(x.shape[1:3], kernel.shape[:2], strides, padding)
    (top, bottom), (left, right) = padding
    return _conv(x, kernel, (strides[0], strides[1]), ((top, bottom), (left, right)))


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _conv(x: jax.Array, kernel: jax.Array, strides: Pair, pads: tuple[Pair, Pair]) -> jax.Array:
    plain = functools.partial(_plain, strides=strides, pads=pads)
    if kernel.shape[:2] == (1, 1) and pads == ((0, 0), (0, 0)):
        fast = functools.partial(_product, strides=strides)
    elif winograd.suits(
        jax.eval_shape(plain, x, kernel).size // kernel.shape[3], kernel.shape, strides, x.dtype
    ):
        fast = functools.partial(winograd.convolve, pads=pads)
    else:
        return plain(x, kernel)
    return platform.choose(x, kernel, cpu=fast, plain=plain)


def _forward(
    x: jax.Array, kernel: jax.Array, strides: Pair, pads: tuple[Pair, Pair]
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return _conv(x, kernel, strides, pads), (x, kernel)


def _backward(
    strides: Pair,
    pads: tuple[Pair, Pair],
    residuals: tuple[jax.Array, jax.Array],
    dy: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    x, kernel = residuals
    if kernel.shape[:2] != (1, 1):
        # It is used once for each place of the kernel, and again for the input's gradient.
        dy = platform.materialized(dy)

    # Each is chosen by itself, so that the compiler drops what a frozen layer does not need.
    def plain_dx(kernel: jax.Array, dy: jax.Array) -> jax.Array:
        of_x = functools.partial(_plain, kernel=kernel, strides=strides, pads=pads)
        return jax.linear_transpose(of_x, x)(dy)[0]

    def plain_dkernel(x: jax.Array, dy: jax.Array) -> jax.Array:
        of_kernel = functools.partial(_plain, x, strides=strides, pads=pads)
        return jax.linear_transpose(of_kernel, kernel)(dy)[0]

    dx = platform.choose(
        kernel,
        dy,
        cpu=functools.partial(_input_gradient, shape=x.shape, strides=strides, pads=pads),
        plain=plain_dx,
    )
    dkernel = platform.choose(
        x,
        dy,
        cpu=functools.partial(_kernel_gradient, shape=kernel.shape, strides=strides, pads=pads),
        plain=plain_dkernel,
    )
    return dx, dkernel


_conv.defvjp(_forward, _backward)


def _plain(x: jax.Array, kernel: jax.Array, strides: Pair, pads: tuple[Pair, Pair]) -> jax.Array:
    return jax.lax.conv_general_dilated(x, kernel, strides, pads, dimension_numbers=_LAYOUT)


def _product(x: jax.Array, kernel: jax.Array, strides: Pair) -> jax.Array:
    """An unpadded 1x1 convolution."""
    x = x[:, :: strides[0], :: strides[1]]
    return (_rows(x) @ kernel[0, 0]).reshape(*x.shape[:3], kernel.shape[-1])


def _rows(x: jax.Array) -> jax.Array:
    """Makes (N * H * W, C) of (N, H, W, C)."""
    return x.reshape(-1, x.shape[-1])


def _kernel_gradient(
    x: jax.Array,
    dy: jax.Array,
    shape: tuple[int, ...],
    strides: Pair,
    pads: tuple[Pair, Pair],
) -> jax.Array:
    """Sums x at each place of the kernel, times dy, over all output positions."""
    height, width, channels, features = shape
    if winograd.suits(dy.size // features, shape, strides, x.dtype):
        return winograd.kernel_gradient(x, dy, pads)
    places = [(i, j) for i in range(height) for j in range(width)]
    (top, bottom), (left, right) = pads
    back = (height - 1 - top, height - 1 - bottom), (width - 1 - left, width - 1 - right)
    can_turn = strides == (1, 1) and min(*back[0], *back[1]) >= 0
    if can_turn and features < channels and features * len(places) <= _FEW_CHANNELS:
        # The thinner of the two is copied: what x at a place meets is dy at the place turned round.
        turned = [(height - 1 - i, width - 1 - j) for i, j in places]
        patches = jnp.concatenate(shifted(_padded(dy, back), turned, x.shape[1:3], strides), -1)
        product = summed_products(_rows(x), _rows(patches))
        return product.reshape(channels, height, width, features).transpose(1, 2, 0, 3)
    parts = shifted(_padded(x, pads), places, dy.shape[1:3], strides)
    if channels * len(places) <= _FEW_CHANNELS:
        parts = [jnp.concatenate(parts, -1)]
    products = [summed_products(_rows(part), _rows(dy)) for part in parts]
    return jnp.stack(products).reshape(shape)


# Up to so many rows, one matrix product over patches beats one for each place of the kernel.
_FEW_CHANNELS = 288


def _padded(x: jax.Array, pads: tuple[Pair, Pair]) -> jax.Array:
    return jnp.pad(x, ((0, 0), *pads, (0, 0)))


def _input_gradient(
    kernel: jax.Array,
    dy: jax.Array,
    shape: tuple[int, ...],
    strides: Pair,
    pads: tuple[Pair, Pair],
) -> jax.Array:
    """Convolves dy with the turned kernel, for each phase of the strides by itself."""
    _, height, width, _ = shape
    phases_h, phases_w = (
        [
            _phase(p, strides[axis], shape[1 + axis], dy.shape[1 + axis], kernel.shape[axis], pad)
            for p in range(strides[axis])
        ]
        for axis, (pad, _) in enumerate(pads)
    )
    grid = [
        [_phase_gradient(kernel, dy, vertical, horizontal) for horizontal in phases_w]
        for vertical in phases_h
    ]
    if strides == (1, 1):
        return grid[0][0]
    return interleaved(grid)[:, :height, :width]


@dataclasses.dataclass(frozen=True)
class _Phase:
    """One axis of the convolution that gives every stride-th pixel's gradient.

    Attributes:
      taps: The kernel's places that take part.
      pad: (low, high) padding of dy, negative to crop.
      size: Number of pixels of this phase, up to one more than the image has.
    """

    taps: slice
    pad: Pair
    size: int


def _phase(phase: int, stride: int, size: int, out_size: int, taps: int, pad: int) -> _Phase:
    """Works out the phase of the pixels q * stride + phase, q = 0, 1...

    Kernel place i of output o meets pixel o * stride + i - pad. With first, ahead =
    (phase + pad) mod and div stride, the places are i = first + t * stride and the outputs
    o = q + ahead - t.
    """
    ahead, first = divmod(phase + pad, stride)
    places = len(range(first, taps, stride))
    count = -(-size // stride)
    return _Phase(
        taps=slice(first, taps, stride),
        pad=(places - 1 - ahead, count - out_size + ahead),
        size=count,
    )


def _phase_gradient(
    kernel: jax.Array, dy: jax.Array, vertical: _Phase, horizontal: _Phase
) -> jax.Array:
    places = jnp.flip(kernel[vertical.taps, horizontal.taps], (0, 1)).swapaxes(2, 3)
    if not places.size:
        shape = (dy.shape[0], vertical.size, horizontal.size, places.shape[3])
        return jnp.zeros(shape, dy.dtype)
    (top, bottom), (left, right) = pads = vertical.pad, horizontal.pad
    dy = jax.lax.pad(
        dy,
        jnp.zeros((), dy.dtype),
        [(0, 0, 0), (min(top, 0), min(bottom, 0), 0), (min(left, 0), min(right, 0), 0), (0, 0, 0)],
    )
    if places.shape[:2] == (1, 1) and max(top, bottom, left, right) <= 0:
        return _product(dy, places, (1, 1))
    vertical_pad, horizontal_pad = ((max(low, 0), max(high, 0)) for low, high in pads)
    remaining = (vertical_pad, horizontal_pad)
    positions = dy.shape[0] * vertical.size * horizontal.size
    if winograd.suits(positions, places.shape, (1, 1), dy.dtype):
        return winograd.convolve(dy, places, remaining)
    return _plain(dy, places, (1, 1), remaining)
