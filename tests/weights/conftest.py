"""Weight files in their true layouts."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from radimagenet_jax import models
from radimagenet_jax.weights.assembly import expected_shapes
from radimagenet_jax.weights.keras_layers import rules


@dataclass(frozen=True)
class Hollow:
    """A tensor of ones that takes no room in the file, for tests that need no numbers."""

    shape: tuple[int, ...]
    dtype: str = "float32"
    fill: float = 1.0


# (layer, {role: values}) in the order of `model.layers`, layers without weights included.
Layers = list[tuple[str, dict[str, Any]]]


@pytest.fixture(scope="session")
def hollow_layers() -> Callable[[str], Layers]:
    """The layers of a network with tensors of ones that take no room."""

    def get(name: str) -> Layers:
        entry = models.architecture(name)
        table = entry.keras_layers()
        shapes = expected_shapes(name, entry.variants[0] if entry.variants else "")
        roles: dict[str, dict[str, Any]] = {layer.name: {} for layer in table}
        for rule in rules(table, shapes):
            layer, role = rule.source.rsplit("/", 1)
            roles[layer][role] = Hollow(shapes[rule.target])
        return list(roles.items())

    return get


@pytest.fixture(scope="session")
def write_keras_2() -> Callable[..., Path]:
    """Writes the HDF5 layout of Keras 2.4, the version of the released files."""
    return _write_keras_2


def _write_keras_2(
    path: Path,
    layers: Layers,
    *,
    full: bool = True,
    config: dict[str, Any] | None = None,
    suffix: str = ":0",
) -> Path:
    with h5py.File(path, "w") as file:
        top = file
        if full:
            described = config or {
                "class_name": "Functional",
                "config": {
                    "name": "model",
                    "layers": [
                        {"class_name": "Layer", "config": {"name": name}, "name": name}
                        for name, _ in layers
                    ],
                },
            }
            file.attrs["keras_version"] = b"2.4.0"
            file.attrs["backend"] = b"tensorflow"
            file.attrs["model_config"] = json.dumps(described).encode()
            top = file.create_group("model_weights")
        top.attrs["layer_names"] = np.array([name.encode() for name, _ in layers])
        top.attrs["backend"] = b"tensorflow"
        top.attrs["keras_version"] = b"2.4.0"
        for name, values in layers:
            group = top.create_group(name)
            names = [f"{name}/{role}{suffix}" for role in values]
            group.attrs["weight_names"] = np.array([entry.encode() for entry in names], "S")
            for entry, value in zip(names, values.values(), strict=True):
                if isinstance(value, Hollow):
                    group.create_dataset(entry, value.shape, value.dtype, fillvalue=value.fill)
                else:
                    group.create_dataset(entry, data=value)
    return path


@pytest.fixture(scope="session")
def released(
    tmp_path_factory: pytest.TempPathFactory, keras_reference: Callable[[str], Any]
) -> Path:
    """A ResNet50 file as RadImageNet released it, with random weights and statistics."""
    path = tmp_path_factory.mktemp("released") / "RadImageNet-ResNet50_notop.h5"
    return _write_keras_2(path, keras_reference("resnet50").layers)
