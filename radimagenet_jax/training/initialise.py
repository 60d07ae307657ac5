"""Fresh variables, leaf by leaf, as Keras initialises its applications."""

import zlib
from typing import Any

import jax
import numpy as np
from flax import linen as nn
from flax import traverse_util

from radimagenet_jax import models
from radimagenet_jax.models.preprocess import Input
from radimagenet_jax.training.state import digest
from radimagenet_jax.weights.contract import Contract

PyTree = Any


def scratch(model: nn.Module, image_size: int, seed: int, head_init: str) -> dict[str, PyTree]:
    """Random variables of a network, see `drawn`.

    Args:
      model: The network.
      image_size: Side of its square input, in pixels.
      seed: Of the draws.
      head_init: 'glorot_uniform' or 'zeros', the head's kernel.

    Returns:
      {'params', 'batch_stats'} of float32 arrays on the host.
    """
    return drawn(models.variable_shapes(model, image_size), seed, head_init)


def drawn(shapes: dict[str, PyTree], seed: int, head_init: str) -> dict[str, PyTree]:
    """Random variables: glorot_uniform kernels, zero biases, unit scales and variances.

    Each leaf draws from its own generator, keyed by the seed and the leaf's name, so that a
    leaf's value does not depend on which other leaves there are.

    Args:
      shapes: Of the variables.
      seed: Of the draws.
      head_init: 'glorot_uniform' or 'zeros', the head's kernel.

    Returns:
      The same tree of float32 arrays on the host.
    """
    leaves = traverse_util.flatten_dict(shapes, sep="/")
    return traverse_util.unflatten_dict(
        {name: _leaf(name, leaf, seed, head_init) for name, leaf in leaves.items()}, sep="/"
    )


def contract(
    architecture: str,
    variant: str,
    made_of: Input,
    variables: dict[str, PyTree],
    seed: int,
    labels: tuple[str, ...] | None,
) -> Contract:
    """What a network is that has random variables; see the attributes of `Contract`."""
    return Contract(
        architecture=architecture,
        variant=variant,
        preprocessing=made_of.scheme,
        channel_order=made_of.channel_order,
        origin=f"random initialisation, seed {seed}",
        licence="Made by whoever trained it: the terms of the training data apply.",
        sha256=digest(variables["params"], variables["batch_stats"]),
        labels=labels,
    )


def _leaf(name: str, leaf: jax.ShapeDtypeStruct, seed: int, head_init: str) -> np.ndarray:
    role = name.rpartition("/")[2]
    if role in ("bias", "mean") or (name == "params/head/kernel" and head_init == "zeros"):
        return np.zeros(leaf.shape, np.float32)
    if role in ("scale", "var"):
        return np.ones(leaf.shape, np.float32)
    if role != "kernel":
        raise ValueError(f"no rule to initialise the variable {name!r}.")
    receptive_field = int(np.prod(leaf.shape[:-2]))
    fan_in, fan_out = receptive_field * leaf.shape[-2], receptive_field * leaf.shape[-1]
    limit = np.sqrt(6 / (fan_in + fan_out))  # Glorot and Bengio 2010, equation 16
    # Philox counts: the same draws on every machine, and nothing is compiled for them.
    bits = np.random.Philox(key=[seed, zlib.crc32(name.encode())])
    unit = np.random.Generator(bits).random(leaf.shape, np.float32)
    return (2 * unit - 1) * np.float32(limit)
