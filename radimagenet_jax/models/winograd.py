"""3x3 convolutions of stride 1 by Winograd's minimal filtering F(2x2, 3x3).

Four outputs take 16 products for each pair of channels where the definition takes 36 (Lavin and
Gray 2015, arXiv:1509.09308, section 4.1). The products are matrix products, the transforms before
and after them a few additions, which are exact enough: the result differs from the definition's
by float32's rounding alone.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from radimagenet_jax.models.pixels import Pair, interleaved, shifted

# B^T, G and A^T of the paper: rows are what is made, columns what it is made of.
_INPUT = ((1, 0, -1, 0), (0, 1, 1, 0), (0, -1, 1, 0), (0, 1, 0, -1))
_KERNEL = ((1, 0, 0), (0.5, 0.5, 0.5), (0.5, -0.5, 0.5), (0, 0, 1))
_OUTPUT = ((1, 1, 1, 0), (0, 1, -1, -1))

# The products that it saves grow with both numbers of channels, the memory traffic of its
# transforms with their sum: below C D / (C + D) it is slower.
_LEAST_CHANNELS = 64
# Fewer output positions do not make up for transforming the kernel.
_LEAST_POSITIONS = 256

Grid = list[list[jax.Array]]


def suits(x: jax.Array, kernel: jax.Array, strides: Pair, pads: tuple[Pair, Pair]) -> bool:
    """Tells whether `convolve` is possible and faster than the definition, by the shapes alone.

    Args:
      x: (N, H, W, C).
      kernel: (height, width, C, D).
      strides: (height, width).
      pads: ((top, bottom), (left, right)).
    """
    (top, bottom), (left, right) = pads
    positions = x.shape[0] * (x.shape[1] + top + bottom - 2) * (x.shape[2] + left + right - 2)
    channels, features = kernel.shape[2:]
    return (
        kernel.shape[:2] == (3, 3)
        and strides == (1, 1)
        and x.dtype == jnp.float32
        and channels * features >= _LEAST_CHANNELS * (channels + features)
        and positions >= _LEAST_POSITIONS
    )


def convolve(x: jax.Array, kernel: jax.Array, pads: tuple[Pair, Pair]) -> jax.Array:
    """Convolves.

    Args:
      x: (N, H, W, C) float32.
      kernel: (3, 3, C, D) float32.
      pads: ((top, bottom), (left, right)), none of them negative.

    Returns:
      (N, H', W', D) float32.
    """
    (top, bottom), (left, right) = pads
    n, channels, features = x.shape[0], *kernel.shape[2:]
    height, width = x.shape[1] + top + bottom - 2, x.shape[2] + left + right - 2
    # Tiles of 2 x 2 outputs; an odd last row or column is computed and dropped.
    rows, columns = -(-height // 2), -(-width // 2)
    padded = jnp.pad(x, ((0, 0), (top, bottom + height % 2), (left, right + width % 2), (0, 0)))
    pixels = [
        shifted(padded, [(i, j) for j in range(4)], (rows, columns), (2, 2)) for i in range(4)
    ]
    inputs = _transform(_INPUT, pixels)
    kernels = _transform(_KERNEL, [[kernel[i, j] for j in range(3)] for i in range(3)])
    products = [
        [inputs[i][j].reshape(-1, channels) @ kernels[i][j] for j in range(4)] for i in range(4)
    ]
    tiles = [
        [part.reshape(n, rows, columns, features) for part in row]
        for row in _transform(_OUTPUT, products)
    ]
    return interleaved(tiles)[:, :height, :width]


def _transform(matrix: Sequence[Sequence[float]], grid: Grid) -> Grid:
    """Makes M grid M^T, of a grid whose entries are arrays."""
    half = [[_combined(row, column) for column in zip(*grid, strict=True)] for row in matrix]
    return [[_combined(row, line) for row in matrix] for line in half]


def _combined(factors: Sequence[float], arrays: Sequence[jax.Array]) -> jax.Array:
    terms = [a if f == 1 else f * a for f, a in zip(factors, arrays, strict=True) if f]
    total = terms[0]
    for term in terms[1:]:
        total = total + term
    return total
