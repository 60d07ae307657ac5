"""InceptionResNetV2 (Szegedy et al. 2016, arXiv:1602.07261), as Keras builds it.

Each block adds to its input a scaled 1x1 convolution, with a bias and no BatchNorm, of its
concatenated branches; branches are counted as in TF-Slim and Keras.
"""

from collections.abc import Iterator
from typing import Any, ClassVar, NamedTuple

import jax
from flax import linen as nn

from radimagenet_jax.models.inception import (
    AVERAGE,
    EPSILON,
    MAX,
    MIN_IMAGE_SIZE,
    STEM,
    Branch,
    Branches,
    KerasOrder,
    Mixed,
    concatenated,
    scaled,
    unit,
)
from radimagenet_jax.models.layers import Layers, block_output, relu
from radimagenet_jax.models.network import Architecture, KerasLayer, Network
from radimagenet_jax.models.ops.activation import residual_relu

_REPEATS = (10, 20, 10)
_FEATURES = 1536

_MIXED5B: Branches = (
    ("branch0", (unit(96),)),
    ("branch1", (unit(48), unit(64, 5))),
    ("branch2", (unit(64), unit(96, 3), unit(96, 3))),
    ("branch_pool", (AVERAGE, unit(64))),
)
_BLOCK35: Branches = (
    ("branch0", (unit(32),)),
    ("branch1", (unit(32), unit(32, 3))),
    ("branch2", (unit(32), unit(48, 3), unit(64, 3))),
)
_MIXED6A: Branches = (
    ("branch0", (unit(384, 3, stride=2),)),
    ("branch1", (unit(256), unit(256, 3), unit(384, 3, stride=2))),
    ("branch_pool", (MAX,)),
)
_BLOCK17: Branches = (
    ("branch0", (unit(192),)),
    ("branch1", (unit(128), unit(160, (1, 7)), unit(192, (7, 1)))),
)
_MIXED7A: Branches = (
    ("branch0", (unit(256), unit(384, 3, stride=2))),
    ("branch1", (unit(256), unit(288, 3, stride=2))),
    ("branch2", (unit(256), unit(288, 3), unit(320, 3, stride=2))),
    ("branch_pool", (MAX,)),
)
_BLOCK8: Branches = (
    ("branch0", (unit(192),)),
    ("branch1", (unit(192), unit(224, (1, 3)), unit(256, (3, 1)))),
)


class _Block(NamedTuple):
    """A block of the network: branches, concatenated or, with a scale, added to the input."""

    name: str
    branches: Branches
    scale: float | None = None
    activate: bool = True


def _blocks(repeats: tuple[int, ...]) -> Iterator[_Block]:
    """The blocks, the residual ones so many times at each of the three resolutions."""
    first, second, third = repeats
    yield _Block("mixed5b", _MIXED5B)
    for i in range(1, first + 1):
        yield _Block(f"block35_{i}", _BLOCK35, 0.17)
    yield _Block("mixed6a", _MIXED6A)
    for i in range(1, second + 1):
        yield _Block(f"block17_{i}", _BLOCK17, 0.1)
    yield _Block("mixed7a", _MIXED7A)
    for i in range(1, third):
        yield _Block(f"block8_{i}", _BLOCK8, 0.2)
    # The last one is not scaled down, and its sum goes into the final convolution as it is.
    yield _Block(f"block8_{third}", _BLOCK8, 1.0, activate=False)


class Residual(nn.Module):
    """Branches whose projection is added to the input.

    Attributes:
      branches: By name.
      scale: Of the projection.
      activate: Whether a ReLU follows.
      width: Factor of all channels inside.
    """

    branches: Branches
    scale: float
    activate: bool
    width: float

    @nn.compact
    def __call__(self, x: jax.Array, layers: Layers) -> jax.Array:
        """Maps x (N, H, W, C) to the same shape."""
        mixed = concatenated(self.branches, x, layers, self.width)
        y = x + self.scale * layers.conv(mixed, "conv", x.shape[-1])
        return block_output(residual_relu(y) if self.activate else y)


class Final(nn.Module):
    """1x1 convolution, BatchNorm and ReLU that make the features."""

    features: int

    @nn.compact
    def __call__(self, x: jax.Array, layers: Layers) -> jax.Array:
        """Maps x (N, H, W, C) to (N, H, W, features)."""
        return relu(layers.conv_norm(x, ("conv", "bn"), self.features, use_bias=False))


class InceptionResNetV2(Network):
    """InceptionResNetV2; intermediates are 'stem', 'mixed<level>' and 'block<size>_<i>'.

    Attributes:
      repeats: How many blocks 'block35', 'block17' and 'block8' there are.
      width: Factor of all channels.
    """

    epsilons: ClassVar[dict[str, float]] = {"": EPSILON}
    without_scale = ("",)
    min_image_size = MIN_IMAGE_SIZE
    limits: ClassVar[dict[str, tuple[Any, ...]]] = {
        "repeats": ((1, 40), (1, 80), (1, 40)),
        "width": (0.01, 8.0),
    }

    repeats: tuple[int, ...] = _REPEATS
    width: float = 1.0

    def blocks(self, x: jax.Array, layers: Layers) -> dict[str, jax.Array]:
        """See `Network`."""
        out = {}
        y = out["stem"] = Branch(STEM, self.width, name="stem")(x, layers)
        for name, branches, scale, activate in _blocks(self.repeats):
            if scale is None:
                y = out[name] = Mixed(branches, self.width, name=name)(y, layers)
            else:
                block = Residual(branches, scale, activate, self.width, name=name)
                y = out[name] = block(y, layers)
        final = Final(scaled(_FEATURES, self.width), name="conv7b")
        return out | {"spatial": final(y, layers)}


def _keras_layers() -> Iterator[KerasLayer]:
    """Layers of keras.applications.InceptionResNetV2, in the order of `base.layers`."""
    order = KerasOrder()
    yield order.layer("input_layer")
    levels = order.steps(STEM, "stem")
    for block in _blocks(_REPEATS):
        if block.scale is None:
            levels += order.block(block.branches, block.name, block.name.replace("mixed", "mixed_"))
            continue
        levels += order.block(block.branches, block.name, f"{block.name}_mixed")
        levels.append([KerasLayer(f"{block.name}_conv", f"{block.name}/conv", "conv")])
        levels.append([order.layer("custom_scale_layer")])
        if block.activate:
            levels.append([KerasLayer(f"{block.name}_ac")])
    for level in levels:
        yield from level
    yield KerasLayer("conv_7b", "conv7b/conv", "conv")
    yield KerasLayer("conv_7b_bn", "conv7b/bn", "batch_norm")
    yield KerasLayer("conv_7b_ac")
    yield order.layer("global_average_pooling2d")


ARCHITECTURE = Architecture(
    name="inception_resnet_v2",
    build=InceptionResNetV2,
    keras_layers=lambda: tuple(_keras_layers()),
    # Keras 2 wrote the residual scale as Lambda layers.
    keras_lambdas=r"block(35|17|8)_\d+",
    native_input="tf",
    released="IRV2",
    parameters=54_336_736,
    imagenet_md5="d19885ff4a710c122648d3b5c3b684e4",
    imagenet_top_md5="e693bd0210a403b3192acc6073ad2e96",
    small={"repeats": (1, 1, 1), "width": 0.25},
)
