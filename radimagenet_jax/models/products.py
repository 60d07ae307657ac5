"""Matrix products that are fast on CPU."""

import jax


def summed_products(a: jax.Array, b: jax.Array) -> jax.Array:
    """(C, D) of (M, C) and (M, D): a^T b."""
    if a.shape[1] <= b.shape[1] or len(a) < a.shape[1]:
        return a.T @ b
    # A product with the fewer rows first is up to 1.6 times as fast on CPU, which pays for turning
    # the result where it is a sum of many; the barrier keeps the compiler from turning it back.
    return jax.lax.optimization_barrier(b.T @ a).T
