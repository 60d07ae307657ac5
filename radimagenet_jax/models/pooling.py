"""Average pools with Keras' numerics, written as sums of slices.

XLA turns slices into one fused loop on every backend, while its windowed reduction has no fast
kernel on CPU, and its gradient none anywhere.
"""

import jax
import jax.numpy as jnp
import numpy as np


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
