"""The ReLU behind a sum, whose gradient each platform reads from what costs it least."""

import jax
import jax.numpy as jnp

from radimagenet_jax.models.ops import platform


@platform.traced_once
def residual_relu(x: jax.Array) -> jax.Array:
    """The ReLU of a sum; its gradient reads the result instead of the summands.

    The next convolution keeps the result for its own gradient, so that reading one array less is
    all that changes.
    """
    return _rectified(x)


@jax.custom_vjp
def _rectified(x: jax.Array) -> jax.Array:
    return jax.nn.relu(x)


def _rectified_forward(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    y = jax.nn.relu(x)
    return y, y


def _rectified_backward(y: jax.Array, dy: jax.Array) -> tuple[jax.Array]:
    def positive(y: jax.Array) -> jax.Array:
        return y > 0

    # XLA makes x > 0 of y > 0, and on GPU reads both summands again for it.
    passed = platform.choose(y, cpu=positive, plain=positive, gpu=lambda y: y != 0)
    return (jnp.where(passed, dy, 0),)


_rectified.defvjp(_rectified_forward, _rectified_backward)
