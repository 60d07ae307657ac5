"""The networks of keras.applications under our names, and values for them that mean nothing."""

from collections.abc import Sequence

import numpy as np

from tests.networks import KNOWN

KERAS_APPLICATIONS = {name: known.keras for name, known in KNOWN.items()}


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
