"""The networks, with Keras' numerics, as Flax Linen modules.

    from radimagenet_jax.models import ResNet50

needs nothing but jax and flax. A new network is one file in this folder with an `ARCHITECTURE`, or
one of your own that `register` makes known.
"""

import functools
import importlib
import pkgutil
from typing import Any

from radimagenet_jax.models.densenet import DenseNet121
from radimagenet_jax.models.inception_resnet_v2 import InceptionResNetV2
from radimagenet_jax.models.inception_v3 import InceptionV3
from radimagenet_jax.models.network import (
    Architecture,
    KerasLayer,
    Network,
    TorchNames,
    variable_shapes,
)
from radimagenet_jax.models.resnet import ResNet50

__all__ = [
    "Architecture",
    "DenseNet121",
    "InceptionResNetV2",
    "InceptionV3",
    "KerasLayer",
    "Network",
    "ResNet50",
    "TorchNames",
    "architecture",
    "create",
    "names",
    "register",
    "variable_shapes",
]


@functools.cache
def _architectures() -> dict[str, Architecture]:
    modules = (
        importlib.import_module(f"{__name__}.{found.name}")
        for found in pkgutil.iter_modules(__path__)
    )
    found = (getattr(module, "ARCHITECTURE", None) for module in modules)
    return {entry.name: entry for entry in found if entry is not None}


def register(entry: Architecture) -> None:
    """Makes a network of your own known by its name, in this process.

    Args:
      entry: What is known of it; registering the same again changes nothing.

    Raises:
      ValueError: If another network has the name.
    """
    if _architectures().setdefault(entry.name, entry) != entry:
        raise ValueError(f"there is another network {entry.name!r}; choose another name.")


def names() -> tuple[str, ...]:
    """Names of all networks, sorted."""
    return tuple(sorted(_architectures()))


def architecture(name: str) -> Architecture:
    """What is known of a network.

    Raises:
      ValueError: If there is no such network.
    """
    if name not in _architectures():
        raise ValueError(f"there is no network {name!r}; there are {', '.join(names())}.")
    return _architectures()[name]


def create(name: str, *, variant: str = "", **fields: Any) -> Network:
    """Makes a network by its name.

    Args:
      name: One of `names()`.
      variant: One of its variants; '' for its default.
      **fields: Further ones of its class.

    Raises:
      ValueError: If there is no such network.
    """
    if variant:
        fields["variant"] = variant
    return architecture(name).build(**fields)
