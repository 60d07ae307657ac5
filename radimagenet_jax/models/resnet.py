"""ResNet50 (He et al. 2015, arXiv:1512.03385), as Keras builds it, and its v1.5 variant.

'v1' is Keras': the stride is on the first 1x1 convolution of a block, every convolution has a
bias, epsilon is 1.001e-5. 'v1.5' is torchvision's: the stride is on the 3x3 convolution, no
biases, epsilon 1e-5. Both have the same kernel shapes, so only the variant tells them apart.
"""

import re
from collections.abc import Iterator
from typing import ClassVar

import jax
from flax import linen as nn

from radimagenet_jax.models.layers import Layers, block_output, relu
from radimagenet_jax.models.network import Architecture, KerasLayer, Network, TorchNames
from radimagenet_jax.models.ops.activation import residual_relu
from radimagenet_jax.models.ops.pooling import max_pool

_PAD_1 = ((1, 1), (1, 1))
_PAD_3 = ((3, 3), (3, 3))
_STAGE_SIZES = (3, 4, 6, 3)


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions around a shortcut.

    Attributes:
      width: Channels of the first two convolutions; the last has four times as many.
      stride: Of the block.
      project: Whether the shortcut is a convolution, as in the first block of a stage.
      variant: 'v1' or 'v1.5'.
    """

    width: int
    stride: int
    project: bool
    variant: str

    @nn.compact
    def __call__(self, x: jax.Array, layers: Layers) -> jax.Array:
        """Maps x (N, H, W, C) to (N, H / stride, W / stride, 4 * width)."""
        first, second = (self.stride, 1) if self.variant == "v1" else (1, self.stride)
        bias = {"use_bias": self.variant == "v1"}
        shortcut = x
        if self.project:
            names = ("shortcut_conv", "shortcut_bn")
            shortcut = layers.conv_norm(x, names, 4 * self.width, stride=self.stride, **bias)
        y = relu(layers.conv_norm(x, ("conv1", "bn1"), self.width, stride=first, **bias))
        y = layers.conv_norm(
            y, ("conv2", "bn2"), self.width, 3, stride=second, padding=_PAD_1, **bias
        )
        y = layers.conv_norm(relu(y), ("conv3", "bn3"), 4 * self.width, **bias)
        return block_output(residual_relu(shortcut + y))


class Stem(nn.Module):
    """7x7 convolution of stride 2, BatchNorm, ReLU, and a max pool of stride 2."""

    width: int
    variant: str

    @nn.compact
    def __call__(self, x: jax.Array, layers: Layers) -> jax.Array:
        """Maps x (N, H, W, 3) to (N, H / 4, W / 4, width)."""
        bias = self.variant == "v1"
        y = layers.conv_norm(
            x, ("conv", "bn"), self.width, 7, stride=2, padding=_PAD_3, use_bias=bias
        )
        # Padded with zeros as Keras does it; after a ReLU that equals padding with -inf.
        return max_pool(relu(y), 3, 2, _PAD_1)


class ResNet50(Network):
    """ResNet50; intermediates are 'stem' and each 'stage<i>_block<j>'.

    Attributes:
      variant: 'v1' (Keras) or 'v1.5' (torchvision).
      stage_sizes: Blocks per stage.
      width: Channels of the stem.
    """

    epsilons: ClassVar[dict[str, float]] = {"v1": 1.001e-5, "v1.5": 1e-5}
    min_image_size = 32
    limits: ClassVar[dict[str, tuple[int, int]]] = {"stage_sizes": (1, 64), "width": (1, 1024)}

    variant: str = "v1"
    stage_sizes: tuple[int, ...] = _STAGE_SIZES
    width: int = 64

    def blocks(self, x: jax.Array, layers: Layers) -> dict[str, jax.Array]:
        """See `Network`."""
        out = {}
        y = out["stem"] = Stem(self.width, self.variant, name="stem")(x, layers)
        for i, blocks in enumerate(self.stage_sizes):
            for j in range(blocks):
                name, stride = f"stage{i + 1}_block{j + 1}", 2 if i and not j else 1
                block = Bottleneck(self.width * 2**i, stride, not j, self.variant, name=name)
                y = out[name] = block(y, layers)
        return out | {"spatial": y}


def _keras_layers() -> Iterator[KerasLayer]:
    """Layers of keras.applications.ResNet50, in the order of `base.layers`."""
    yield from (KerasLayer("input_layer"), KerasLayer("conv1_pad"))
    yield KerasLayer("conv1_conv", "stem/conv", "conv")
    yield KerasLayer("conv1_bn", "stem/bn", "batch_norm")
    yield from (KerasLayer("conv1_relu"), KerasLayer("pool1_pad"), KerasLayer("pool1_pool"))
    for stage, blocks in enumerate(_STAGE_SIZES, start=1):
        for block in range(1, blocks + 1):
            keras, ours = f"conv{stage + 1}_block{block}", f"stage{stage}_block{block}"
            for i in (1, 2):
                yield KerasLayer(f"{keras}_{i}_conv", f"{ours}/conv{i}", "conv")
                yield KerasLayer(f"{keras}_{i}_bn", f"{ours}/bn{i}", "batch_norm")
                yield KerasLayer(f"{keras}_{i}_relu")
            # Keras lists layers by their distance from the output, so that the shortcut
            # stands beside the last convolution.
            if block == 1:
                yield KerasLayer(f"{keras}_0_conv", f"{ours}/shortcut_conv", "conv")
            yield KerasLayer(f"{keras}_3_conv", f"{ours}/conv3", "conv")
            if block == 1:
                yield KerasLayer(f"{keras}_0_bn", f"{ours}/shortcut_bn", "batch_norm")
            yield KerasLayer(f"{keras}_3_bn", f"{ours}/bn3", "batch_norm")
            yield from (KerasLayer(f"{keras}_add"), KerasLayer(f"{keras}_out"))
    yield KerasLayer("avg_pool")


def _torch_module(path: str) -> str:
    """Torchvision's name of the module at our path."""
    block, _, layer = path.partition("/")
    if block == "stem":
        return f"{layer}1"
    stage, number = map(int, re.findall(r"\d+", block))
    layer = {"shortcut_conv": "downsample.0", "shortcut_bn": "downsample.1"}.get(layer, layer)
    return f"layer{stage}.{number - 1}.{layer}"


ARCHITECTURE = Architecture(
    name="resnet50",
    build=ResNet50,
    keras_layers=lambda: tuple(_keras_layers()),
    # v1.5 has the stride on the second convolution of the block.
    keras_strides={f"conv{stage}_block1_1_conv": (2, 2) for stage in (3, 4, 5)},
    torch=TorchNames(
        variant="v1.5",
        module=_torch_module,
        children={"0": "conv1", "1": "bn1", **{str(i + 3): f"layer{i}" for i in range(1, 5)}},
        # RadImageNet's Keras weights in PyTorch keep their biases.
        biased_variant="v1",
    ),
    native_input="caffe",
    released="ResNet50",
    parameters=23_587_712,
    imagenet_md5="4d473c1dd8becc155b73f8504c6f6626",
    imagenet_top_md5="2cb95161c43110f7111970584f804107",
    radimagenet_sha256="1f1d1c9fe6ab6980daa5e528145fe0db249c55415f8b3e1f3e3b1624d184f159",
    # One block a stage: compiling the whole network would take most of the time.
    small={"stage_sizes": (1, 1, 1, 1), "width": 16},
)
