"""The parts of runs that learn, trained side by side on the activations at the cut.

Each run has its own batches, dropout, optimiser state, moving statistics and learning rate, and
nothing is summed over runs: one that diverges leaves the others as they are.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from radimagenet_jax.models import ops
from radimagenet_jax.studies.cut import Cut
from radimagenet_jax.training.program import Program, Values
from radimagenet_jax.training.step import run_keys

PyTree = Any
Leaves = dict[str, jax.Array]


class Learner(struct.PyTreeNode):
    """What one run changes as it trains; those of R runs are stacked along the first axis.

    Attributes:
      step: int32 scalar, number of steps taken.
      params: The parameters that learn, by name.
      stats: The moving statistics of BatchNorms that are not frozen, by name.
      opt_state: The optimiser's.
    """

    step: jax.Array
    params: Leaves
    stats: Leaves
    opt_state: PyTree


class Batches(struct.PyTreeNode):
    """What a run trains on in a stretch of steps; those of R runs are stacked.

    Attributes:
      rows: (steps, B) int32 of the activations.
      mask: (steps, B) float32, 0 for padding.
      real: (steps,) bool, False for steps that this run does not take: it has fewer.
    """

    rows: jax.Array
    mask: jax.Array
    real: jax.Array


def start(program: Program, values: Values, params: Leaves, stats: Leaves) -> Learner:
    """Makes the learners of R runs before their first step, from stacked leaves (R, ...)."""
    count = len(next(iter(params.values())))
    begin = jax.vmap(lambda own, leaves: program.recipe(own).tx.init(leaves))
    return Learner(
        step=jnp.zeros(count, jnp.int32),
        params=params,
        stats=stats,
        opt_state=begin(values, params),
    )


def make_train(
    program: Program, cut: Cut, side_by_side: int
) -> Callable[..., tuple[Learner, jax.Array]]:
    """Makes the function that trains R runs for a stretch of steps.

    Args:
      program: Of the runs.
      cut: Of its training pass.
      side_by_side: How many runs are computed at a time under vmap, the others after them; 0
        for all.

    Returns:
      (learners, values, batches, frozen, buffer, labels) -> learners, and (R, steps) float32
      sums of the losses over each batch's examples. The learners' memory is reused.
    """

    def step(
        learner: Learner,
        values: Values,
        batch: Batches,
        frozen: PyTree,
        buffer: tuple[jax.Array, ...],
        labels: jax.Array,
    ) -> tuple[Learner, jax.Array]:
        def take(learner: Learner) -> tuple[Learner, jax.Array]:
            key = jax.random.fold_in(run_keys(values.seed)[1], learner.step)
            activations = tuple(part[batch.rows] for part in buffer)

            def forward(
                params: Leaves, stats: Leaves, inputs: Any, mask: jax.Array, key: jax.Array
            ) -> tuple[jax.Array, Leaves]:
                return cut.tail({**params, **stats}, frozen, inputs, (key, mask))

            params, opt_state, (total, _, stats) = program.recipe(values).learn(
                forward,
                learner.params,
                learner.stats,
                learner.opt_state,
                (activations, labels[batch.rows], batch.mask),
                key,
            )
            return Learner(learner.step + 1, params, stats, opt_state), total

        # Under vmap this is a choice between results; without, nothing is copied.
        return jax.lax.cond(batch.real, take, lambda same: (same, jnp.float32(0)), learner)

    def train(
        learners: Learner,
        values: Values,
        batches: Batches,
        frozen: PyTree,
        buffer: tuple[jax.Array, ...],
        labels: jax.Array,
    ) -> tuple[Learner, jax.Array]:
        def stretch(run: tuple[Learner, Values, Batches]) -> tuple[Learner, jax.Array]:
            learner, own, its_batches = run
            return jax.lax.scan(
                lambda state, batch: step(state, own, batch, frozen, buffer, labels),
                learner,
                its_batches,
            )

        return _over_runs(side_by_side, stretch, (learners, values, batches))

    return ops.jit(train, donate_argnums=0)


def make_evaluate(cut: Cut, side_by_side: int) -> Callable[..., jax.Array]:
    """Makes the function that computes R runs' logits on images of their own; see `make_train`.

    Returns:
      (params, stats, rows (R, batches, B), frozen, buffer) -> (R, batches, B, classes) float32.
    """

    def evaluate(
        params: Leaves,
        stats: Leaves,
        rows: jax.Array,
        frozen: PyTree,
        buffer: tuple[jax.Array, ...],
    ) -> jax.Array:
        def of_run(run: tuple[Leaves, Leaves, jax.Array]) -> jax.Array:
            its_params, its_stats, its_rows = run

            def of_batch(index: jax.Array) -> jax.Array:
                activations = tuple(part[index] for part in buffer)
                return cut.tail({**its_params, **its_stats}, frozen, activations, ())[0]

            return jax.lax.map(of_batch, its_rows)

        return _over_runs(side_by_side, of_run, (params, stats, rows))

    return ops.jit(evaluate)


def _over_runs(side_by_side: int, of_run: Callable[..., Any], runs: PyTree) -> Any:
    if side_by_side == 0:
        return jax.vmap(of_run)(runs)
    several = side_by_side if side_by_side > 1 else None
    return jax.lax.map(of_run, runs, batch_size=several)


@jax.jit
def keep_better(better: jax.Array, new: PyTree, best: PyTree) -> PyTree:
    """Takes the new leaves (R, ...) of the runs that are `better` (R,), else the best so far."""

    def choose(a: jax.Array, b: jax.Array) -> jax.Array:
        return jnp.where(better.reshape(-1, *[1] * (a.ndim - 1)), a, b)

    return jax.tree.map(choose, new, best)
