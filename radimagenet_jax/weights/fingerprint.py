"""A short digest by which two people can see that they have the same network.

It covers everything that can be silently wrong: weights, strides, epsilons, padding
and preprocessing, since it digests the pooled features of a fixed picture. They are
computed in float64 on the CPU, where machines differ by some 1e-13, and rounded to
1e-4 of the largest, so that a difference of rounding all but never changes the digest.
The largest itself is part of it, since a network without biases may keep all ratios.
"""

import functools
import hashlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from radimagenet_jax import models
from radimagenet_jax.weights.contract import Contract

_SIZE = 96  # above every network's smallest input
_STEPS = 10_000  # of the largest feature


def picture() -> np.ndarray:
    """Returns the fixed picture: (1, 96, 96, 3) uint8, integer arithmetic only."""
    row, column, channel = np.meshgrid(
        np.arange(_SIZE), np.arange(_SIZE), np.arange(3), indexing="ij"
    )
    rings = (row - 50) ** 2 + (column - 70) ** 2 * (channel + 1)
    return ((rings // 16 + row * (channel + 2)) % 256).astype(np.uint8)[None]


def fingerprint(variables: Mapping[str, Any], contract: Contract, **options: Any) -> str:
    """Digests the pooled features of the fixed picture.

    Args:
      variables: {'params', 'batch_stats'} of the network; a head is ignored.
      contract: What they are; its preprocessing and channel order are part of it.
      **options: Fields in which the network differs from the published one, hashable.

    Returns:
      The sha256 of the rounded features, 64 hexadecimal digits.
    """
    features = precise_features(variables, contract, **options)
    largest = float(np.abs(features).max()) or 1.0
    steps = np.rint(features / largest * _STEPS).astype("<i4")
    return hashlib.sha256(f"{largest:.3e}".encode() + steps.tobytes()).hexdigest()


def precise_features(
    variables: Mapping[str, Any], contract: Contract, **options: Any
) -> np.ndarray:
    """Returns the pooled features of the fixed picture, (C,) float64; see `fingerprint`."""
    headless = {
        "params": {name: leaf for name, leaf in variables["params"].items() if name != "head"},
        "batch_stats": variables["batch_stats"],
    }
    with jax.enable_x64(True), jax.default_device(jax.devices("cpu")[0]):
        exact = jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf), jnp.float64), headless)
        x = contract.input.of(jnp.asarray(picture()), jnp.float64)
        spatial = _network(contract.architecture, contract.variant, **options)(exact, x)
        return np.asarray(spatial, np.float64).mean(axis=(0, 1, 2))


@functools.lru_cache(maxsize=4)
def _network(
    architecture: str, variant: str, **options: Any
) -> Callable[[Any, jax.Array], jax.Array]:
    network = models.create(architecture, variant=variant, dtype=jnp.float64, **options)
    return jax.jit(lambda variables, x: network.apply(variables, x, train=False)[1]["spatial"])
