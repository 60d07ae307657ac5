"""Adam as Keras computes it, which is not quite as optax does.

Kingma and Ba (arXiv:1412.6980) give two forms. In algorithm 1, which optax follows, epsilon is
added to the square root of the *corrected* second moment. Keras follows the reordered form at
the end of their section 2, where it is added to that of the *uncorrected* one: in its first
step Keras' epsilon weighs 1 / sqrt(1 - 0.999), 32 times, as much. For the gradients of 1e-6
and less that the first layers of a network get under a fresh head, the updates differ by more
than half.
"""

import jax
import jax.numpy as jnp
import optax


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
            mu=jax.tree.map(jnp.zeros_like, params),
            nu=jax.tree.map(jnp.zeros_like, params),
        )

    def update(
        gradients: optax.Updates,
        state: optax.ScaleByAdamState,
        params: optax.Params | None = None,
    ) -> tuple[optax.Updates, optax.ScaleByAdamState]:
        del params
        count = optax.safe_increment(state.count)
        mu = jax.tree.map(lambda m, g: m + (1 - b1) * (g - m), state.mu, gradients)
        nu = jax.tree.map(lambda v, g: v + (1 - b2) * (g * g - v), state.nu, gradients)
        step = count.astype(jnp.float32)
        rate = jnp.sqrt(1 - b2**step) / (1 - b1**step)
        updates = jax.tree.map(lambda m, v: rate * m / (jnp.sqrt(v) + eps), mu, nu)
        return updates, optax.ScaleByAdamState(count=count, mu=mu, nu=nu)

    return optax.chain(
        optax.GradientTransformation(init, update), optax.scale_by_learning_rate(learning_rate)
    )
