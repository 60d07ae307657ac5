"""The published augmentation, on the device: a random affine map, then a flip.

It is Keras' `ImageDataGenerator` (PROTOCOL of the published scripts): angles, shifts,
shear and zoom are drawn per image, composed as Rotation @ Shift @ Shear @ Zoom about the
image's centre, and applied in the inverse-map convention of
`scipy.ndimage.affine_transform` with order 1 and mode 'nearest', on grey values 0..255.

Every draw depends on the seed, the epoch and the example's own id alone, never on the
batch, the number of devices or the order in which examples are met. So a run can be
resumed, spread over hosts, or share its augmented images with another run, and nothing
about them changes.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from radimagenet_jax.models import ops


@dataclass(frozen=True)
class Policy:
    """Ranges of the random draws, each uniform and symmetric.

    Attributes:
      rotation: Largest angle, in degrees.
      shift: Largest shift along either axis, as a share of the image's size.
      shear: Largest shear angle, in degrees (Keras' 0.1 is a tenth of a degree).
      zoom: Zoom factors are drawn from [1 - zoom, 1 + zoom], per axis.
      horizontal_flip: Whether half of the images are mirrored after the affine map.
    """

    rotation: float = 0.0
    shift: float = 0.0
    shear: float = 0.0
    zoom: float = 0.0
    horizontal_flip: bool = False


POLICIES: dict[str, Policy | None] = {
    # acl, meniscus, breast and thyroid in the published scripts
    "rotate_flip": Policy(rotation=10.0, shift=0.1, shear=0.1, zoom=0.1, horizontal_flip=True),
    # covid19, sarscov2, hemorrhage and pneumonia in the published scripts
    "shift_zoom": Policy(shift=0.1, shear=0.1, zoom=0.1),
    "none": None,
}


def keras_matrix(
    theta: jax.Array | float,
    tx: jax.Array | float,
    ty: jax.Array | float,
    shear: jax.Array | float,
    zx: jax.Array | float,
    zy: jax.Array | float,
    size: tuple[int, int],
) -> jax.Array:
    """Composes Keras' affine matrix about the centre of an image.

    Equal to what `keras.preprocessing.image.apply_affine_transform` hands to
    `scipy.ndimage` for square images with the same arguments: Keras composes the matrix for
    (x, y) and then swaps the axes, since arrays are read (row, column).

    Args:
      theta: Rotation in degrees.
      tx: Shift along the columns, in pixels.
      ty: Shift along the rows, in pixels.
      shear: Shear angle in degrees.
      zx: Zoom along the columns.
      zy: Zoom along the rows.
      size: (height, width) of the image.

    Returns:
      (2, 3) float32: output (row, column, 1) to input (row, column), as
      `scipy.ndimage.affine_transform(x, m[:, :2], m[:, 2])` takes it.
    """
    angle, slant = jnp.deg2rad(theta), jnp.deg2rad(shear)
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    # Rotation @ Shift @ Shear @ Zoom multiplied out, with rows before columns.
    linear = jnp.stack(
        [
            jnp.stack([jnp.cos(angle + slant) * zy, sin * zx]),
            jnp.stack([-jnp.sin(angle + slant) * zy, cos * zx]),
        ]
    )
    translation = jnp.stack([sin * tx + cos * ty, cos * tx - sin * ty])
    centre = jnp.asarray([size[0] / 2 - 0.5, size[1] / 2 - 0.5], jnp.float32)
    # An explicit sum: the default matrix product on TPU rounds to bfloat16, which
    # would move the corner of a 224 image by most of a pixel.
    moved = jnp.sum(linear * centre[None, :], axis=1)
    return jnp.concatenate([linear, (centre - moved + translation)[:, None]], axis=1)


def affine_bilinear(images: jax.Array, matrices: jax.Array) -> jax.Array:
    """Resamples each image as `scipy.ndimage.affine_transform(order=1, mode='nearest')`.

    Args:
      images: (N, H, W, C), any real dtype.
      matrices: (N, 2, 3), from output to input coordinates, see `keras_matrix`.

    Returns:
      (N, H, W, C) float32.
    """
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
    corners = ops.materialized(y.astype(jnp.int32) * width + x.astype(jnp.int32))
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
        return ops.materialized(look_up(values, corners))

    if images.dtype != jnp.uint8:
        return [found(one).astype(jnp.float32) for one in each]
    # Looking up is what augmentation costs, so all four come in one word.
    words = sum(one.astype(jnp.uint32) << 8 * place for place, one in enumerate(each))
    words = found(jnp.asarray(words))
    return [(words >> 8 * place & 255).astype(jnp.float32) for place in range(4)]


def draw(key: jax.Array, policy: Policy, size: tuple[int, int]) -> tuple[jax.Array, jax.Array]:
    """Draws one image's affine matrix and flip.

    Args:
      key: A typed PRNG key, this example's own.
      policy: The ranges.
      size: (height, width) of the image.

    Returns:
      The matrix of `keras_matrix`, and a bool scalar: mirror the image or not.
    """
    u = jax.random.uniform(key, (7,), minval=-1.0, maxval=1.0)
    matrix = keras_matrix(
        theta=policy.rotation * u[0],
        tx=policy.shift * size[1] * u[1],
        ty=policy.shift * size[0] * u[2],
        shear=policy.shear * u[3],
        zx=1 + policy.zoom * u[4],
        zy=1 + policy.zoom * u[5],
        size=size,
    )
    return matrix, (u[6] < 0) & policy.horizontal_flip


def drawn_map(key: jax.Array, policy: Policy, size: tuple[int, int]) -> jax.Array:
    """Draws what `draw` does, as one (2, 3) matrix that mirrors too; arguments as there."""
    matrix, mirrored = draw(key, policy, size)
    # Mirroring the result is reading the columns from the right: the flip
    # goes into the matrix, and no second pass over the pixels is needed.
    mirrored_matrix = jnp.stack(
        [matrix[:, 0], -matrix[:, 1], matrix[:, 2] + (size[1] - 1) * matrix[:, 1]], axis=1
    )
    return jnp.where(mirrored, mirrored_matrix, matrix)


def augment(
    images: jax.Array, ids: jax.Array, epoch: jax.Array | int, key: jax.Array, policy: Policy | None
) -> jax.Array:
    """Augments a batch on the device.

    Args:
      images: (N, H, W, C), uint8 or float, grey values 0..255.
      ids: (N,) uint32, each example's identity in the data set (not its place in the batch).
      epoch: How often the data set has been passed through before.
      key: The run's augmentation key.
      policy: What to draw, or None to leave the images as they are.

    Returns:
      (N, H, W, C) float32 in 0..255.
    """
    if policy is None:
        return images.astype(jnp.float32)
    height, width = images.shape[1:3]
    epoch_key = jax.random.fold_in(key, epoch)

    def drawn(example: jax.Array) -> jax.Array:
        return drawn_map(jax.random.fold_in(epoch_key, example), policy, (height, width))

    return affine_bilinear(images, jax.vmap(drawn)(ids))
