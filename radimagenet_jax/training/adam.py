"""Adam as Keras computes it, which is not quite as optax does.

Kingma and Ba (arXiv:1412.6980) give two forms. In algorithm 1, which optax follows, epsilon is
added to the square root of the *corrected* second moment. Keras follows the reordered form at
the end of their section 2, where it is added to that of the *uncorrected* one: in its first
step Keras' epsilon weighs 1 / sqrt(1 - 0.999), 32 times, as much. For the gradients of 1e-6
and less that the first layers of a network get under a fresh head, the updates differ by more
than half.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from radimagenet_jax.models import ops


def _zeros_like(value: Any) -> Any:
    # On the host where the parameters still are: a device compiles a program for every shape.
    return np.zeros_like(value) if isinstance(value, np.ndarray) else jnp.zeros_like(value)


@ops.traced_once
def _moved(
    m: jax.Array, v: jax.Array, g: jax.Array, rate: jax.Array, *, b1: float, b2: float, eps: float
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The update of one leaf and its new moments."""
    m = m + (1 - b1) * (g - m)
    v = v + (1 - b2) * (g * g - v)
    return rate * m / (jnp.sqrt(v) + eps), m, v


def keras_adam(
    learning_rate: float | jax.Array | optax.Schedule,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-7,
) -> optax.GradientTransformation:
    """Makes Keras' Adam: `lr * sqrt(1 - b2^t) / (1 - b1^t) * m / (sqrt(v) + eps)`.

    Args:
      learning_rate: Constant over the run, or a function of the steps taken.
      b1: Decay of the first moment m.
      b2: Decay of the second moment v.
      eps: Added to the square root of v, without bias correction.

    Returns:
      A transformation whose state is that of `optax.adam`.
    """

    def init(params: optax.Params) -> optax.ScaleByAdamState:
        return optax.ScaleByAdamState(
            count=jnp.zeros((), jnp.int32),
            mu=jax.tree.map(_zeros_like, params),
            nu=jax.tree.map(_zeros_like, params),
        )

    def update(
        gradients: optax.Updates,
        state: optax.ScaleByAdamState,
        params: optax.Params | None = None,
    ) -> tuple[optax.Updates, optax.ScaleByAdamState]:
        del params
        count = optax.safe_increment(state.count)
        step = count.astype(jnp.float32)
        rate = jnp.sqrt(1 - b2**step) / (1 - b1**step)

        leaves, tree = jax.tree.flatten(gradients)
        old = jax.tree.leaves(state.mu), jax.tree.leaves(state.nu)
        new = [
            _moved(m, v, g, rate, b1=b1, b2=b2, eps=eps)
            for m, v, g in zip(*old, leaves, strict=True)
        ]
        updates, mu, nu = (jax.tree.unflatten(tree, part) for part in zip(*new, strict=True))
        return updates, optax.ScaleByAdamState(count=count, mu=mu, nu=nu)

    return optax.chain(
        optax.GradientTransformation(init, update), optax.scale_by_learning_rate(learning_rate)
    )
