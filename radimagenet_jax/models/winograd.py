"""3x3 convolutions of stride 1, and their kernels' gradients, by minimal filtering F(4x4, 3x3).

Sixteen outputs take 36 products for each pair of channels where the definition takes 144 (Winograd
1980; Lavin and Gray 2015, arXiv:1509.09308). The products are matrix products between channels,
the transforms before and after them a few additions. They are interpolation at the points 0, +-1/2
sqrt 2, +-sqrt 2 and infinity, whose powers stay near 1: the result is off by twice the rounding of
the definition, where the usual points 0, +-1, +-2 are off by ten times as much.

Images go through in portions whose transforms stay in the cache, since memory is what the
transforms cost.
"""

import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from radimagenet_jax.models.pixels import Pair, interleaved
from radimagenet_jax.models.platform import behind_a_condition
from radimagenet_jax.models.products import summed_products

Matrix = tuple[tuple[float, ...], ...]
Grid = list[list[jax.Array]]

_OUTPUTS, _TAPS = 4, 3  # of a tile, in each direction
_INPUTS = _OUTPUTS + _TAPS - 1
_POINTS = (0.0, 0.5**0.5, -(0.5**0.5), 2**0.5, -(2**0.5))

# Measured on 2 cores. The products that it saves grow with both numbers of channels, the memory
# traffic of its transforms with their sum: below C D / (C + D) it is slower.
_LEAST_CHANNELS = 20
# Below so many pairs of channels over all output positions, starting its many operations costs
# more than it saves; with fewer positions, transforming the kernel does.
_LEAST_PAIRS = 2**25
_LEAST_POSITIONS = 256
# What a portion's transforms may take, more than one image if that is less, and the rows that a
# matrix product should have.
_PORTION_BYTES = 10 * 2**20
_PORTION_ROWS = 192


def suits(
    positions: int, kernel_shape: Sequence[int], strides: Pair, dtype: jax.typing.DTypeLike
) -> bool:
    """Tells whether this is possible and faster than the definition, by the shapes alone.

    Args:
      positions: Number of output positions, N H' W'.
      kernel_shape: (height, width, C, D).
      strides: (height, width).
      dtype: Of images and kernel.
    """
    channels, features = kernel_shape[2:]
    return (
        tuple(kernel_shape[:2]) == (_TAPS, _TAPS)
        and strides == (1, 1)
        and dtype == jnp.float32
        and channels * features >= _LEAST_CHANNELS * (channels + features)
        and positions * channels * features >= _LEAST_PAIRS
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
    rows, columns = -(-height // _OUTPUTS), -(-width // _OUTPUTS)
    to_inputs, to_kernels, to_outputs = _matrices()
    each = [[kernel[i, j] for j in range(_TAPS)] for i in range(_TAPS)]
    kernels = _both_ways(to_kernels, each, lambda part: part)
    kernels = [[behind_a_condition(part) for part in row] for row in kernels]

    def of_portion(x: jax.Array) -> jax.Array:
        inputs = _tiles(to_inputs, x, pads, (rows, columns))
        products = [
            [a @ b for a, b in zip(*each, strict=True)]
            for each in zip(inputs, kernels, strict=True)
        ]
        tiles = _both_ways(to_outputs, products, behind_a_condition)
        shape = (len(x), rows, columns, features)
        whole = interleaved([[part.reshape(shape) for part in row] for row in tiles])
        return whole[:, :height, :width]

    portion = _portion(n, rows * columns, channels + features)
    if portion == n:
        return of_portion(x)
    y = jax.lax.map(of_portion, x.reshape(-1, portion, *x.shape[1:]))
    return y.reshape(n, height, width, features)


def kernel_gradient(x: jax.Array, dy: jax.Array, pads: tuple[Pair, Pair]) -> jax.Array:
    """The gradient of `convolve` to its kernel.

    Args:
      x: (N, H, W, C) float32.
      dy: (N, H', W', D) float32.
      pads: Of the convolution.

    Returns:
      (3, 3, C, D) float32.
    """
    n, channels, features = x.shape[0], x.shape[3], dy.shape[3]
    tiles = -(-dy.shape[1] // _OUTPUTS), -(-dy.shape[2] // _OUTPUTS)
    to_inputs, to_kernels, to_outputs = _matrices()

    def of_portion(x: jax.Array, dy: jax.Array) -> Grid:
        inputs = _tiles(to_inputs, x, pads, tiles)
        gradients = _tiles(_turned(to_outputs), dy, ((0, 0), (0, 0)), tiles)
        return [
            [summed_products(a, b) for a, b in zip(*each, strict=True)]
            for each in zip(inputs, gradients, strict=True)
        ]

    portion = _portion(n, tiles[0] * tiles[1], channels + features)
    if portion == n:
        summed = of_portion(x, dy)
    else:
        zeros = [[jnp.zeros((channels, features))] * _INPUTS] * _INPUTS
        summed, _ = jax.lax.scan(
            lambda so_far, each: (jax.tree.map(jnp.add, so_far, of_portion(*each)), None),
            zeros,
            tuple(images.reshape(-1, portion, *images.shape[1:]) for images in (x, dy)),
        )
    found = _both_ways(_turned(to_kernels), summed, lambda part: part)
    return jnp.stack([jnp.stack(row) for row in found])


@functools.cache
def _matrices() -> tuple[Matrix, Matrix, Matrix]:
    """B^T, G and A^T of the paper, by Toom and Cook's interpolation: rows are what is made."""

    def powers(count: int) -> np.ndarray:
        at_infinity = [0.0] * (count - 1) + [1.0]
        return np.vstack([np.vander(_POINTS, count, increasing=True), at_infinity])

    interpolation = np.linalg.inv(powers(_INPUTS)).T
    # What one of the two transforms is divided by the other is multiplied with.
    scale = np.abs(interpolation).max(1, keepdims=True)
    to_inputs, to_kernels, to_outputs = (
        # Zeros come out of the inverse as rounding errors.
        tuple(tuple(float(v) for v in row) for row in np.where(np.abs(part) < 1e-12, 0, part))
        for part in (interpolation / scale, powers(_TAPS) * scale, powers(_OUTPUTS).T)
    )
    return to_inputs, to_kernels, to_outputs


def _turned(matrix: Matrix) -> Matrix:
    return tuple(zip(*matrix, strict=True))


def _portion(images: int, tiles: int, channels: int) -> int:
    """The number of images that go through together: a divisor of all of them.

    Args:
      images: All of them.
      tiles: Of an image.
      channels: Of what comes in and goes out, together.
    """
    in_cache = _PORTION_BYTES // (tiles * channels * _INPUTS**2 * 4)
    wanted = max(2, in_cache, -(-_PORTION_ROWS // tiles))
    return next((n for n in range(wanted, images) if images % n == 0), images)


def _tiles(matrix: Matrix, x: jax.Array, pads: tuple[Pair, Pair], tiles: Pair) -> Grid:
    """Transforms each tile of images, which lie four pixels apart.

    Args:
      matrix: (6, K), applied along both sides of tiles of K x K pixels.
      x: (n, H, W, C).
      pads: Of the images; beyond them are more zeros.
      tiles: Rows and columns of tiles.

    Returns:
      6 x 6 arrays (n * rows * columns, C), the tiles' entries.
    """
    size = len(matrix[0])
    (top, _), (left, _) = pads
    spans = [(count - 1) * _OUTPUTS + size for count in tiles]
    below, beside = spans[0] - top - x.shape[1], spans[1] - left - x.shape[2]
    edges = [(0, 0, 0), (top, below, 0), (left, beside, 0), (0, 0, 0)]
    x = jax.lax.pad(x, jnp.zeros((), x.dtype), edges)
    last = [(count - 1) * _OUTPUTS + 1 for count in tiles]
    lines = [x[:, k : k + last[0] : _OUTPUTS] for k in range(size)]
    # Kept, so that the second direction does not compute the first again in each of its sums.
    halves = [behind_a_condition(_combined(row, lines)) for row in matrix]
    return [
        [
            _combined(row, [half[:, :, k : k + last[1] : _OUTPUTS] for k in range(size)]).reshape(
                -1, x.shape[-1]
            )
            for row in matrix
        ]
        for half in halves
    ]


def _both_ways(matrix: Matrix, grid: Grid, between: Callable[[jax.Array], jax.Array]) -> Grid:
    """Makes M grid M^T of a grid of arrays; `between` is applied to the entries of M grid."""
    half = [
        [between(_combined(row, column)) for column in zip(*grid, strict=True)] for row in matrix
    ]
    return [[_combined(row, line) for row in matrix] for line in half]


def _combined(factors: Sequence[float], arrays: Sequence[jax.Array]) -> jax.Array:
    terms = [a if f == 1 else f * a for f, a in zip(factors, arrays, strict=True) if f]
    total = terms[0]
    for term in terms[1:]:
        total = total + term
    return total
