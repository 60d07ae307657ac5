"""What a network's input is: grey values in, normalised float32 out, on the device.

The four schemes are those of `keras.applications.imagenet_utils.preprocess_input`,
and the one that the published system really applies.
"""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

_CAFFE_MEAN_BGR = (103.939, 116.779, 123.68)  # of the ImageNet training images, 0..255
_TORCH_MEAN_RGB = (0.485, 0.456, 0.406)  # of the same images, 0..1
_TORCH_STD_RGB = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Scheme:
    """One way from RGB in 0..255 to a network's input: `(channels / divisor - mean) / std`.

    Attributes:
      channel_order: 'RGB' or 'BGR', the order that the network's first kernel expects.
      divisor: What the grey values are divided by before the mean is taken off.
      mean: Per channel, in `channel_order`.
      std: Per channel, in `channel_order`.
    """

    channel_order: str
    divisor: float
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


SCHEMES = {
    # What the published scripts feed to every network.
    "caffe_div255": Scheme("BGR", 1.0, _CAFFE_MEAN_BGR, (255.0, 255.0, 255.0)),
    # Keras' ImageNet ResNet50.
    "caffe": Scheme("BGR", 1.0, _CAFFE_MEAN_BGR, (1.0, 1.0, 1.0)),
    # Keras' ImageNet DenseNet121, and torchvision's networks.
    "torch": Scheme("RGB", 255.0, _TORCH_MEAN_RGB, _TORCH_STD_RGB),
    # Keras' ImageNet Inception networks: [-1, 1].
    "tf": Scheme("RGB", 127.5, (1.0, 1.0, 1.0), (1.0, 1.0, 1.0)),
}

# The published scripts give all weights, ImageNet's too, the same input.
PUBLISHED = "caffe_div255"


def normalize(
    images: jax.Array, scheme: str, channel_order: str = "", dtype: Any = jnp.float32
) -> jax.Array:
    """Turns grey or RGB images into a network's input.

    A grey image becomes three equal channels before the scheme is applied, as an
    image loaded 'as RGB' has, so that one stored channel serves every network.

    Args:
      images: (N, H, W, 1) or (N, H, W, 3), RGB, uint8 or float, values 0..255.
      scheme: A key of `SCHEMES`.
      channel_order: 'RGB' or 'BGR', of the result; '' for the scheme's own. Some weight files
        were trained on a scheme's values in the other order.
      dtype: Of the result, and of all that is computed.

    Returns:
      (N, H, W, 3) of `dtype` in the scheme's range.

    Raises:
      ValueError: If the scheme is unknown or the images have another shape.
    """
    if scheme not in SCHEMES:
        raise ValueError(f"unknown preprocessing {scheme!r}; known are {', '.join(SCHEMES)}.")
    if images.ndim != 4 or images.shape[-1] not in (1, 3):
        raise ValueError(f"images must be (N, H, W, 1 or 3), not {images.shape}.")
    chosen = SCHEMES[scheme]
    x = images.astype(dtype)
    if x.shape[-1] == 3 and chosen.channel_order == "BGR":
        x = x[..., ::-1]
    # Broadcasting a single channel against three means replicates it at no cost.
    mean = jnp.asarray(chosen.mean, dtype)
    std = jnp.asarray(chosen.std, dtype)
    x = (x / chosen.divisor - mean) / std
    return x if channel_order in ("", chosen.channel_order) else x[..., ::-1]


@dataclass(frozen=True)
class Input:
    """What a network's input is: a scheme, and the order of its channels.

    Attributes:
      scheme: A key of `SCHEMES`.
      channel_order: 'RGB' or 'BGR'; '' becomes the scheme's own.
    """

    scheme: str
    channel_order: str = ""

    def __post_init__(self) -> None:
        if not self.channel_order:
            object.__setattr__(self, "channel_order", SCHEMES[self.scheme].channel_order)

    def of(self, images: jax.Array, dtype: Any = jnp.float32) -> jax.Array:
        """Turns images into it; see `normalize`."""
        return normalize(images, self.scheme, self.channel_order, dtype)
