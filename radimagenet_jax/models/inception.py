"""What the two Inception networks share: blocks of branches, written down once as data.

From the same data follow the Linen modules and the order in which Keras lists its layers.
In both networks every convolution of a branch is followed by a BatchNorm without gamma and a
ReLU, and whatever has stride 2 is 'VALID'.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import linen as nn

from radimagenet_jax.models import ops
from radimagenet_jax.models.layers import Layers, block_output, relu
from radimagenet_jax.models.network import KerasLayer
from radimagenet_jax.models.ops.pooling import max_pool, smooth

EPSILON = 1e-3
MIN_IMAGE_SIZE = 75


@dataclass(frozen=True)
class Unit:
    """A convolution, a BatchNorm and a ReLU.

    Attributes:
      features: Output channels of the published width.
      kernel: (height, width).
      stride: Of both sides.
      padding: 'SAME' or 'VALID'.
    """

    features: int
    kernel: tuple[int, int]
    stride: int
    padding: str


@dataclass(frozen=True)
class Pool:
    """A pool over 3x3 windows: 'average' of stride 1 and 'SAME', or 'max' of stride 2.

    Attributes:
      kind: 'average' or 'max'.
      count_padding: Whether an average counts the padding, as PyTorch's does.
    """

    kind: str
    count_padding: bool = False


@dataclass(frozen=True)
class Fork:
    """Units side by side whose results are concatenated.

    Attributes:
      ways: The units.
      keras_name: Of the concatenation, None if Keras names it automatically.
    """

    ways: tuple[Unit, ...]
    keras_name: str | None = None


Steps = tuple[Unit | Pool | Fork, ...]
Branches = tuple[tuple[str, Steps], ...]  # (name, steps), in the order of concatenation


def unit(
    features: int, kernel: int | tuple[int, int] = 1, *, stride: int = 1, padding: str = ""
) -> Unit:
    """Writes a `Unit`; padding is by default what its stride implies."""
    sides = (kernel, kernel) if isinstance(kernel, int) else kernel
    return Unit(features, sides, stride, padding or ("SAME" if stride == 1 else "VALID"))


AVERAGE, MAX = Pool("average"), Pool("max")
TORCH_AVERAGE = Pool("average", count_padding=True)

# Both networks begin alike (TF-Slim's Conv2d_1a to 4a and its two pools).
STEM: Steps = (
    unit(32, 3, stride=2),
    unit(32, 3, padding="VALID"),
    unit(64, 3),
    MAX,
    unit(80),
    unit(192, 3, padding="VALID"),
    MAX,
)


def _numbered(steps: Steps) -> Iterator[tuple[str, Unit | Pool | Fork]]:
    """Steps with the number that their layers' names end in; pools have none."""
    number = 0
    for step in steps:
        if isinstance(step, Pool):
            yield "", step
        else:
            number += 1
            yield str(number), step


def _lettered(fork: Fork, number: str) -> Iterator[tuple[str, Unit]]:
    for letter, way in zip("abcdef", fork.ways, strict=False):
        yield number + letter, way


class Branch(nn.Module):
    """Units and pools in a row; layers are named 'conv1', 'bn1', ..., in a fork 'conv2a'.

    Attributes:
      steps: What it consists of.
      width: Factor of all channels.
    """

    steps: Steps
    width: float

    @nn.compact
    def __call__(self, x: jax.Array, layers: Layers) -> jax.Array:
        """Maps x (N, H, W, C) to (N, H', W', C')."""

        def apply(y: jax.Array, one: Unit, number: str) -> jax.Array:
            how = {"stride": one.stride, "padding": one.padding, "use_bias": False}
            names = (f"conv{number}", f"bn{number}")
            features = scaled(one.features, self.width)
            return relu(layers.conv_norm(y, names, features, one.kernel, **how))

        for number, step in _numbered(self.steps):
            if isinstance(step, Unit):
                x = apply(x, step, number)
            elif isinstance(step, Fork):
                ways = [apply(x, way, label) for label, way in _lettered(step, number)]
                x = _side_by_side(*ways)
            else:
                x = _pool(x, step)
        return x


def _pool(x: jax.Array, pool: Pool) -> jax.Array:
    if pool.kind == "max":
        return max_pool(x, 3, 2)
    return smooth(x, count_padding=pool.count_padding)


class Mixed(nn.Module):
    """Branches over the same input, concatenated.

    Attributes:
      branches: By name.
      width: Factor of all channels.
    """

    branches: Branches
    width: float

    @nn.compact
    def __call__(self, x: jax.Array, layers: Layers) -> jax.Array:
        """Maps x (N, H, W, C) to (N, H', W', C')."""
        return concatenated(self.branches, x, layers, self.width)


def concatenated(branches: Branches, x: jax.Array, layers: Layers, width: float) -> jax.Array:
    """Runs branches over x, as submodules of the block that calls it."""
    results = [Branch(steps, width, name=name)(x, layers) for name, steps in branches]
    return block_output(_side_by_side(*results))


@ops.traced_once
def _side_by_side(*parts: jax.Array) -> jax.Array:
    return jnp.concatenate(parts, -1)


def scaled(features: int, width: float) -> int:
    """Channels at a width, at least one."""
    return max(1, round(features * width))


# Layers at each distance from the end of a block, the farthest first.
Levels = list[list[KerasLayer]]


class KerasOrder:
    """Gives layers the names and the order that Keras gives them.

    Keras counts automatic names in the order in which layers are made, but lists layers by
    their greatest distance from the output, and at equal distance in the order in which a
    depth-first walk back from the output finds them: that of the branches.
    """

    def __init__(self) -> None:
        self._made: Counter[str] = Counter()

    def layer(self, kind: str, path: str | None = None) -> KerasLayer:
        """Makes an automatically named layer, such as 'conv2d_7'."""
        number = self._made[kind]
        self._made[kind] += 1
        role = {"conv2d": "conv", "batch_normalization": "batch_norm"}.get(kind, "other")
        return KerasLayer(f"{kind}_{number}" if number else kind, path, role)

    def steps(self, steps: Steps, scope: str) -> Levels:
        """Makes the layers of a branch."""
        levels: Levels = []
        for number, step in _numbered(steps):
            if isinstance(step, Unit):
                levels += self._unit(scope, number)
            elif isinstance(step, Fork):
                ways = [self._unit(scope, label) for label, _ in _lettered(step, number)]
                levels += _aligned(ways)
                levels.append([self._concatenation(step.keras_name)])
            else:
                levels.append([self.layer(f"{step.kind}_pooling2d")])
        return levels

    def block(self, branches: Branches, scope: str, keras_name: str) -> Levels:
        """Makes the layers of a block of branches and their concatenation."""
        made = [self.steps(steps, f"{scope}/{name}") for name, steps in branches]
        return [*_aligned(made), [self._concatenation(keras_name)]]

    def _unit(self, scope: str, number: str) -> Levels:
        return [
            [self.layer("conv2d", f"{scope}/conv{number}")],
            [self.layer("batch_normalization", f"{scope}/bn{number}")],
            [self.layer("activation")],
        ]

    def _concatenation(self, name: str | None) -> KerasLayer:
        return KerasLayer(name) if name else self.layer("concatenate")


def _aligned(branches: list[Levels]) -> Levels:
    """Puts side by side what is equally far from the ends of parallel branches."""
    longest = max(map(len, branches))
    aligned: Levels = [[] for _ in range(longest)]
    for branch in branches:
        for level, layers in zip(aligned[longest - len(branch) :], branch, strict=True):
            level += layers
    return aligned
