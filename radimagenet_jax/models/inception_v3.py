"""InceptionV3 (Szegedy et al. 2015, arXiv:1512.00567), as Keras builds it, no auxiliary head.

The variant 'torch' is torchvision's: BatchNorm has a gamma, and the average pools count their
padding. It has more parameters, but kernels of the same shapes.

Blocks have TF-Slim's names, 'mixed5b' to 'mixed7c', which Keras counts as mixed0 to mixed10.
"""

import re
from collections.abc import Iterator
from typing import Any, ClassVar

import jax

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
from radimagenet_jax.models.layers import Layers
from radimagenet_jax.models.network import Architecture, KerasLayer, Network, TorchNames

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


class InceptionV3(Network):
    """InceptionV3; intermediates are 'stem' and each 'mixed<level><letter>'.

    Attributes:
      variant: '' (Keras) or 'torch' (torchvision).
      repeats: How many of the blocks mixed5b.., mixed6b.. and mixed7b.. there are.
      width: Factor of all channels.
    """

    epsilons: ClassVar[dict[str, float]] = {"": EPSILON, "torch": EPSILON}
    without_scale = ("",)
    min_image_size = MIN_IMAGE_SIZE
    limits: ClassVar[dict[str, tuple[Any, ...]]] = {
        "repeats": ((1, 3), (1, 4), (1, 2)),
        "width": (0.01, 8.0),
    }

    repeats: tuple[int, ...] = _REPEATS
    width: float = 1.0

    def blocks(self, x: jax.Array, layers: Layers) -> dict[str, jax.Array]:
        """See `Network`."""
        average = TORCH_AVERAGE if self.variant == "torch" else AVERAGE
        out = {}
        y = out["stem"] = Branch(STEM, self.width, name="stem")(x, layers)
        for name, branches in _blocks(self.repeats, average):
            y = out[name] = Mixed(branches, self.width, name=name)(y, layers)
        return out | {"spatial": y}


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


_TORCH_STEM = tuple(f"Conv2d_{unit}" for unit in ("1a_3x3", "2a_3x3", "2b_3x3", "3b_1x1", "4a_3x3"))
_TORCH_BLOCKS = ("5b", "5c", "5d", "6a", "6b", "6c", "6d", "6e", "7a", "7b", "7c")


def _torch_module(path: str) -> str:
    """Torchvision's name of the module at our path."""
    block, _, layer = path.partition("/")
    branch, _, name = layer.rpartition("/")
    kind, label = re.split(r"(?<=[a-z])(?=\d)", name, maxsplit=1)  # 'conv', '2a'
    if block == "stem":
        return f"{_TORCH_STEM[int(label) - 1]}.{kind}"
    module = f"{block.replace('mixed', 'Mixed_')}.{branch}"
    steps = dict(dict(_blocks(_REPEATS)).get(block, ())).get(branch, ())
    # torchvision numbers the units of a branch only where there are several.
    several = sum(not isinstance(step, Pool) for step in steps) > 1
    return f"{module}_{label}.{kind}" if several else f"{module}.{kind}"


ARCHITECTURE = Architecture(
    name="inception_v3",
    build=InceptionV3,
    keras_layers=lambda: tuple(_keras_layers()),
    torch=TorchNames(
        variant="torch",
        module=_torch_module,
        # Pools have numbers too; RadImageNet's network was built without its auxiliary head.
        children={
            **dict(zip("01245", _TORCH_STEM, strict=True)),
            **{str(number + 7): f"Mixed_{block}" for number, block in enumerate(_TORCH_BLOCKS)},
        },
    ),
    native_input="tf",
    released="InceptionV3",
    parameters=21_802_784,
    imagenet_md5="bcbd6486424b2319ff4ef7d526e38f63",
    imagenet_top_md5="9a0d58056eeedaa3f26cb7ebd46da564",
    small={"repeats": (1, 1, 1), "width": 0.25},
)
