"""What all networks have in common, and what is known of each.

A network is one page: a `Network` that says what its blocks are, and an `ARCHITECTURE` with what
the rest of the package has to know of it. Pages in this folder are found by themselves; one of your
own is made known by `radimagenet_jax.models.register`.
"""

import functools
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import traverse_util

from radimagenet_jax.models.layers import Head, Layers
from radimagenet_jax.models.preprocess import PUBLISHED

# Fields that every network has and that whoever makes one gives it.
_NOT_OPTIONS = frozenset(
    ("parent", "name", "num_classes", "dropout", "head_init", "dtype", "bn_momentum")
) | {"frozen_stats", "stats_groups", "precision"}

HEAD = "head"


class Network(nn.Module):
    """A convolutional network with named intermediates, and a head if it has classes.

    A subclass adds its own fields, sets the class variables and answers `blocks`.

    Attributes:
      num_classes: Of the head; None for none.
      dropout: Before the head, in training.
      variant: A key of `epsilons`; '' where there is only one.
      head_init: 'glorot_uniform' or 'zeros'.
      dtype: Of the computation; parameters and statistics are float32.
      frozen_stats: Names of BatchNorm layers that stay in inference mode in training.
      bn_momentum: Of the moving statistics.
      bessel_correction: See `layers.BatchNorm`.
      stats_groups: See `layers.BatchNorm`.
      precision: Of products in float32, a key of `layers.PRECISIONS`.
    """

    # Variants, the default first, with the epsilon of their BatchNorms.
    epsilons: ClassVar[Mapping[str, float]] = {"": 1e-3}
    # Variants whose BatchNorms have no gamma.
    without_scale: ClassVar[tuple[str, ...]] = ()
    # Smallest side of an image in pixels: with less, strides leave nothing.
    min_image_size: ClassVar[int] = 1
    # Of own fields that hold whole numbers or one number: the smallest and the largest that make
    # sense, of each of several; or such a pair for each of them.
    limits: ClassVar[Mapping[str, tuple[Any, ...]]] = {}

    num_classes: int | None = None
    dropout: float = 0.0
    variant: str = ""
    head_init: str = "glorot_uniform"
    dtype: Any = jnp.float32
    frozen_stats: frozenset[str] = frozenset()
    bn_momentum: float = 0.99
    bessel_correction: bool = True
    stats_groups: int = 1
    precision: str = "highest"

    def blocks(self, x: jax.Array, layers: Layers) -> dict[str, jax.Array]:
        """Applies the network up to its last activations.

        Args:
          x: (N, H, W, 3) preprocessed images.
          layers: Makes the layers.

        Returns:
          The output of each block by its name, and that of the last as 'spatial' (N, h, w, C).
        """
        raise TypeError(f"{type(self).__name__} does not say what its blocks are.")

    @nn.compact
    def __call__(
        self, x: jax.Array, *, train: bool = False, mask: jax.Array | None = None
    ) -> tuple[jax.Array | None, dict[str, jax.Array]]:
        """Applies the network.

        Args:
          x: (N, H, W, 3) preprocessed images, at least `min_image_size` pixels a side.
          train: Batch statistics and dropout (rng 'dropout') instead of inference.
          mask: (N,), 0 for padding, which then counts in no batch statistic.

        Returns:
          Logits (N, num_classes) float32 or None, and the intermediates: each block's by its name,
          'spatial' (N, h, w, C), 'pooled' (N, C) float32, 'logits'.

        Raises:
          ValueError: If the images are too small or the variant is unknown.
        """
        title, smallest = type(self).__name__, self.min_image_size
        if x.ndim != 4 or x.shape[-1] != 3 or min(x.shape[1:3]) < smallest:
            raise ValueError(
                f"{title} takes images (N, H, W, 3) of at least {smallest} pixels a side, "
                f"not {x.shape}."
            )
        if self.variant not in self.epsilons:
            known = ", ".join(map(repr, self.epsilons))
            raise ValueError(f"{title} has the variants {known}, not {self.variant!r}.")
        layers = Layers(
            dtype=self.dtype,
            train=train,
            frozen=self.frozen_stats,
            mask=mask,
            norm_fields={
                "epsilon": self.epsilons[self.variant],
                "momentum": self.bn_momentum,
                "use_scale": self.variant not in self.without_scale,
                "bessel_correction": self.bessel_correction,
                "stats_groups": self.stats_groups,
            },
            precision=self.precision,
            depth=len(self.path),
        )
        out = self.blocks(x, layers)
        out["pooled"] = jnp.mean(out["spatial"], axis=(1, 2), dtype=jnp.float32)
        if self.num_classes is None:
            return None, out
        head = Head(self.num_classes, self.dropout, self.head_init, name=HEAD)
        out["logits"] = head(out["pooled"], train=train)
        return out["logits"], out


@dataclass(frozen=True)
class KerasLayer:
    """One layer object of the Keras network, in the order of Keras' `base.layers`.

    Attributes:
      name: Keras 3's name of the layer. For layers that Keras names automatically, the name in a
        fresh process, such as 'conv2d_17': only the rank of its number among its kind means
        something.
      path: Our layer's name, such as 'stage4_block3/bn1', or None if it has no variables.
      kind: 'conv', 'batch_norm' or 'other'.
      within: Of a layer without variables, the name of our block that it belongs to; '' where that
        is the one of the layer before it.
    """

    name: str
    path: str | None = None
    kind: str = "other"
    within: str = ""


@dataclass(frozen=True)
class TorchNames:
    """How PyTorch's networks are called and built.

    Attributes:
      variant: Ours that computes as PyTorch's does.
      module: PyTorch's name of the module at our path, such as 'layer1.0.conv1' at
        'stage1_block1/conv1'.
      children: Names of the network's children by their number in a `Sequential` of them; '' for
        one whose own children are meant.
      biased_variant: Ours, of files whose convolutions have biases; None if there are none.
    """

    variant: str
    module: Callable[[str], str]
    children: Mapping[str, str] = field(default_factory=dict)
    biased_variant: str | None = None


class Size(NamedTuple):
    """How large a network is without its head.

    Attributes:
      layers: With parameters or statistics.
      parameters: As Keras counts them, with the moving statistics.
    """

    layers: int
    parameters: int


@dataclass(frozen=True)
class Architecture:
    """What the rest of the package has to know of a network.

    Attributes:
      name: What configs call it, such as 'resnet50'.
      build: The network's class.
      keras_layers: All layer objects of the headless Keras network with its global average
        pooling, in Keras' order; none where Keras has no such network.
      keras_lambdas: An expression for the names of the layers that Keras 2 saved as Lambdas.
      keras_strides: Strides by which Keras' network differs from others of the same shapes, by
        the name of the layer.
      torch: PyTorch's names; None where no file has any.
      native_input: The scheme that `preprocess_input` of keras.applications applies for it.
      released: What RadImageNet's files call it, in RadImageNet-<released>_notop.h5.
      imagenet_md5: Of Keras' own ImageNet file without its top.
      imagenet_top_md5: Of the one with its top.
      radimagenet_sha256: Of RadImageNet's file, as third parties report it.
      parameters: Of Keras' network without its top, as `count_params()` has them; 0 where they are
        to be counted.
      small: Fields of its class that make it one of seconds, for first experiments and tests.
    """

    name: str
    build: type[Network]
    keras_layers: Callable[[], tuple[KerasLayer, ...]] = tuple
    keras_lambdas: str = ""
    keras_strides: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    torch: TorchNames | None = None
    native_input: str = PUBLISHED
    released: str = ""
    imagenet_md5: str = ""
    imagenet_top_md5: str = ""
    radimagenet_sha256: str = ""
    parameters: int = 0
    small: Mapping[str, Any] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """What people call it, such as 'ResNet50'."""
        return self.build.__name__

    @property
    def variants(self) -> tuple[str, ...]:
        """Values of the network's `variant`, the default first."""
        return tuple(self.build.epsilons)

    @property
    def min_image_size(self) -> int:
        """Smallest side of an image, in pixels."""
        return self.build.min_image_size

    def layers(self, network: Network, image_size: int) -> tuple[KerasLayer, ...]:
        """The layers of a network of this architecture, in their order, the head left out.

        Args:
          network: One that may be smaller or larger than the published one.
          image_size: Side of its square input, in pixels.

        Returns:
          Keras' layers, if they name all layers of the network, without those of blocks that it
          has not; else those with variables in the order in which the network makes them.
        """
        own = [name for name in _sizes(network, image_size) if name != HEAD]
        return self.keras_layers_of(own) or tuple(KerasLayer(name, name) for name in own)

    def keras_layers_of(self, names: Collection[str]) -> tuple[KerasLayer, ...]:
        """Keras' layers of a network that may be shallower than the published one.

        Args:
          names: Of all its layers with variables, the head left out.

        Returns:
          The layers, without those of blocks that it has not; none if Keras lacks one of the names.
        """
        layers, own = self.keras_layers(), set(names)
        if not own <= {layer.path for layer in layers}:
            return ()
        *inner, pooling = layers
        blocks = {name.partition("/")[0] for name in own}
        found, is_there = [], True
        for layer in inner:
            if layer.within:
                is_there = layer.within in blocks
            elif layer.path is not None:
                is_there = layer.path in own
            # Else it is an activation or a sum, which goes with the layer before it.
            if is_there:
                found.append(layer)
        return (*found, pooling)

    @property
    def options(self) -> dict[str, Any]:
        """The fields that networks of this class differ by, with the values of the published."""
        return {
            each.name: each.default for each in fields(self.build) if each.name not in _NOT_OPTIONS
        }

    def size(self, network: Network) -> Size:
        """How large a network of this architecture is, its head left out."""
        if self.parameters and network == self.build(num_classes=network.num_classes):
            layers = sum(layer.path is not None for layer in self.keras_layers())
            return Size(layers, self.parameters)  # which tracing it would take a second to find
        sizes = _sizes(network, self.min_image_size)
        own = [size for name, size in sizes.items() if name != HEAD]
        return Size(len(own), sum(own))


def variable_shapes(network: nn.Module, image_size: int) -> dict[str, Any]:
    """Shapes and dtypes of a network's variables, without computing anything.

    Args:
      network: It takes images.
      image_size: Side of its square input, in pixels.

    Returns:
      {'params', 'batch_stats'}, nested by layer.
    """
    return _traced(network, image_size, _whole)


def nested(leaves: Mapping[str, Any]) -> dict[str, Any]:
    """{'params', 'batch_stats'} of leaves by their whole names; either may be empty."""
    return _whole(traverse_util.unflatten_dict(dict(leaves), sep="/"))


def _whole(variables: Mapping[str, Any]) -> dict[str, Any]:
    """The same with both collections: Flax leaves out one that has nothing in it."""
    return {"params": {}, "batch_stats": {}, **variables}


@functools.lru_cache(maxsize=32)  # a study asks for each group, and tracing takes up to seconds
def _sizes(network: Network, image_size: int) -> Mapping[str, int]:
    """How many numbers each layer with variables has, in the order of the network."""
    found: dict[str, int] = {}

    def record(variables: Mapping[str, Any]) -> None:
        # Here the variables are in the order in which they were made; a tree that leaves a
        # transformation of JAX is sorted.
        for collection in ("params", "batch_stats"):
            leaves = traverse_util.flatten_dict(variables.get(collection, {}), sep="/")
            for name, leaf in leaves.items():
                layer = name.rpartition("/")[0]
                found[layer] = found.get(layer, 0) + leaf.size

    _traced(network, image_size, record)
    return found


def _traced(network: nn.Module, image_size: int, seen: Callable[[Mapping[str, Any]], Any]) -> Any:
    """Shapes of what a function makes of a network's first variables."""
    images = jax.ShapeDtypeStruct((1, image_size, image_size, 3), jnp.float32)
    return jax.eval_shape(lambda x: seen(network.init(jax.random.key(0), x, train=False)), images)
