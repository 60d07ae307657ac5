"""Taking every stride-th pixel of images, and putting such parts together again."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

Pair = tuple[int, int]


def shifted(
    x: jax.Array, starts: Sequence[Pair], size: Sequence[int], strides: Pair
) -> list[jax.Array]:
    """Parts of x (N, H, W, C), each of so many rows and columns, from different pixels on.

    Args:
      x: The images.
      starts: (row, column) of each part's first pixel.
      size: (rows, columns) of a part.
      strides: Which of the pixels are taken, in both directions.

    Returns:
      An array (N, *size, C) for each start.
    """
    spans = [(count - 1) * stride + 1 for count, stride in zip(size, strides, strict=True)]
    return [x[:, i : i + spans[0] : strides[0], j : j + spans[1] : strides[1]] for i, j in starts]


def interleaved(grid: Sequence[Sequence[jax.Array]]) -> jax.Array:
    """Alternates the pixels of images: what `shifted` takes apart.

    Args:
      grid: P rows of Q arrays (N, H, W, C) each.

    Returns:
      (N, H * P, W * Q, C), whose pixel (h * P + p, w * Q + q) is pixel (h, w) of grid[p][q].
    """
    joined = jnp.stack([jnp.stack(row, 3) for row in grid], 2)
    n, height, down, width, across, channels = joined.shape
    return joined.reshape(n, height * down, width * across, channels)
