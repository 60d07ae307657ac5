"""Weight files in their true layouts, and Keras as the reference for what they mean."""

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Keras reads it at its first import; without it, it looks for TensorFlow.
os.environ.setdefault("KERAS_BACKEND", "jax")

import h5py
import jax
import numpy as np
import pytest

from radimagenet_jax import models
from radimagenet_jax.weights.assembly import expected_shapes
from radimagenet_jax.weights.keras_layers import rules

APPLICATIONS = {
    "resnet50": "ResNet50",
    "densenet121": "DenseNet121",
    "inception_v3": "InceptionV3",
    "inception_resnet_v2": "InceptionResNetV2",
}


@dataclass(frozen=True)
class Hollow:
    """A tensor of ones that takes no room in the file, for tests that need no numbers."""

    shape: tuple[int, ...]
    dtype: str = "float32"
    fill: float = 1.0


# (layer, {role: values}) in the order of `model.layers`, layers without weights included.
Layers = list[tuple[str, dict[str, Any]]]


@dataclass(frozen=True)
class Reference:
    """A network of keras.applications with random weights and statistics."""

    model: Any
    layers: Layers

    def features(self, x: np.ndarray) -> dict[str, np.ndarray]:
        spatial, pooled = jax.jit(
            lambda trainable, fixed, x: self.model.stateless_call(
                trainable, fixed, x, training=False
            )[0]
        )(
            [variable.value for variable in self.model.trainable_variables],
            [variable.value for variable in self.model.non_trainable_variables],
            x,
        )
        return {"spatial": np.asarray(spatial), "pooled": np.asarray(pooled)}


@pytest.fixture(scope="session")
def keras_reference() -> Callable[[str], Reference]:
    """Builds each network once, on demand."""
    built: dict[str, Reference] = {}

    def get(name: str) -> Reference:
        if name not in built:
            built[name] = _build(name)
        return built[name]

    return get


def _build(name: str) -> Reference:
    import keras

    with pytest.MonkeyPatch.context() as patch:
        # Keras compiles a draw for each shape, 10 s in all, for values that are replaced.
        patch.setattr(
            keras.initializers.VarianceScaling,
            "__call__",
            lambda self, shape, dtype=None: np.zeros(shape, np.float32),
        )
        base = getattr(keras.applications, APPLICATIONS[name])(
            weights=None, include_top=False, pooling="avg", input_shape=(None, None, 3)
        )
    rng = np.random.default_rng(7)
    layers: Layers = []
    for layer in base.layers:
        values = {
            variable.name: _random(variable.name, variable.shape, rng) for variable in layer.weights
        }
        if values:
            layer.set_weights(list(values.values()))
        layers.append((layer.name, values))
    outputs = [base.layers[-1].input, base.output]
    return Reference(keras.Model(base.input, outputs), layers)


def _random(role: str, shape: Sequence[int], rng: np.random.Generator) -> np.ndarray:
    if role == "kernel":
        values = rng.normal(0, np.sqrt(2 / np.prod(shape[:-1])), shape)
    elif role in ("gamma", "moving_variance"):
        values = rng.uniform(0.5, 1.5, shape)
    else:
        values = rng.normal(0, 0.2, shape)
    return values.astype(np.float32)


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
    tmp_path_factory: pytest.TempPathFactory, keras_reference: Callable[[str], Reference]
) -> Path:
    """A ResNet50 file as RadImageNet released it, with random weights and statistics."""
    path = tmp_path_factory.mktemp("released") / "RadImageNet-ResNet50_notop.h5"
    return _write_keras_2(path, keras_reference("resnet50").layers)
