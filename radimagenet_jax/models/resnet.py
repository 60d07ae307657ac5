"""ResNet50 (He et al. 2015, arXiv:1512.03385), as Keras builds it, and its v1.5 variant.

'v1' is Keras': the stride is on the first 1x1 convolution of a block, every convolution has a
bias, epsilon is 1.001e-5. 'v1.5' is torchvision's: the stride is on the 3x3 convolution, no
biases, epsilon 1e-5. Both have the same kernel shapes, so only the variant tells them apart.
"""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from radimagenet_jax.models.architecture import Architecture, KerasLayer
from radimagenet_jax.models.layers import Conv, Head, Norm, block_output, relu, require_size
from radimagenet_jax.models.pooling import max_pool

_EPSILON = {"v1": 1.001e-5, "v1.5": 1e-5}


_PAD_1 = ((1, 1), (1, 1))
_PAD_3 = ((3, 3), (3, 3))


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions around a shortcut.

    Attributes:
      width: Channels of the first two convolutions; the last has four times as many.
      stride: Of the block.
      project: Whether the shortcut is a convolution, as in the first block of a stage.
      variant: 'v1' or 'v1.5'.
      dtype: Of the computation.
    """

    width: int
    stride: int
    project: bool
    variant: str
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array, norm: Norm, mask: jax.Array | None) -> jax.Array:
        """Maps x (N, H, W, C) to (N, H / stride, W / stride, 4 * width)."""

        def conv(name: str, features: int, size: int = 1, stride: int = 1) -> Conv:
            return Conv(
                features,
                kernel_size=(size, size),
                strides=(stride, stride),
                padding=_PAD_1 if size == 3 else "VALID",
                use_bias=self.variant == "v1",
                dtype=self.dtype,
                name=name,
            )

        def bn(name: str, convolved: tuple[jax.Array, jax.Array | None]) -> jax.Array:
            y, bias = convolved
            return norm(f"{self.name}/{name}")(y, mask, bias)

        first, second = (self.stride, 1) if self.variant == "v1" else (1, self.stride)
        shortcut = x
        if self.project:
            projection = conv("shortcut_conv", 4 * self.width, stride=self.stride)
            shortcut = bn("shortcut_bn", projection.apart(x))
        y = relu(bn("bn1", conv("conv1", self.width, stride=first).apart(x)))
        y = relu(bn("bn2", conv("conv2", self.width, size=3, stride=second).apart(y)))
        y = bn("bn3", conv("conv3", 4 * self.width).apart(y))
        return block_output(relu(shortcut + y))


class ResNet50(nn.Module):
    """ResNet50 with named intermediates.

    Attributes:
      num_classes: Of the head; None for none.
      dropout: Before the head, in training.
      variant: 'v1' (Keras) or 'v1.5' (torchvision).
      head_init: 'glorot_uniform' or 'zeros'.
      dtype: Of the computation; parameters and statistics are float32.
      frozen_stats: Names of BatchNorm layers that stay in inference mode in training.
      bn_momentum: Of the moving statistics.
      bessel_correction: See `layers.BatchNorm`.
      stats_groups: See `layers.BatchNorm`.
      stage_sizes: Blocks per stage.
      width: Channels of the stem.
    """

    num_classes: int | None = None
    dropout: float = 0.0
    variant: str = "v1"
    head_init: str = "glorot_uniform"
    dtype: Any = jnp.float32
    frozen_stats: frozenset[str] = frozenset()
    bn_momentum: float = 0.99
    bessel_correction: bool = True
    stats_groups: int = 1
    stage_sizes: tuple[int, ...] = (3, 4, 6, 3)
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
          'stage<i>_block<j>', 'spatial' (N, h, w, C), 'pooled' (N, C) float32, 'logits'.

        Raises:
          ValueError: If the images are too small or the variant is unknown.
        """
        require_size(x, "ResNet50", ARCHITECTURE.min_image_size)
        if self.variant not in _EPSILON:
            raise ValueError(f"ResNet50 has the variants v1 and v1.5, not {self.variant!r}.")
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
        y = Stem(self.width, self.variant, self.dtype, name="stem")(x, norm, mask)
        # Padded with zeros as Keras does it; after a ReLU that equals padding with -inf.
        y = out["stem"] = max_pool(y, 3, 2, _PAD_1)
        for i, blocks in enumerate(self.stage_sizes):
            for j in range(blocks):
                name = f"stage{i + 1}_block{j + 1}"
                y = out[name] = Bottleneck(
                    width=self.width * 2**i,
                    stride=2 if i and not j else 1,
                    project=not j,
                    variant=self.variant,
                    dtype=self.dtype,
                    name=name,
                )(y, norm, mask)
        out["spatial"] = y
        out["pooled"] = jnp.mean(y, axis=(1, 2), dtype=jnp.float32)
        if self.num_classes is None:
            return None, out
        head = Head(self.num_classes, self.dropout, self.head_init, name="head")
        out["logits"] = head(out["pooled"], train=train)
        return out["logits"], out


class Stem(nn.Module):
    """7x7 convolution of stride 2, BatchNorm and ReLU."""

    width: int
    variant: str
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array, norm: Norm, mask: jax.Array | None) -> jax.Array:
        """Maps x (N, H, W, 3) to (N, H / 2, W / 2, width)."""
        y, bias = Conv(
            self.width,
            kernel_size=(7, 7),
            strides=(2, 2),
            padding=_PAD_3,
            use_bias=self.variant == "v1",
            dtype=self.dtype,
            name="conv",
        ).apart(x)
        return relu(norm(f"{self.name}/bn")(y, mask, bias))


def _keras_layers() -> Iterator[KerasLayer]:
    """Layers of keras.applications.ResNet50, in the order of `base.layers`."""

    def other(name: str) -> KerasLayer:
        return KerasLayer(name, None, "other")

    yield from (other("input_layer"), other("conv1_pad"))
    yield KerasLayer("conv1_conv", "stem/conv", "conv")
    yield KerasLayer("conv1_bn", "stem/bn", "batch_norm")
    yield from (other("conv1_relu"), other("pool1_pad"), other("pool1_pool"))
    for stage, blocks in enumerate((3, 4, 6, 3), start=1):
        for block in range(1, blocks + 1):
            keras, ours = f"conv{stage + 1}_block{block}", f"stage{stage}_block{block}"
            for i in (1, 2):
                yield KerasLayer(f"{keras}_{i}_conv", f"{ours}/conv{i}", "conv")
                yield KerasLayer(f"{keras}_{i}_bn", f"{ours}/bn{i}", "batch_norm")
                yield other(f"{keras}_{i}_relu")
            # Keras lists layers by their distance from the output, so that the shortcut
            # stands beside the last convolution.
            if block == 1:
                yield KerasLayer(f"{keras}_0_conv", f"{ours}/shortcut_conv", "conv")
            yield KerasLayer(f"{keras}_3_conv", f"{ours}/conv3", "conv")
            if block == 1:
                yield KerasLayer(f"{keras}_0_bn", f"{ours}/shortcut_bn", "batch_norm")
            yield KerasLayer(f"{keras}_3_bn", f"{ours}/bn3", "batch_norm")
            yield from (other(f"{keras}_add"), other(f"{keras}_out"))
    yield other("avg_pool")


ARCHITECTURE = Architecture(
    name="resnet50",
    title="ResNet50",
    build=ResNet50,
    variants=("v1", "v1.5"),
    feature_size=2048,
    min_image_size=32,
    keras_layers=lambda: tuple(_keras_layers()),
)
