"""DenseNet121 (Huang et al. 2016, arXiv:1608.06993), as Keras builds it.

The variant 'torch' is torchvision's, which differs in BatchNorm's epsilon alone.
"""

import re
from collections.abc import Iterator
from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import linen as nn

from radimagenet_jax.models.layers import Layers, block_output, relu
from radimagenet_jax.models.network import Architecture, KerasLayer, Network, TorchNames
from radimagenet_jax.models.ops.pooling import halve, max_pool

_BLOCK_SIZES = (6, 12, 24, 16)
_PAD_1 = ((1, 1), (1, 1))
_PAD_3 = ((3, 3), (3, 3))


class Stem(nn.Module):
    """7x7 convolution of stride 2, BatchNorm, ReLU, and a max pool of stride 2."""

    width: int

    @nn.compact
    def __call__(self, x: jax.Array, layers: Layers) -> jax.Array:
        """Maps x (N, H, W, 3) to (N, H / 4, W / 4, width)."""
        y = layers.conv_norm(
            x, ("conv", "bn"), self.width, 7, stride=2, padding=_PAD_3, use_bias=False
        )
        # Padded with zeros as Keras does it; after a ReLU that equals padding with -inf.
        return max_pool(relu(y), 3, 2, _PAD_1)


class DenseBlock(nn.Module):
    """BatchNorm, ReLU, 1x1; BatchNorm, ReLU, 3x3; the result is appended to the input.

    Attributes:
      growth: Channels appended; the 1x1 convolution has four times as many.
    """

    growth: int

    @nn.compact
    def __call__(self, x: jax.Array, layers: Layers) -> jax.Array:
        """Maps x (N, H, W, C) to (N, H, W, C + growth)."""
        y = relu(layers.norm(x, "bn1"))
        y = layers.conv(y, "conv1", 4 * self.growth, use_bias=False)
        y = relu(layers.norm(y, "bn2"))
        y = layers.conv(y, "conv2", self.growth, 3, padding=_PAD_1, use_bias=False)
        return block_output(jnp.concatenate([x, y], -1))


class Transition(nn.Module):
    """BatchNorm, ReLU, a 1x1 convolution to half the channels, a 2x2 average pool."""

    @nn.compact
    def __call__(self, x: jax.Array, layers: Layers) -> jax.Array:
        """Maps x (N, H, W, C) to (N, H // 2, W // 2, C // 2)."""
        y = relu(layers.norm(x, "bn"))
        return halve(layers.conv(y, "conv", x.shape[-1] // 2, use_bias=False))


class DenseNet121(Network):
    """DenseNet121; intermediates are 'stem', each 'stage<i>_block<j>' and 'transition<i>'.

    Attributes:
      variant: '' (Keras) or 'torch' (torchvision).
      block_sizes: Dense blocks per stage.
      growth: Channels that each block appends.
      width: Channels of the stem.
    """

    epsilons: ClassVar[dict[str, float]] = {"": 1.001e-5, "torch": 1e-5}
    min_image_size = 32
    limits: ClassVar[dict[str, tuple[int, int]]] = {
        "block_sizes": (1, 64),
        "growth": (1, 512),
        "width": (1, 1024),
    }

    block_sizes: tuple[int, ...] = _BLOCK_SIZES
    growth: int = 32
    width: int = 64

    def blocks(self, x: jax.Array, layers: Layers) -> dict[str, jax.Array]:
        """See `Network`."""
        out = {}
        y = out["stem"] = Stem(self.width, name="stem")(x, layers)
        for i, blocks in enumerate(self.block_sizes, start=1):
            for j in range(1, blocks + 1):
                name = f"stage{i}_block{j}"
                y = out[name] = DenseBlock(self.growth, name=name)(y, layers)
            if i < len(self.block_sizes):
                name = f"transition{i}"
                y = out[name] = Transition(name=name)(y, layers)
        return out | {"spatial": relu(layers.norm(y, "final_bn"))}


def _keras_layers() -> Iterator[KerasLayer]:
    """Layers of keras.applications.DenseNet121, in the order of `base.layers`.

    The network is a chain but for the concatenations, so that the order is that of the layers.
    """

    def bn_relu(name: str, ours: str) -> Iterator[KerasLayer]:
        yield KerasLayer(f"{name}bn", ours, "batch_norm")
        yield KerasLayer(f"{name}relu")

    yield KerasLayer("input_layer")
    yield KerasLayer("zero_padding2d")
    yield KerasLayer("conv1_conv", "stem/conv", "conv")
    yield from bn_relu("conv1_", "stem/bn")
    yield KerasLayer("zero_padding2d_1")
    yield KerasLayer("pool1")
    for stage, blocks in enumerate(_BLOCK_SIZES, start=1):
        for block in range(1, blocks + 1):
            keras, ours = f"conv{stage + 1}_block{block}_", f"stage{stage}_block{block}/"
            yield from bn_relu(f"{keras}0_", f"{ours}bn1")
            yield KerasLayer(f"{keras}1_conv", f"{ours}conv1", "conv")
            yield from bn_relu(f"{keras}1_", f"{ours}bn2")
            yield KerasLayer(f"{keras}2_conv", f"{ours}conv2", "conv")
            yield KerasLayer(f"{keras}concat")
        if stage < len(_BLOCK_SIZES):
            keras, ours = f"pool{stage + 1}_", f"transition{stage}/"
            yield from bn_relu(keras, f"{ours}bn")
            yield KerasLayer(f"{keras}conv", f"{ours}conv", "conv")
            yield KerasLayer(f"{keras}pool")
    yield from bn_relu("", "final_bn")
    yield KerasLayer("avg_pool")


def _torch_module(path: str) -> str:
    """Torchvision's name of the module at our path."""
    block, _, layer = path.partition("/")
    if block == "final_bn":
        return "norm5"
    layer = layer.replace("bn", "norm")
    if block == "stem":
        return f"{layer}0"
    if block.startswith("transition"):
        return f"{block}.{layer}"
    stage, number = re.findall(r"\d+", block)
    return f"denseblock{stage}.denselayer{number}.{layer}"


ARCHITECTURE = Architecture(
    name="densenet121",
    build=DenseNet121,
    keras_layers=lambda: tuple(_keras_layers()),
    torch=TorchNames(variant="torch", module=_torch_module, children={"0": "", "features": ""}),
    native_input="torch",
    released="DenseNet121",
    parameters=7_037_504,
    imagenet_md5="30ee3e1110167f948a6b9946edeeb738",
    imagenet_top_md5="9d60b8095a5708f2dcce2bca79d332c7",
    small={"block_sizes": (1, 1, 1, 1), "growth": 8, "width": 16},
)
