"""InceptionV3 (Szegedy et al. 2015, arXiv:1512.00567), as Keras builds it, no auxiliary head.

The variant 'torch' is torchvision's: BatchNorm has a gamma, and the average pools count their
padding. It has more parameters, but kernels of the same shapes.

Blocks have TF-Slim's names, 'mixed5b' to 'mixed7c', which Keras counts as mixed0 to mixed10.
"""

from collections.abc import Iterator
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
    TORCH_AVERAGE,
    Branch,
    Branches,
    Fork,
    KerasOrder,
    Mixed,
    Pool,
    unit,
)
from radimagenet_jax.models.layers import Head, Norm, require_size

_REPEATS = (3, 4, 2)
_POOLED_5 = (32, 64, 64)  # channels of the pool branch in mixed5b, 5c, 5d
_INNER_6 = (128, 160, 160, 192)  # channels inside the 7x7 branches of mixed6b to 6e


def _mixed5(pooled: int, average: Pool) -> Branches:
    return (
        ("branch1x1", (unit(64),)),
        ("branch5x5", (unit(48), unit(64, 5))),
        ("branch3x3dbl", (unit(64), unit(96, 3), unit(96, 3))),
        ("branch_pool", (average, unit(pooled))),
    )


_MIXED6A: Branches = (
    ("branch3x3", (unit(384, 3, stride=2),)),
    ("branch3x3dbl", (unit(64), unit(96, 3), unit(96, 3, stride=2))),
    ("branch_pool", (MAX,)),
)


def _mixed6(inner: int, average: Pool) -> Branches:
    row, column = unit(inner, (1, 7)), unit(inner, (7, 1))
    return (
        ("branch1x1", (unit(192),)),
        ("branch7x7", (unit(inner), row, unit(192, (7, 1)))),
        ("branch7x7dbl", (unit(inner), column, row, column, unit(192, (1, 7)))),
        ("branch_pool", (average, unit(192))),
    )


_MIXED7A: Branches = (
    ("branch3x3", (unit(192), unit(320, 3, stride=2))),
    ("branch7x7x3", (unit(192), unit(192, (1, 7)), unit(192, (7, 1)), unit(192, 3, stride=2))),
    ("branch_pool", (MAX,)),
)


def _mixed7(index: int, average: Pool) -> Branches:
    ways = (unit(384, (1, 3)), unit(384, (3, 1)))
    return (
        ("branch1x1", (unit(320),)),
        ("branch3x3", (unit(384), Fork(ways, f"mixed9_{index}"))),
        ("branch3x3dbl", (unit(448), unit(384, 3), Fork(ways))),
        ("branch_pool", (average, unit(192))),
    )


def _blocks(repeats: tuple[int, ...], average: Pool = AVERAGE) -> Iterator[tuple[str, Branches]]:
    """The blocks by name, the repeated ones so many times at each of the three resolutions."""
    fifth, sixth, seventh = repeats
    for letter, pooled in zip("bcd"[:fifth], _POOLED_5, strict=False):
        yield f"mixed5{letter}", _mixed5(pooled, average)
    yield "mixed6a", _MIXED6A
    for letter, inner in zip("bcde"[:sixth], _INNER_6, strict=False):
        yield f"mixed6{letter}", _mixed6(inner, average)
    yield "mixed7a", _MIXED7A
    for index, letter in enumerate("bc"[:seventh]):
        yield f"mixed7{letter}", _mixed7(index, average)


class InceptionV3(nn.Module):
    """InceptionV3 with named intermediates.

    Attributes:
      num_classes: Of the head; None for none.
      dropout: Before the head, in training.
      variant: '' (Keras) or 'torch' (torchvision).
      head_init: 'glorot_uniform' or 'zeros'.
      dtype: Of the computation; parameters and statistics are float32.
      frozen_stats: Names of BatchNorm layers that stay in inference mode in training.
      bn_momentum: Of the moving statistics.
      bessel_correction: See `layers.BatchNorm`.
      stats_groups: See `layers.BatchNorm`.
      repeats: How many of the blocks mixed5b.., mixed6b.. and mixed7b.. there are.
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
          Logits (N, num_classes) float32 or None, and the intermediates: 'stem', each
          'mixed<level><letter>', 'spatial' (N, h, w, C), 'pooled' (N, C) float32, 'logits'.

        Raises:
          ValueError: If the images are too small or the variant is unknown.
        """
        require_size(x, ARCHITECTURE.title, ARCHITECTURE.min_image_size)
        if self.variant not in ARCHITECTURE.variants:
            raise ValueError(f"InceptionV3 has the variants '' and 'torch', not {self.variant!r}.")
        norm = Norm(
            train=train,
            frozen=self.frozen_stats,
            epsilon=EPSILON,
            momentum=self.bn_momentum,
            bessel_correction=self.bessel_correction,
            stats_groups=self.stats_groups,
            dtype=self.dtype,
            use_scale=self.variant == "torch",
        )
        average = TORCH_AVERAGE if self.variant == "torch" else AVERAGE
        out = {}
        y = out["stem"] = Branch(STEM, self.width, self.dtype, name="stem")(x, norm, mask, "stem")
        for name, branches in _blocks(self.repeats, average):
            y = out[name] = Mixed(branches, self.width, self.dtype, name=name)(y, norm, mask)
        out["spatial"] = y
        out["pooled"] = jnp.mean(y, axis=(1, 2), dtype=jnp.float32)
        if self.num_classes is None:
            return None, out
        head = Head(self.num_classes, self.dropout, self.head_init, name="head")
        out["logits"] = head(out["pooled"], train=train)
        return out["logits"], out


def _keras_layers() -> Iterator[KerasLayer]:
    """Layers of keras.applications.InceptionV3, in the order of `base.layers`."""
    order = KerasOrder()
    yield order.layer("input_layer")
    levels = order.steps(STEM, "stem")
    for index, (name, branches) in enumerate(_blocks(_REPEATS)):
        levels += order.block(branches, name, f"mixed{index}")
    for level in levels:
        yield from level
    yield order.layer("global_average_pooling2d")


ARCHITECTURE = Architecture(
    name="inception_v3",
    title="InceptionV3",
    build=InceptionV3,
    variants=("", "torch"),
    feature_size=2048,
    min_image_size=MIN_IMAGE_SIZE,
    keras_layers=lambda: tuple(_keras_layers()),
)
