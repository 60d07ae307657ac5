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

import math
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


def margin(policy: Policy, size: tuple[int, int]) -> int | None:
    """How many columns beyond the left and the right border `drawn_map` reaches at most.

    Returns:
      The number, or None if images may be turned by more than the 40 degrees that
      `ops.affine_bilinear` wants.
    """
    if policy.rotation > 40:
        return None
    turned, slanted = (
        math.sin(math.radians(angle)) for angle in (policy.rotation, policy.rotation + policy.shear)
    )
    height, width = size
    zoomed = (1 + policy.zoom) / 2 * (slanted * height + width)
    shifted = policy.shift * (width + turned * height)
    return math.ceil(zoomed + shifted - width / 2)


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

    maps = jax.vmap(drawn)(ids)
    return ops.affine_bilinear(images, maps, margin(policy, (height, width)))
