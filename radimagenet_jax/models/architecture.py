"""What a network's own file says about it, so that nothing else has to know."""

from collections.abc import Callable
from dataclasses import dataclass

from flax import linen as nn

# What each block's output is called, for `jax.checkpoint` to keep it and nothing between.
BLOCK = "block"
# Of what convolutions and statistics give: all that a gradient needs but elementwise work.
CONV = "conv"
STATISTICS = "statistics"


@dataclass(frozen=True)
class KerasLayer:
    """One layer object of the Keras network, in the order of Keras' `base.layers`.

    Attributes:
      name: Keras 3's name of the layer. For layers that Keras names automatically, the name in a
        fresh process, such as 'conv2d_17': only the rank of its number among its kind means
        something.
      path: Our layer's name, such as 'stage4_block3/bn1', or None if it has no variables.
      kind: 'conv', 'batch_norm' or 'other'.
    """

    name: str
    path: str | None
    kind: str


@dataclass(frozen=True)
class Architecture:
    """A network, as the rest of the package sees it.

    Attributes:
      name: What configs call it, such as 'resnet50'.
      title: What people call it, such as 'ResNet50'.
      build: The Linen module's class.
      variants: Values of its `variant` field, the default first.
      feature_size: Channels of the pooled features.
      min_image_size: Smallest input side, in pixels.
      keras_layers: All layer objects of the headless Keras network with its global average
        pooling, in Keras' order.
    """

    name: str
    title: str
    build: Callable[..., nn.Module]
    variants: tuple[str, ...]
    feature_size: int
    min_image_size: int
    keras_layers: Callable[[], tuple[KerasLayer, ...]]
