"""The state of a training run, and its digest."""

import hashlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct, traverse_util

from radimagenet_jax.training import freezing

PyTree = Any


class TrainState(struct.PyTreeNode):
    """All that a step reads and writes; a checkpoint of it resumes a run bit for bit.

    Attributes:
      step: int32 scalar, number of steps taken.
      params: All parameters, frozen ones included, float32.
      batch_stats: Moving statistics of all BatchNorms, float32.
      opt_state: The optimiser's state, of trainable leaves only.
      ema: Moving average of the trainable leaves, the others as optax's `MaskedNode`; None
        without one.
    """

    step: jax.Array
    params: PyTree
    batch_stats: PyTree
    opt_state: PyTree
    ema: PyTree = None

    def weights(self) -> dict[str, PyTree]:
        """Returns {'params', 'batch_stats'} to evaluate: of the moving average, if there is one."""
        params = self.params if self.ema is None else freezing.merge(self.ema, self.params)
        return {"params": params, "batch_stats": self.batch_stats}


def create(
    variables: Mapping[str, PyTree],
    tx: optax.GradientTransformation,
    freeze: freezing.Freeze,
    *,
    ema: bool = False,
) -> TrainState:
    """Makes the state before the first step."""
    trainable = freezing.mask(variables["params"], freeze)
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=variables["params"],
        batch_stats=variables.get("batch_stats", {}),
        opt_state=tx.init(trainable),
        # Copies: the step takes its state's memory, each array once.
        ema=copied(trainable) if ema else None,
    )


@jax.jit
def copied(tree: PyTree) -> PyTree:
    """The same arrays in memory of their own: one program, where each shape would be another."""
    return jax.tree.map(jnp.copy, tree)


def digest(params: PyTree, batch_stats: PyTree) -> str:
    """sha256 of parameters and statistics, to compare two runs bit for bit.

    Leaves are taken in the sorted order of their names; each contributes its name, dtype,
    shape and little-endian bytes.
    """
    leaves = traverse_util.flatten_dict({"params": params, "batch_stats": batch_stats}, sep="/")
    sha = hashlib.sha256()
    for name in sorted(leaves):
        array = np.ascontiguousarray(jax.device_get(leaves[name]))
        sha.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        sha.update(array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes())
    return sha.hexdigest()
