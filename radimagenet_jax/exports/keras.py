"""Keras: a whole model ('.keras'), or weights for the user's own ('.h5')."""

import importlib
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from radimagenet_jax import models
from radimagenet_jax.errors import ConfigError, ExportError
from radimagenet_jax.exports import card, comparison
from radimagenet_jax.exports.keeping import kept_if_right
from radimagenet_jax.exports.source import FEATURES, IMAGES, PROBABILITIES, Source
from radimagenet_jax.models.preprocess import SCHEMES
from radimagenet_jax.weights import keras_export, reading


def write(path: Path, source: Source, images: np.ndarray) -> comparison.Agreement | None:
    """Writes a file for Keras 3, and keeps it if Keras computes what the network does.

    Args:
      path: The file; it must not exist. A name in '.keras' asks for the whole model, one in '.h5'
        for weights, see `weights.keras_export`, which takes no Keras.
      source: The network.
      images: (N, S, S, 3) uint8, to compare the whole model on.

    Returns:
      How well the model agrees; None for weights, which are read back instead.

    Raises:
      ConfigError: If the whole model is asked for and Keras is not installed.
      ExportError: If the name has another suffix, the file cannot be written, or it computes
        something else. Nothing is left behind.
      WeightsError: If Keras has no such network.
    """
    if path.suffix == ".h5":
        with kept_if_right(path) as temporary:
            keras_export.write(temporary, source.variables, source.contract)
            reading.read(temporary)  # compares the digest of all variables
        return None
    if path.suffix != ".keras":
        raise ExportError(
            f"{path} must end in '.keras' for a whole model, or in '.h5' for weights alone; choose "
            "such a name."
        )
    keras = _library()
    with kept_if_right(path) as temporary:
        _model(keras, source).save(temporary)
        card.append(temporary, source)
        return comparison.compare(
            keras.saving.load_model(temporary).predict_on_batch, source, images
        )


def _model(keras: Any, source: Source) -> Any:
    """Builds Keras' network around its preprocessing, with our weights in it."""
    contract = source.contract
    with tempfile.TemporaryDirectory(prefix="radimagenet-") as folder:
        # First, since it refuses the networks that Keras has not.
        weights = Path(folder, "weights.h5")
        keras_export.write(weights, source.variables, contract)
        build = getattr(keras.applications, models.architecture(contract.architecture).title)
        base = build(weights=None, include_top=False, pooling="avg", input_shape=source.shape)
        head = None
        if contract.labels:
            head = keras.layers.Dense(
                len(contract.labels), activation="softmax", name="predictions"
            )
        keras.Model(base.input, head(base.output) if head else base.output).load_weights(weights)

    images = keras.Input(source.shape, dtype="uint8", name=IMAGES)
    features = base(_preprocessed(keras, images, source))
    outputs = {FEATURES: features}
    if head:
        outputs[PROBABILITIES] = head(features)
    return keras.Model(images, {name: outputs[name] for name in source.outputs})


def _preprocessed(keras: Any, images: Any, source: Source) -> Any:
    """`preprocess.normalize`, in Keras' layers."""
    scheme, order = SCHEMES[source.contract.preprocessing], source.contract.channel_order
    mean, std = np.array(scheme.mean), np.array(scheme.std)
    if order != scheme.channel_order:
        mean, std = mean[::-1], std[::-1]
    x = keras.ops.cast(images, "float32")
    if order == "BGR":
        x = keras.ops.flip(x, axis=-1)
    scale, offset = 1 / (scheme.divisor * std), -mean / std
    return keras.layers.Rescaling(scale.tolist(), offset.tolist(), name="preprocessing")(x)


def _library() -> Any:
    # Keras looks for TensorFlow unless told otherwise, at its first import.
    os.environ.setdefault("KERAS_BACKEND", "jax")
    try:
        return importlib.import_module("keras")
    except ImportError as error:
        raise ConfigError(
            f"a '.keras' file needs Keras 3, which cannot be imported ({error}); "
            "run: pip install 'radimagenet-jax[keras]', or export '.h5' weights, which need none."
        ) from error
