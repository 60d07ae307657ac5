"""Fixtures that every test may use: the real images, and Keras' networks as the reference."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

# Keras reads it at its first import; without it, it looks for TensorFlow.
os.environ.setdefault("KERAS_BACKEND", "jax")

import jax
import numpy as np
import pytest

from tests.keras_networks import KERAS_APPLICATIONS, random_values

PROJECT = Path(__file__).resolve().parents[1]

# For programs that run a few times: XLA's own passes run, LLVM's costly ones do not.
COMPILED_QUICKLY = {"xla_backend_optimization_level": 0}


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real medical images beside the project; its tests skip without it."""
    folder = PROJECT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"needs the real images in {folder}, which are not part of the project")
    return folder


# (layer, {role: values}) in the order of `base.layers`, layers without weights included.
Layers = list[tuple[str, dict[str, Any]]]


@dataclass(frozen=True)
class Reference:
    """A network of keras.applications with random weights and statistics.

    Attributes:
      base: The network without its top, with global average pooling.
      layers: What it holds, layer by layer.
    """

    base: Any
    layers: Layers

    def features(self, x: np.ndarray) -> dict[str, np.ndarray]:
        """The 'spatial' (N, h, w, C) and 'pooled' (N, C) features of images (N, H, W, 3)."""
        spatial, pooled = self._features(
            [variable.value for variable in self._model.trainable_variables],
            [variable.value for variable in self._model.non_trainable_variables],
            x,
        )
        return {"spatial": np.asarray(spatial), "pooled": np.asarray(pooled)}

    def restore(self) -> None:
        """Gives the network its first weights back, all of them trainable."""
        self.base.trainable = True
        for name, values in self.layers:
            layer = self.base.get_layer(name)
            layer.trainable = True
            if values:
                layer.set_weights(list(values.values()))

    @cached_property
    def _model(self) -> Any:
        import keras

        return keras.Model(self.base.input, [self.base.layers[-1].input, self.base.output])

    @cached_property
    def _features(self) -> Callable[..., Any]:
        return jax.jit(
            lambda trainable, fixed, x: self._model.stateless_call(
                trainable, fixed, x, training=False
            )[0],
            compiler_options=COMPILED_QUICKLY,
        )


@pytest.fixture(scope="session")
def keras_reference() -> Callable[[str], Reference]:
    """Builds each network once, on demand, with the layer names of a fresh process."""
    built: dict[str, Reference] = {}

    def get(name: str) -> Reference:
        if name not in built:
            built[name] = _build(name)
        return built[name]

    return get


def _build(name: str) -> Reference:
    import keras

    keras.utils.clear_session()
    with pytest.MonkeyPatch.context() as patch:
        # Keras compiles a draw for each shape, 10 s in all, for values that are replaced.
        patch.setattr(
            keras.initializers.VarianceScaling,
            "__call__",
            lambda self, shape, dtype=None: np.zeros(shape, np.float32),
        )
        base = getattr(keras.applications, KERAS_APPLICATIONS[name])(
            weights=None, include_top=False, pooling="avg", input_shape=(None, None, 3)
        )
    rng = np.random.default_rng(7)
    layers: Layers = []
    for layer in base.layers:
        values = {
            variable.name: random_values(variable.name, variable.shape, rng)
            for variable in layer.weights
        }
        if values:
            layer.set_weights(list(values.values()))
        layers.append((layer.name, values))
    return Reference(base, layers)
