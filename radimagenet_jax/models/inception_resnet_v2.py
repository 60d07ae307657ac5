"""InceptionResNetV2 (Szegedy et al. 2016, arXiv:1602.07261), as Keras builds it.

Each block adds to its input a scaled 1x1 convolution, with a bias and no BatchNorm, of its
concatenated branches; branches are counted as in TF-Slim and Keras.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from radimagenet_jax.models.architecture import Architecture, KerasLayer
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
from radimagenet_jax.models.layers import Conv, Head, Norm, block_output, relu, require_size

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


@dataclass(frozen=True)
class _Block:
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
      dtype: Of the computation.
    """

    branches: Branches
    scale: float
    activate: bool
    width: float
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array, norm: Norm, mask: jax.Array | None) -> jax.Array:
        """Maps x (N, H, W, C) to the same shape."""
        mixed = concatenated(self.branches, x, norm, mask, self.name, self.width, self.dtype)
        y = x + self.scale * Conv(x.shape[-1], dtype=self.dtype, name="conv")(mixed)
        return block_output(relu(y) if self.activate else y)


class Final(nn.Module):
    """1x1 convolution, BatchNorm and ReLU that make the features."""

    features: int
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array, norm: Norm, mask: jax.Array | None) -> jax.Array:
        """Maps x (N, H, W, C) to (N, H, W, features)."""
        y = Conv(self.features, use_bias=False, dtype=self.dtype, name="conv")(x)
        return relu(norm(f"{self.name}/bn")(y, mask))


class InceptionResNetV2(nn.Module):
    """InceptionResNetV2 with named intermediates.

    Attributes:
      num_classes: Of the head; None for none.
      dropout: Before the head, in training.
      variant: '', the only one.
      head_init: 'glorot_uniform' or 'zeros'.
      dtype: Of the computation; parameters and statistics are float32.
      frozen_stats: Names of BatchNorm layers that stay in inference mode in training.
      bn_momentum: Of the moving statistics.
      bessel_correction: See `layers.BatchNorm`.
      stats_groups: See `layers.BatchNorm`.
      repeats: How many blocks 'block35', 'block17' and 'block8' there are.
      width: Factor of all channels.
    """

    num_classes: int | None = None
    dropout: float = 0.0
    variant: str = ""
    head_init: str = "glorot_uniform"
    dtype: Any = jnp.float32
    frozen_stats: frozenset[str] = frozenset()
    bn_momentum: float = 0.99
    bessel_correction: bool = True
    stats_groups: int = 1
    repeats: tuple[int, ...] = _REPEATS
    width: float = 1.0

    @nn.compact
    def __call__(
        self, x: jax.Array, *, train: bool = False, mask: jax.Array | None = None
    ) -> tuple[jax.Array | None, dict[str, jax.Array]]:
        """Applies the network.

        Args:
          x: (N, H, W, 3) preprocessed images, at least 75 pixels a side.
          train: Batch statistics and dropout (rng 'dropout') instead of inference.
          mask: (N,), 0 for padding, which then counts in no batch statistic.

        Returns:
          Logits (N, num_classes) float32 or None, and the intermediates: 'stem', 'mixed5b',
          'mixed6a', 'mixed7a', each 'block35_<i>', 'block17_<i>', 'block8_<i>', 'spatial'
          (N, h, w, C), 'pooled' (N, C) float32, 'logits'.

        Raises:
          ValueError: If the images are too small or the variant is unknown.
        """
        require_size(x, ARCHITECTURE.title, ARCHITECTURE.min_image_size)
        if self.variant not in ARCHITECTURE.variants:
            raise ValueError(f"InceptionResNetV2 has no variants, such as {self.variant!r}.")
        norm = Norm(
            train=train,
            frozen=self.frozen_stats,
            epsilon=EPSILON,
            momentum=self.bn_momentum,
            bessel_correction=self.bessel_correction,
            stats_groups=self.stats_groups,
            dtype=self.dtype,
            use_scale=False,
        )
        out = {}
        y = out["stem"] = Branch(STEM, self.width, self.dtype, name="stem")(x, norm, mask, "stem")
        for block in _blocks(self.repeats):
            layer = (
                Mixed(block.branches, self.width, self.dtype, name=block.name)
                if block.scale is None
                else Residual(
                    branches=block.branches,
                    scale=block.scale,
                    activate=block.activate,
                    width=self.width,
                    dtype=self.dtype,
                    name=block.name,
                )
            )
            y = out[block.name] = layer(y, norm, mask)
        final = Final(scaled(_FEATURES, self.width), self.dtype, name="conv7b")
        y = out["spatial"] = final(y, norm, mask)
        out["pooled"] = jnp.mean(y, axis=(1, 2), dtype=jnp.float32)
        if self.num_classes is None:
            return None, out
        head = Head(self.num_classes, self.dropout, self.head_init, name="head")
        out["logits"] = head(out["pooled"], train=train)
        return out["logits"], out


def _keras_layers() -> Iterator[KerasLayer]:
    """Layers of keras.applications.InceptionResNetV2, in the order of `base.layers`."""

    def other(name: str) -> KerasLayer:
        return KerasLayer(name, None, "other")

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
            levels.append([other(f"{block.name}_ac")])
    for level in levels:
        yield from level
    yield KerasLayer("conv_7b", "conv7b/conv", "conv")
    yield KerasLayer("conv_7b_bn", "conv7b/bn", "batch_norm")
    yield other("conv_7b_ac")
    yield order.layer("global_average_pooling2d")


ARCHITECTURE = Architecture(
    name="inception_resnet_v2",
    title="InceptionResNetV2",
    build=InceptionResNetV2,
    variants=("",),
    feature_size=_FEATURES,
    min_image_size=MIN_IMAGE_SIZE,
    keras_layers=lambda: tuple(_keras_layers()),
)
