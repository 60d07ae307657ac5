"""Logits of a whole split: every example once, in the split's own order."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from radimagenet_jax.training import order, sharding
from radimagenet_jax.training.step import Examples


def predict(
    eval_step: Callable[..., jax.Array],
    variables: dict[str, Any],
    examples: Examples,
    batch_size: int,
    mesh: Mesh,
) -> np.ndarray:
    """Computes the logits of every example of a split.

    Args:
      eval_step: Of `step.make_eval_step`, jitted.
      variables: {'params', 'batch_stats'} on the devices.
      examples: The split, on the devices.
      batch_size: Global batch size. The last batch is padded; those of the padding are dropped.
      mesh: The devices.

    Returns:
      (N, classes) float32 logits.
    """
    count = examples.labels.shape[0]
    everything = np.arange(count, dtype=np.int32)
    batches = []
    for position in range(-(-count // batch_size)):
        index, _ = order.padded(everything, position, batch_size)
        (placed,) = sharding.place_batch((index,), mesh)
        batches.append(eval_step(variables["params"], variables["batch_stats"], examples, placed))
    return np.concatenate([np.asarray(batch) for batch in batches])[:count]
