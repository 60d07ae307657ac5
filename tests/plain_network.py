"""Networks without BatchNorm, one a sibling of the other, as somebody would add them.

RADIMAGENET_NETWORKS=tests.plain_network python -m radimagenet_jax.predict ...
"""

from collections.abc import Iterator
from typing import ClassVar

import jax
from flax import linen as nn

from radimagenet_jax import models
from radimagenet_jax.models.layers import Layers, block_output, relu
from radimagenet_jax.models.ops.pooling import halve


class Block(nn.Module):
    """Convolutions, then an average of each two by two."""

    features: int
    count: int

    @nn.compact
    def __call__(self, x: jax.Array, layers: Layers) -> jax.Array:
        for j in range(self.count):
            x = relu(layers.conv(x, f"conv{j + 1}", self.features, 3, padding="SAME"))
        return block_output(halve(x))


class Plain(models.Network):
    """Two blocks."""

    min_image_size = 16
    limits: ClassVar[dict[str, tuple[int, int]]] = {"depths": (1, 8)}

    depths: tuple[int, ...] = (1, 2)

    def blocks(self, x: jax.Array, layers: Layers) -> dict[str, jax.Array]:
        out = {}
        for i, count in enumerate(self.depths):
            name = f"block{i + 1}"
            x = out[name] = Block(8 * 2**i, count, name=name)(x, layers)
        return out | {"spatial": x}


class Deeper(Plain):
    """The same with a convolution more, and all names of the other."""

    depths: tuple[int, ...] = (1, 3)


def _keras_layers(depths: tuple[int, ...]) -> Iterator[models.KerasLayer]:
    yield models.KerasLayer("input")
    for i, count in enumerate(depths, start=1):
        for j in range(1, count + 1):
            yield models.KerasLayer(f"block{i}_conv{j}", f"block{i}/conv{j}", "conv")
        yield models.KerasLayer(f"block{i}_pool", within=f"block{i}")
    yield models.KerasLayer("avg_pool")


def _architecture(build: type[Plain]) -> models.Architecture:
    return models.Architecture(
        name=build.__name__.lower(),
        build=build,
        keras_layers=lambda: tuple(_keras_layers(build.depths)),
        torch=models.TorchNames(variant="", module=lambda path: path.replace("/", ".")),
        small={"depths": (1, 1)},
    )


NETWORKS = tuple(map(_architecture, (Plain, Deeper)))
for one in NETWORKS:
    models.register(one)
