"""The step: the one function that trains, on one CPU, eight GPUs or a pod.

A data set that fits lives on the devices as uint8, and each step gathers its own batch there by
index; of one that does not, it is given the batch. Either is augmented and normalised here.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

from radimagenet_jax.data import augment
from radimagenet_jax.models.layers import BLOCK, CONV
from radimagenet_jax.models.ops.normalisation import STATISTICS
from radimagenet_jax.models.preprocess import Input
from radimagenet_jax.training import freezing, losses
from radimagenet_jax.training.examples import Examples, ResidentExamples
from radimagenet_jax.training.state import TrainState

PyTree = Any
# What is kept for the gradient; the rest is computed again. A block's inside costs its convolutions
# once more; what lies between convolutions costs next to nothing, since it is elementwise.
KEPT = {"blocks": (BLOCK,), "norms": (CONV, STATISTICS)}
# What the network takes (B, ...), such as images (B, S, S, C) uint8; labels (B,) int32; mask (B,)
# float32, 0 for padding.
Part = tuple[Any, jax.Array, jax.Array]
# (trainable, statistics, what the network takes, mask, dropout's key) -> logits, new statistics.
Forward = Callable[[PyTree, PyTree, Any, jax.Array, jax.Array], tuple[jax.Array, PyTree]]
# Of a batch: losses and hits, each summed over its real examples, and the new statistics.
Sums = tuple[jax.Array, jax.Array, PyTree]


@dataclass(frozen=True)
class Recipe:
    """How a network learns.

    Attributes:
      tx: The optimiser.
      loss: What is minimised, as a mean over the batch, see `losses`.
      policy: Augmentation; None for none.
      accumulate: Parts that the batch is taken in, one after the other, for a part of the memory.
        The gradient is that of the mean over the whole batch; each part has its own draws of
        dropout and, in BatchNorms that learn, its own statistics.
      ema: Decay of the moving average of the trainable leaves, ema * old + (1 - ema) * new after
        each step; 0 keeps none.
      remat: What is computed again for the gradient instead of being kept: 'none', 'norms' (what
        lies between convolutions: normalising, activations, pooling), or 'blocks' (all inside a
        block, its convolutions too).
    """

    tx: optax.GradientTransformation
    loss: losses.Loss = losses.softmax_cross_entropy
    policy: augment.Policy | None = None
    accumulate: int = 1
    ema: float = 0.0
    remat: str = "none"

    def learn(
        self,
        forward: Forward,
        trainable: PyTree,
        stats: PyTree,
        opt_state: PyTree,
        batch: Part,
        key: jax.Array,
    ) -> tuple[PyTree, PyTree, Sums]:
        """One step of what learns, of a run by itself and of those on a shared trunk.

        Args:
          forward: The network in training.
          trainable: What learns.
          stats: Moving statistics.
          opt_state: The optimiser's.
          batch: What `forward` takes (B, ...), its labels and its mask.
          key: Of dropout.

        Returns:
          What has learnt, the optimiser's new state, and the batch's sums with the new statistics.
        """
        count = jnp.sum(batch[2])

        def loss_of(
            trainable: PyTree, stats: PyTree, part: Part, key: jax.Array
        ) -> tuple[jax.Array, Sums]:
            inputs, labels, mask = part
            logits, stats = forward(trainable, stats, inputs, mask, key)
            total = jnp.sum(self.loss(logits, labels) * mask)
            correct = jnp.sum((jnp.argmax(logits, -1) == labels) * mask)
            return total / count, (total, correct, stats)

        if self.remat != "none":
            kept = jax.checkpoint_policies.save_only_these_names(*KEPT[self.remat])
            loss_of = jax.checkpoint(loss_of, policy=kept)
        gradient = jax.grad(loss_of, has_aux=True)
        if self.accumulate == 1:
            gradients, sums = gradient(trainable, stats, batch, key)
        else:
            gradients, sums = _accumulated(gradient, trainable, stats, batch, key, self.accumulate)
        updates, opt_state = self.tx.update(gradients, opt_state, trainable)
        return optax.apply_updates(trainable, updates), opt_state, sums


@dataclass(frozen=True)
class Draws:
    """What a run draws its random numbers by.

    Attributes:
      seed: Of augmentation and dropout.
      steps_per_epoch: With the step it gives the epoch, which the augmentation draws by.
      augment_seed: Of the augmentation where it is not `seed`: runs that share it see the same
        augmented images.
    """

    seed: int | jax.Array
    steps_per_epoch: int | jax.Array
    augment_seed: int | jax.Array | None = None


def run_keys(seed: int | jax.Array) -> jax.Array:
    """Returns the (2,) keys of a run's draws: of augmentation and of dropout."""
    return jax.random.split(jax.random.key(seed, impl="threefry2x32"))


def make_train_step(
    model: nn.Module, freeze: freezing.Freeze, made_of: Input, recipe: Recipe, draws: Draws
) -> Callable[..., tuple[TrainState, dict[str, jax.Array]]]:
    """Makes the training step.

    Args:
      model: A network with a head, whose `frozen_stats` are those of `freeze`.
      freeze: What learns. Gradients are taken of these leaves only, so nothing below the
        first of them is ever differentiated.
      made_of: What the network's input is.
      recipe: How it learns.
      draws: Of augmentation and dropout.

    Returns:
      A pure function (state, examples, index (B,) int32, mask (B,) float32) -> (state, sums),
      to be jitted; where index is None, the examples are the batch. `sums` has float32 scalars
      'loss' and 'correct', summed over the batch's real examples, and 'count'.
    """

    def train_step(
        state: TrainState,
        examples: Examples | ResidentExamples,
        index: jax.Array | None,
        mask: jax.Array,
    ) -> tuple[TrainState, dict[str, jax.Array]]:
        augment_seed = draws.seed if draws.augment_seed is None else draws.augment_seed
        augment_key = run_keys(augment_seed)[0]
        dropout_key = jax.random.fold_in(run_keys(draws.seed)[1], state.step)
        batch = _batch(examples, index)
        epoch = state.step // draws.steps_per_epoch
        images = augment.augment(batch.images, batch.ids, epoch, augment_key, recipe.policy)

        def forward(
            trainable: PyTree, stats: PyTree, images: jax.Array, mask: jax.Array, key: jax.Array
        ) -> tuple[jax.Array, PyTree]:
            (logits, _), updates = model.apply(
                {"params": freezing.merge(trainable, state.params), "batch_stats": stats},
                made_of.of(images),
                train=True,
                mask=mask,
                rngs={"dropout": key},
                mutable=["batch_stats"],
            )
            return logits, updates["batch_stats"]

        learnt, opt_state, (loss, correct, batch_stats) = recipe.learn(
            forward,
            freezing.mask(state.params, freeze),
            state.batch_stats,
            state.opt_state,
            (images, batch.labels, mask),
            dropout_key,
        )
        average, ema = state.ema, recipe.ema
        if ema:
            average = jax.tree.map(lambda old, new: ema * old + (1 - ema) * new, average, learnt)
        return (
            state.replace(
                step=state.step + 1,
                params=freezing.merge(learnt, state.params),
                batch_stats=batch_stats,
                opt_state=opt_state,
                ema=average,
            ),
            {"loss": loss, "correct": correct, "count": jnp.sum(mask)},
        )

    return train_step


def _accumulated(
    gradient: Callable[..., tuple[PyTree, Sums]],
    trainable: PyTree,
    batch_stats: PyTree,
    whole: Part,
    key: jax.Array,
    parts: int,
) -> tuple[PyTree, Sums]:
    """Sums the gradients and sums of a batch's parts; statistics go from part to part."""

    def split(array: jax.Array) -> jax.Array:
        # Each part takes every `parts`-th row, so that it has its share of every device's rows.
        return array.reshape(-1, parts, *array.shape[1:]).swapaxes(0, 1)

    def add(
        carry: tuple[PyTree, jax.Array, jax.Array, PyTree], numbered: tuple[jax.Array, Part]
    ) -> tuple[tuple[PyTree, jax.Array, jax.Array, PyTree], None]:
        gradients, loss, correct, stats = carry
        number, part = numbered
        more, (part_loss, part_correct, part_stats) = gradient(
            trainable, stats, part, jax.random.fold_in(key, number)
        )
        # In a part of padding alone nothing is normalised, and activations may overflow.
        real = jnp.sum(part[2]) > 0
        more, part_loss = jax.tree.map(lambda new: jnp.where(real, new, 0), (more, part_loss))
        gradients = jax.tree.map(jnp.add, gradients, more)
        return (gradients, loss + part_loss, correct + part_correct, part_stats), None

    none = jax.tree.map(jnp.zeros_like, trainable)
    zero = jnp.zeros((), jnp.float32)
    numbered = (jnp.arange(parts), jax.tree.map(split, whole))
    (gradients, loss, correct, stats), _ = jax.lax.scan(
        add, (none, zero, zero, batch_stats), numbered
    )
    return gradients, (loss, correct, stats)


def make_eval_step(model: nn.Module, made_of: Input) -> Callable[..., jax.Array]:
    """Makes the evaluation step.

    Returns:
      A pure function (params, batch_stats, examples, index or None) -> (B, classes) float32
      logits, without augmentation, dropout or batch statistics.
    """

    def eval_step(
        params: PyTree,
        batch_stats: PyTree,
        examples: Examples | ResidentExamples,
        index: jax.Array | None,
    ) -> jax.Array:
        inputs = made_of.of(_batch(examples, index).images)
        logits, _ = model.apply({"params": params, "batch_stats": batch_stats}, inputs)
        return logits

    return eval_step


def _batch(examples: Examples | ResidentExamples, index: jax.Array | None) -> Examples:
    """The batch: what is at an index of all examples, or what is given without one."""
    return cast(Examples, examples) if index is None else examples.at(index)
