"""DenseNet121 (Huang et al. 2016, arXiv:1608.06993), as Keras builds it.

The variant 'torch' is torchvision's, which differs in BatchNorm's epsilon alone.
"""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from radimagenet_jax.models.architecture import Architecture, KerasLayer
from radimagenet_jax.models.layers import Conv, Head, Norm, block_output, relu, require_size
from radimagenet_jax.models.pooling import halve, max_pool

_EPSILON = {"": 1.001e-5, "torch": 1e-5}
_BLOCK_SIZES = (6, 12, 24, 16)
_PAD_1 = ((1, 1), (1, 1))
_PAD_3 = ((3, 3), (3, 3))


class Stem(nn.Module):
    """7x7 convolution of stride 2, BatchNorm and ReLU."""

    width: int
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array, norm: Norm, mask: jax.Array | None) -> jax.Array:
        """Maps x (N, H, W, 3) to (N, H / 2, W / 2, width)."""
        y = Conv(
            self.width,
            kernel_size=(7, 7),
            strides=(2, 2),
            padding=_PAD_3,
            use_bias=False,
            dtype=self.dtype,
            name="conv",
        )(x)
        return relu(norm(f"{self.name}/bn")(y, mask))


class DenseBlock(nn.Module):
    """BatchNorm, ReLU, 1x1; BatchNorm, ReLU, 3x3; the result is appended to the input.

    Attributes:
      growth: Channels appended; the 1x1 convolution has four times as many.
      dtype: Of the computation.
    """

    growth: int
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array, norm: Norm, mask: jax.Array | None) -> jax.Array:
        """Maps x (N, H, W, C) to (N, H, W, C + growth)."""
        y = relu(norm(f"{self.name}/bn1")(x, mask))
        y = Conv(4 * self.growth, use_bias=False, dtype=self.dtype, name="conv1")(y)
        y = relu(norm(f"{self.name}/bn2")(y, mask))
        y = Conv(
            self.growth,
            kernel_size=(3, 3),
            padding=_PAD_1,
            use_bias=False,
            dtype=self.dtype,
            name="conv2",
        )(y)
        return block_output(jnp.concatenate([x, y], -1))


class Transition(nn.Module):
    """BatchNorm, ReLU, a 1x1 convolution to half the channels, a 2x2 average pool."""

    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array, norm: Norm, mask: jax.Array | None) -> jax.Array:
        """Maps x (N, H, W, C) to (N, H // 2, W // 2, C // 2)."""
        y = relu(norm(f"{self.name}/bn")(x, mask))
        y = Conv(x.shape[-1] // 2, use_bias=False, dtype=self.dtype, name="conv")(y)
        return halve(y)


class DenseNet121(nn.Module):
    """DenseNet121 with named intermediates.

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
      block_sizes: Dense blocks per stage.
      growth: Channels that each block appends.
      width: Channels of the stem.
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
    block_sizes: tuple[int, ...] = _BLOCK_SIZES
    growth: int = 32
    width: int = 64

    @nn.compact
    def __call__(
        self, x: jax.Array, *, train: bool = False, mask: jax.Array | None = None
    ) -> tuple[jax.Array | None, dict[str, jax.Array]]:
        """Applies the network.

        Args:
          x: (N, H, W, 3) preprocessed images, at least 32 pixels a side.
          train: Batch statistics and dropout (rng 'dropout') instead of inference.
          mask: (N,), 0 for padding, which then counts in no batch statistic.

        Returns:
          Logits (N, num_classes) float32 or None, and the intermediates: 'stem', each
          'stage<i>_block<j>' and 'transition<i>', 'spatial' (N, h, w, C), 'pooled' (N, C)
          float32, 'logits'.

        Raises:
          ValueError: If the images are too small or the variant is unknown.
        """
        require_size(x, ARCHITECTURE.title, ARCHITECTURE.min_image_size)
        if self.variant not in _EPSILON:
            raise ValueError(f"DenseNet121 has the variants '' and 'torch', not {self.variant!r}.")
        norm = Norm(
            train=train,
            frozen=self.frozen_stats,
            epsilon=_EPSILON[self.variant],
            momentum=self.bn_momentum,
            bessel_correction=self.bessel_correction,
            stats_groups=self.stats_groups,
            dtype=self.dtype,
        )
        out = {}
        y = Stem(self.width, self.dtype, name="stem")(x, norm, mask)
        # Padded with zeros as Keras does it; after a ReLU that equals padding with -inf.
        y = out["stem"] = max_pool(y, 3, 2, _PAD_1)
        for i, blocks in enumerate(self.block_sizes, start=1):
            for j in range(1, blocks + 1):
                name = f"stage{i}_block{j}"
                y = out[name] = DenseBlock(self.growth, self.dtype, name=name)(y, norm, mask)
            if i < len(self.block_sizes):
                name = f"transition{i}"
                y = out[name] = Transition(self.dtype, name=name)(y, norm, mask)
        out["spatial"] = relu(norm("final_bn")(y, mask))
        out["pooled"] = jnp.mean(out["spatial"], axis=(1, 2), dtype=jnp.float32)
        if self.num_classes is None:
            return None, out
        head = Head(self.num_classes, self.dropout, self.head_init, name="head")
        out["logits"] = head(out["pooled"], train=train)
        return out["logits"], out


def _keras_layers() -> Iterator[KerasLayer]:
    """Layers of keras.applications.DenseNet121, in the order of `base.layers`.

    The network is a chain but for the concatenations, so that the order is that of the layers.
    """

    def bn_relu(name: str, ours: str) -> Iterator[KerasLayer]:
        yield KerasLayer(f"{name}bn", ours, "batch_norm")
        yield KerasLayer(f"{name}relu", None, "other")

    yield KerasLayer("input_layer", None, "other")
    yield KerasLayer("zero_padding2d", None, "other")
    yield KerasLayer("conv1_conv", "stem/conv", "conv")
    yield from bn_relu("conv1_", "stem/bn")
    yield KerasLayer("zero_padding2d_1", None, "other")
    yield KerasLayer("pool1", None, "other")
    for stage, blocks in enumerate(_BLOCK_SIZES, start=1):
        for block in range(1, blocks + 1):
            keras, ours = f"conv{stage + 1}_block{block}_", f"stage{stage}_block{block}/"
            yield from bn_relu(f"{keras}0_", f"{ours}bn1")
            yield KerasLayer(f"{keras}1_conv", f"{ours}conv1", "conv")
            yield from bn_relu(f"{keras}1_", f"{ours}bn2")
            yield KerasLayer(f"{keras}2_conv", f"{ours}conv2", "conv")
            yield KerasLayer(f"{keras}concat", None, "other")
        if stage < len(_BLOCK_SIZES):
            keras, ours = f"pool{stage + 1}_", f"transition{stage}/"
            yield from bn_relu(keras, f"{ours}bn")
            yield KerasLayer(f"{keras}conv", f"{ours}conv", "conv")
            yield KerasLayer(f"{keras}pool", None, "other")
    yield from bn_relu("", "final_bn")
    yield KerasLayer("avg_pool", None, "other")


ARCHITECTURE = Architecture(
    name="densenet121",
    title="DenseNet121",
    build=DenseNet121,
    variants=("", "torch"),
    feature_size=1024,
    min_image_size=32,
    keras_layers=lambda: tuple(_keras_layers()),
)
