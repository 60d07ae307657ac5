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


LOSSES: dict[str, Loss] = {
    "softmax": softmax_cross_entropy,
    "keras2": keras2_binary_crossentropy,
}
