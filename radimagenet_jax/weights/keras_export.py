"""Writes weights as an HDF5 file that Keras loads, so that nobody is locked in.

The file has the layout of Keras' `save_weights('.h5')`, with layers in the order of
`model.layers`, which is how `load_weights` matches them:

    keras.applications.ResNet50(weights=FILE, include_top=False, pooling='avg')

For a network with a head, build the same model as the published scripts do and load the
file into it: base, Dropout, `Dense(classes, activation='softmax', name='predictions')`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from radimagenet_jax import models
from radimagenet_jax.errors import WeightsError
from radimagenet_jax.weights import keras_layers, seal
from radimagenet_jax.weights.assembly import require_published
from radimagenet_jax.weights.contract import Contract
from radimagenet_jax.weights.keras_h5 import CONTRACT_ATTRIBUTE

# The version whose layout this is, and which wrote the released files.
_LAYOUT_OF = b"2.4.0"


def write(path: Path, variables: Mapping[str, Any], contract: Contract) -> None:
    """Writes a Keras weights file.

    Args:
      path: The file; it must not exist, and Keras wants its name to end in '.h5'.
      variables: {'params', 'batch_stats'}, float32, with a head if the contract has labels.
      contract: What they are; it goes into the file as an attribute.

    Raises:
      WeightsError: If Keras has no such network, the variables are not those of the
        published network, or the file exists or cannot be written. Nothing is left behind.
    """
    entry = models.architecture(contract.architecture)
    if not entry.keras_layers():
        raise WeightsError(f"Keras has no {entry.title}; convert to our form instead.")
    if contract.variant != entry.variants[0]:
        raise WeightsError(
            f"Keras has no {entry.title} of the variant {contract.variant!r}: its strides, epsilon "
            "or padding differ, so that Keras would compute other features; convert to our form "
            "instead."
        )
    if path.suffix != ".h5" or path.name.endswith(".weights.h5"):
        raise WeightsError(
            f"{path} must end in '.h5' but not in '.weights.h5', by which Keras tells the layouts "
            "apart; choose such a name."
        )
    if path.exists():
        raise WeightsError(f"{path} exists already; remove it, or choose another name.")
    leaves = require_published(variables, contract)
    rows = keras_layers.table(entry, with_head=contract.labels is not None)
    layers: dict[str, dict[str, Any]] = {layer.name: {} for layer in rows}
    for rule in map(keras_layers.rules(rows), leaves):
        layer, role = rule.source.rsplit("/", 1)
        layers[layer][role] = leaves[rule.target]

    temporary = path.with_name(f".{path.name}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with h5py.File(temporary, "w") as file:
            file.attrs["keras_version"] = _LAYOUT_OF
            file.attrs["backend"] = b"tensorflow"
            file.attrs[CONTRACT_ATTRIBUTE] = seal.sealed(contract, leaves)
            file.attrs["layer_names"] = np.array([name.encode() for name in layers])
            for name, roles in layers.items():
                _write_layer(file.create_group(name), name, roles)
        temporary.rename(path)
    except (OSError, RuntimeError) as error:
        raise WeightsError(
            f"{path} cannot be written ({error}); make room or choose another place."
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


def _write_layer(group: h5py.Group, name: str, roles: Mapping[str, Any]) -> None:
    ordered = [role for role in keras_layers.ROLE_ORDER if role in roles]
    names = [f"{name}/{role}:0" for role in ordered]
    group.attrs["weight_names"] = np.array([entry.encode() for entry in names], "S")
    for entry, role in zip(names, ordered, strict=True):
        group.create_dataset(entry, data=np.asarray(roles[role], np.float32))
