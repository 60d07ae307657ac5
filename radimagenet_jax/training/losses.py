"""What training minimises, by name (`config.loss`).

The published scripts compile a two-way softmax with `binary_crossentropy`. By its definition, and
in Keras 3, that is the softmax cross-entropy of the labels. Keras 2 computes something else: its
softmax leaves its logits on the tensor, its binary cross-entropy finds them there and takes them
for those of a sigmoid (`_keras_logits` in keras/backend.py; TensorFlow 2.4.0 to tf_keras 2.20.1).
Its loss is the mean over both columns of the sigmoid cross-entropy of their logits, whose gradients
are about half as steep. `python -m tests.benchmarks.trajectory` holds both against Keras 2.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax

Loss = Callable[[jax.typing.ArrayLike, jax.typing.ArrayLike], jax.Array]


def softmax_cross_entropy(logits: jax.typing.ArrayLike, labels: jax.typing.ArrayLike) -> jax.Array:
    """Cross-entropy of the softmax.

    Args:
      logits: (N, classes).
      labels: (N,) integers.

    Returns:
      (N,) losses in nats.
    """
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels)


def keras2_binary_crossentropy(
    logits: jax.typing.ArrayLike, labels: jax.typing.ArrayLike
) -> jax.Array:
    """What Keras 2 makes of `binary_crossentropy` after a softmax.

    Args:
      logits: (N, classes).
      labels: (N,) integers.

    Returns:
      (N,) losses in nats, means over the classes.
    """
    logits = jnp.asarray(logits)
    targets = jax.nn.one_hot(labels, logits.shape[-1], dtype=logits.dtype)
    return jnp.mean(optax.sigmoid_binary_cross_entropy(logits, targets), axis=-1)


def class_weights(labels: np.ndarray, classes: int) -> np.ndarray:
    """Weights (classes,) float32 inverse to the classes' sizes; their mean over the images is 1.

    Args:
      labels: (N,) integers of the training split.
      classes: How many there are; one without images gets weight 0.
    """
    counts = np.bincount(labels, minlength=classes)
    weights = np.where(counts > 0, 1 / np.maximum(counts, 1), 0.0)
    return (weights * len(labels) / np.sum(weights * counts)).astype(np.float32)


def loss_of(name: str, smoothing: float = 0.0, weights: jax.typing.ArrayLike | None = None) -> Loss:
    """Makes the loss of a run.

    Args:
      name: A key of `LOSSES`.
      smoothing: Share of each target that is spread over all classes, in [0, 1) (Szegedy et al.,
        arXiv:1512.00567, section 7); of the softmax loss only.
      weights: (classes,) weights of the examples by their class, see `class_weights`.

    Raises:
      ValueError: If another loss shall be smoothed.
    """
    if smoothing and name != "softmax":
        raise ValueError(f"the loss {name!r} takes no label smoothing.")

    def loss(logits: jax.typing.ArrayLike, labels: jax.typing.ArrayLike) -> jax.Array:
        losses = LOSSES[name](logits, labels)
        if smoothing:
            # Cross-entropy is linear in its target: the mean over all classes takes its share.
            uniform = -jnp.mean(jax.nn.log_softmax(jnp.asarray(logits)), axis=-1)
            losses = (1 - smoothing) * losses + smoothing * uniform
        return losses if weights is None else losses * jnp.asarray(weights)[jnp.asarray(labels)]

    return loss


LOSSES: dict[str, Loss] = {
    "softmax": softmax_cross_entropy,
    "keras2": keras2_binary_crossentropy,
}
