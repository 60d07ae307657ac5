"""Affine maps of images with bilinear interpolation."""

import jax
import jax.numpy as jnp

from radimagenet_jax.models.ops import platform


def affine_bilinear(images: jax.Array, matrices: jax.Array, margin: int | None = None) -> jax.Array:
    """Resamples each image as `scipy.ndimage.affine_transform(order=1, mode='nearest')`.

    Args:
      images: (N, H, W, C), any real dtype.
      matrices: (N, 2, 3), from output to input coordinates (row, column).
      margin: How many columns beyond the left and the right border the matrices reach at most, if
        none turns by more than 40 degrees, mirrored or not: then uint8 images are resampled fast
        on TPU, with the same result to rounding. None where that is not known.

    Returns:
      (N, H, W, C) float32.
    """
    images = jnp.asarray(images)
    if margin is None:
        return _gathered(images, matrices)
    # What it needs of JAX is loaded where there is something to augment.
    from radimagenet_jax.models.ops import resampling_tpu

    if not resampling_tpu.fits(images, margin):
        return _gathered(images, matrices)

    def in_registers(images: jax.Array, matrices: jax.Array) -> jax.Array:
        return resampling_tpu.bilinear(images, matrices, margin)

    return platform.choose(images, matrices, cpu=_gathered, plain=_gathered, tpu=in_registers)


def _gathered(images: jax.Array, matrices: jax.Array) -> jax.Array:
    """Looks up pixel by pixel."""
    height, width = images.shape[1:3]
    rows = jnp.arange(height, dtype=jnp.float32)[:, None]
    columns = jnp.arange(width, dtype=jnp.float32)[None, :]

    def coordinate(axis: int) -> jax.Array:
        by_row, by_column, start = (matrices[:, axis, n, None, None] for n in range(3))
        # 'nearest' repeats the border pixel, which is what clamping the coordinate gives.
        place = by_row * rows + by_column * columns + start
        return jnp.clip(place, 0.0, images.shape[1 + axis] - 1.0)

    y, x = coordinate(0), coordinate(1)
    # Lookups and arithmetic are each fast in loops of their own only. Both start from this number:
    # rounded once more, a coordinate might have one pixel's value with the next one's weight.
    corners = platform.materialized(y.astype(jnp.int32) * width + x.astype(jnp.int32))
    here, right, below, across = _neighbours(images, corners)
    top = corners // width
    left = corners - top * width
    dy, dx = (y - top)[..., None], (x - left)[..., None]
    upper = here * (1 - dx) + right * dx
    lower = below * (1 - dx) + across * dx
    return upper * (1 - dy) + lower * dy


def _neighbours(images: jax.Array, corners: jax.Array) -> list[jax.Array]:
    """Looks up pixels with their right, lower and lower right neighbours.

    Beyond the right border is the next row, beyond the last row 0: clamped coordinates give these
    no weight.

    Args:
      images: (N, H, W, C), any real dtype.
      corners: (N, H', W') int32, row * W + column of each pixel.

    Returns:
      Four arrays (N, H', W', C) float32.
    """
    count, height, width, channels = images.shape
    pixels = height * width
    # Each image by itself, since devices that share the batch would have to talk about the seams.
    padded = jnp.pad(images.reshape(count, pixels, channels), ((0, 0), (0, width + 1), (0, 0)))
    each = [padded[:, ahead : ahead + pixels] for ahead in (0, 1, width, width + 1)]

    def found(values: jax.Array) -> jax.Array:
        look_up = jax.vmap(lambda one, at: one.at[at].get(mode="promise_in_bounds"))
        return platform.materialized(look_up(values, corners))

    if images.dtype != jnp.uint8:
        return [found(one).astype(jnp.float32) for one in each]
    # Looking up is what augmentation costs, so all four come in one word.
    words = sum(one.astype(jnp.uint32) << 8 * place for place, one in enumerate(each))
    words = found(jnp.asarray(words))
    return [(words >> 8 * place & 255).astype(jnp.float32) for place in range(4)]
