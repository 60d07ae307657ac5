"""The parts of runs that learn, trained side by side on the activations at the cut.

Each run has its own batches, dropout, optimiser state, moving statistics and learning rate, and
nothing is summed over runs: one that diverges leaves the others as they are.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct

from radimagenet_jax.models import ops
from radimagenet_jax.studies.cut import Cut
from radimagenet_jax.training import losses
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


class Settings(struct.PyTreeNode):
    """What makes one run differ from another; those of R runs are stacked.

    Attributes:
      learning_rate: float32 scalar.
      seed: uint32 scalar, of dropout.
      class_weights: (classes,) float32, or None if classes weigh the same.
    """

    learning_rate: jax.Array
    seed: jax.Array
    class_weights: jax.Array | None


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


@dataclass(frozen=True)
class Recipe:
    """What all runs of a group share in how they learn.

    Attributes:
      optimizer: (learning rate) -> transformation.
      loss: A key of `losses.LOSSES`.
      label_smoothing: See `losses.loss_of`.
      side_by_side: How many runs are computed at a time under vmap, the others after them; 0
        for all.
    """

    optimizer: Callable[[jax.Array], optax.GradientTransformation]
    loss: str
    label_smoothing: float
    side_by_side: int


def start(recipe: Recipe, params: Leaves, stats: Leaves) -> Learner:
    """Makes the learners of R runs before their first step, from stacked leaves (R, ...)."""
    count = len(next(iter(params.values())))
    tx = recipe.optimizer(jnp.float32(0))  # its state does not depend on the rate
    return Learner(
        step=jnp.zeros(count, jnp.int32),
        params=params,
        stats=stats,
        opt_state=jax.vmap(tx.init)(params),
    )


def make_train(recipe: Recipe, cut: Cut) -> Callable[..., tuple[Learner, jax.Array]]:
    """Makes the function that trains R runs for a stretch of steps.

    Returns:
      (learners, settings, batches, frozen, buffer, labels) -> learners, and (R, steps) float32
      sums of the losses over each batch's examples. The learners' memory is reused.
    """

    def step(
        learner: Learner,
        settings: Settings,
        batch: Batches,
        frozen: PyTree,
        buffer: tuple[jax.Array, ...],
        labels: jax.Array,
    ) -> tuple[Learner, jax.Array]:
        def take(learner: Learner) -> tuple[Learner, jax.Array]:
            key = jax.random.fold_in(run_keys(settings.seed)[1], learner.step)
            activations = tuple(part[batch.rows] for part in buffer)
            targets = labels[batch.rows]
            loss = losses.loss_of(recipe.loss, recipe.label_smoothing, settings.class_weights)

            def loss_of(params: Leaves) -> tuple[jax.Array, tuple[jax.Array, Leaves]]:
                logits, stats = cut.tail(
                    {**params, **learner.stats}, frozen, activations, (key, batch.mask)
                )
                total = jnp.sum(loss(logits, targets) * batch.mask)
                return total / jnp.sum(batch.mask), (total, stats)

            gradients, (total, stats) = jax.grad(loss_of, has_aux=True)(learner.params)
            tx = recipe.optimizer(settings.learning_rate)
            updates, opt_state = tx.update(gradients, learner.opt_state, learner.params)
            params = optax.apply_updates(learner.params, updates)
            return Learner(learner.step + 1, params, stats, opt_state), total

        # Under vmap this is a choice between results; without, nothing is copied.
        return jax.lax.cond(batch.real, take, lambda same: (same, jnp.float32(0)), learner)

    def train(
        learners: Learner,
        settings: Settings,
        batches: Batches,
        frozen: PyTree,
        buffer: tuple[jax.Array, ...],
        labels: jax.Array,
    ) -> tuple[Learner, jax.Array]:
        def stretch(run: tuple[Learner, Settings, Batches]) -> tuple[Learner, jax.Array]:
            learner, own, its_batches = run
            return jax.lax.scan(
                lambda state, batch: step(state, own, batch, frozen, buffer, labels),
                learner,
                its_batches,
            )

        return _over_runs(recipe, stretch, (learners, settings, batches))

    return ops.jit(train, donate_argnums=0)


def make_evaluate(recipe: Recipe, cut: Cut) -> Callable[..., jax.Array]:
    """Makes the function that computes R runs' logits on images of their own.

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

        return _over_runs(recipe, of_run, (params, stats, rows))

    return ops.jit(evaluate)


def _over_runs(recipe: Recipe, of_run: Callable[..., Any], runs: PyTree) -> Any:
    if recipe.side_by_side == 0:
        return jax.vmap(of_run)(runs)
    several = recipe.side_by_side if recipe.side_by_side > 1 else None
    return jax.lax.map(of_run, runs, batch_size=several)


@jax.jit
def keep_better(better: jax.Array, new: PyTree, best: PyTree) -> PyTree:
    """Takes the new leaves (R, ...) of the runs that are `better` (R,), else the best so far."""

    def choose(a: jax.Array, b: jax.Array) -> jax.Array:
        return jnp.where(better.reshape(-1, *[1] * (a.ndim - 1)), a, b)

    return jax.tree.map(choose, new, best)
