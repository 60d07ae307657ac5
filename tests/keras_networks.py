"""The networks of keras.applications under our names, and values for them that mean nothing."""

from collections.abc import Sequence

import numpy as np

KERAS_APPLICATIONS = {
    "resnet50": "ResNet50",
    "densenet121": "DenseNet121",
    "inception_v3": "InceptionV3",
    "inception_resnet_v2": "InceptionResNetV2",
}


def random_values(role: str, shape: Sequence[int], rng: np.random.Generator) -> np.ndarray:
    """Draws a variable under which features neither vanish nor explode.

    Args:
      role: What Keras calls it: 'kernel', 'bias', 'gamma', 'beta', 'moving_mean' or
        'moving_variance'.
      shape: Of the variable; kernels are (height, width, in, out).
      rng: Source of the draws.

    Returns:
      float32.
    """
    if role == "kernel":
        values = rng.normal(0, np.sqrt(2 / np.prod(shape[:-1])), shape)
    elif role in ("gamma", "moving_variance"):
        values = rng.uniform(0.5, 1.5, shape)
    else:
        values = rng.normal(0, 0.2, shape)
    return values.astype(np.float32)
