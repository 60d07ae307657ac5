"""Pools with Keras' numerics.

The averages are written as sums of slices: XLA turns these into one fused loop on every backend,
while its windowed reduction has no fast kernel on CPU, and its gradient none anywhere. The maximum
is XLA's own, but on CPU, and its gradient on TPU: on GPU, XLA's adds in no fixed order.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from radimagenet_jax.models.ops import platform
from radimagenet_jax.models.ops.convolution import Padding
from radimagenet_jax.models.ops.pixels import Pair, interleaved, shifted


def max_pool(x: jax.Array, window: int, stride: int, padding: Padding = "VALID") -> jax.Array:
    """Maximum over square windows; has a first derivative only.

    Args:
      x: (N, H, W, C).
      window: Side in pixels.
      stride: In both directions.
      padding: 'SAME', 'VALID', or ((top, bottom), (left, right)); padded pixels never win.

    Returns:
      (N, H', W', C) of the same dtype. Of equal maxima the first in reading order has the gradient.
    """
    if isinstance(padding, str):
        sides = ((window, window), (stride, stride))
        padding = jax.lax.padtype_to_pads(x.shape[1:3], *sides, padding)
    (top, bottom), (left, right) = padding
    return _traced(x, window=window, stride=stride, pads=((top, bottom), (left, right)))


@platform.traced_once
def _traced(x: jax.Array, *, window: int, stride: int, pads: tuple[Pair, Pair]) -> jax.Array:
    return _max_pool(x, window, stride, pads)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3))
def _max_pool(x: jax.Array, window: int, stride: int, pads: tuple[Pair, Pair]) -> jax.Array:
    def plain(x: jax.Array) -> jax.Array:
        # `nn.max_pool` does this and nothing else; exporting replaces that one by its own.
        sides, strides = (1, window, window, 1), (1, stride, stride, 1)
        around = ((0, 0), *pads, (0, 0))
        return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, sides, strides, around)

    def sliced(x: jax.Array) -> jax.Array:
        size = jax.eval_shape(plain, x).shape[1:3]
        return functools.reduce(jnp.maximum, _seen(x, size, window, stride, pads))

    return platform.choose(x, cpu=sliced, plain=plain)


def _forward(
    x: jax.Array, window: int, stride: int, pads: tuple[Pair, Pair]
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    y = _max_pool(x, window, stride, pads)
    return y, (x, y)


def _backward(
    window: int,
    stride: int,
    pads: tuple[Pair, Pair],
    residuals: tuple[jax.Array, jax.Array],
    dy: jax.Array,
) -> tuple[jax.Array]:
    def plain(x: jax.Array, y: jax.Array, dy: jax.Array) -> jax.Array:
        pool = functools.partial(nn.max_pool, window_shape=(window, window), padding=pads)
        return jax.vjp(functools.partial(pool, strides=(stride, stride)), x)[1](dy)[0]

    scattered = functools.partial(_scattered, window=window, stride=stride, pads=pads)
    return (platform.choose(*residuals, dy, cpu=scattered, plain=plain, gpu=scattered),)


_max_pool.defvjp(_forward, _backward)


def _places(window: int) -> list[Pair]:
    return [(i, j) for i in range(window) for j in range(window)]


def _seen(
    x: jax.Array, size: Pair, window: int, stride: int, pads: tuple[Pair, Pair]
) -> list[jax.Array]:
    """What all windows see at each of their places in reading order, (N, H', W', C) each."""
    padded = jnp.pad(x, ((0, 0), *pads, (0, 0)), constant_values=-jnp.inf)
    return shifted(padded, _places(window), size, (stride, stride))


def _scattered(
    x: jax.Array,
    y: jax.Array,
    dy: jax.Array,
    window: int,
    stride: int,
    pads: tuple[Pair, Pair],
) -> jax.Array:
    """Puts dy where the maxima came from, by sums of slices.

    XLA on CPU would search each window for its maximum again, and the whole windows' results for
    each pixel; on GPU it adds with atomic operations.
    """
    rows, columns = y.shape[1:3]
    seen = _seen(x, (rows, columns), window, stride, pads)
    places = _places(window)
    winner = jnp.full(y.shape, len(places), jnp.uint8)
    for number in reversed(range(len(places))):
        winner = jnp.where(seen[number] == y, jnp.uint8(number), winner)
    winner = platform.materialized(winner)
    # Pixel q * stride + p of the padded image belongs to phase p and meets window q - i // stride.
    reach = (window - 1) // stride
    tall, wide = (
        max(-(-(side + sum(ends)) // stride), count + reach)
        for side, ends, count in zip(x.shape[1:3], pads, (rows, columns), strict=True)
    )

    def phase(p: int, q: int) -> jax.Array:
        total = jnp.zeros((dy.shape[0], tall, wide, dy.shape[3]), dy.dtype)
        for number, (i, j) in enumerate(places):
            if (i % stride, j % stride) == (p, q):
                part = jnp.where(winner == number, dy, 0)
                down, right = i // stride, j // stride
                ends = ((down, tall - rows - down), (right, wide - columns - right))
                total += jnp.pad(part, ((0, 0), *ends, (0, 0)))
        return total

    grid = [[phase(p, q) for q in range(stride)] for p in range(stride)]
    (top, _), (left, _) = pads
    return interleaved(grid)[:, top : top + x.shape[1], left : left + x.shape[2]]


@platform.traced_once
def halve(x: jax.Array) -> jax.Array:
    """Mean over disjoint 2x2 windows; an odd last row or column is dropped, as 'VALID' does.

    Args:
      x: (N, H, W, C).

    Returns:
      (N, H // 2, W // 2, C) of the same dtype.
    """
    height, width = x.shape[1] // 2 * 2, x.shape[2] // 2 * 2
    x = x[:, :height, :width]
    rows = x[:, 0::2] + x[:, 1::2]
    return (rows[:, :, 0::2] + rows[:, :, 1::2]) / 4


@platform.traced_once
def smooth(x: jax.Array, *, count_padding: bool = False) -> jax.Array:
    """Mean over 3x3 windows of stride 1 under 'SAME' padding, which counts nowhere by default.

    At an edge the divisor is then the number of pixels inside the image: 4 in a corner, 6 along
    a side. This is how TensorFlow, and so Keras, averages; PyTorch divides by 9 everywhere.

    Args:
      x: (N, H, W, C).
      count_padding: Whether to divide by 9 everywhere, as PyTorch does.

    Returns:
      (N, H, W, C) of the same dtype.
    """
    height, width = x.shape[1:3]
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    rows = padded[:, :-2] + padded[:, 1:-1] + padded[:, 2:]
    total = rows[:, :, :-2] + rows[:, :, 1:-1] + rows[:, :, 2:]
    if count_padding:
        return total / 9
    inverse = 1 / (_inside(height)[:, None, None] * _inside(width)[:, None])
    return total * jnp.asarray(inverse, x.dtype)


def _inside(side: int) -> np.ndarray:
    """How many of the three pixels around each position lie inside a side of that length."""
    position = np.arange(side)
    return np.minimum(position + 1, side - 1) - np.maximum(position - 1, 0) + 1.0
