"""Logits of a whole split: every example once, in the split's own order."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from radimagenet_jax.training.feed import ResidentFeed, StreamedFeed
from radimagenet_jax.training.order import DataOrder


def predict(
    eval_step: Callable[..., jax.Array],
    variables: dict[str, Any],
    examples: ResidentFeed | StreamedFeed,
    count: int,
    batch_size: int,
) -> np.ndarray:
    """Computes the logits of every example of a split.

    Args:
      eval_step: Of `step.make_eval_step`, jitted.
      variables: {'params', 'batch_stats'} on the devices.
      examples: The split's feed.
      count: Examples in the split, N.
      batch_size: Global batch size. The last batch is padded; those of the padding are dropped.

    Returns:
      (N, classes) float32 logits.
    """
    order = DataOrder(count, batch_size, seed=0, shuffle=False)
    batches = [
        eval_step(variables["params"], variables["batch_stats"], batch, index)
        for batch, index, _ in examples.inputs(order, 0, order.steps_per_epoch)
    ]
    return np.concatenate([np.asarray(batch) for batch in batches])[:count]
