"""The step: the one function that trains, on one CPU, eight GPUs or a pod.

A data set that fits lives on the devices as uint8, and each step gathers its own batch there by
index; of one that does not, it is given the batch. Either is augmented and normalised here.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from flax import struct

from radimagenet_jax.data import augment, preprocess
from radimagenet_jax.training import freezing, losses
from radimagenet_jax.training.adam import keras_adam
from radimagenet_jax.training.state import TrainState

PyTree = Any


class Examples(struct.PyTreeNode):
    """A split of a data set on the devices.

    Attributes:
      images: (N, S, S, 1 or 3) uint8, 0..255, RGB.
      labels: (N,) int32.
      ids: (N,) uint32, each example's identity for the augmentation's draws.
    """

    images: jax.Array
    labels: jax.Array
    ids: jax.Array

    def at(self, index: jax.Array | None) -> "Examples":
        """Returns the examples of a batch: those at its index (B,), or all where it is None."""
        if index is None:
            return self
        return Examples(self.images[index], self.labels[index], self.ids[index])


def make_optimizer(
    name: str, learning_rate: float | optax.Schedule, **options: float
) -> optax.GradientTransformation:
    """Makes the optimiser; Adam is Keras', with its epsilon of 1e-7 and where it is added.

    Args:
      name: 'adam' or 'sgd'.
      learning_rate: Constant over the run, as published, or of `schedules.schedule`.
      **options: b1, b2, eps for adam; momentum for sgd.

    Raises:
      ValueError: If the name is not known.
    """
    if name == "adam":
        return keras_adam(learning_rate, **options)
    if name == "sgd":
        return optax.sgd(learning_rate, **options)
    raise ValueError(f"unknown optimizer {name!r}; known are adam and sgd.")


def make_train_step(
    model: nn.Module,
    tx: optax.GradientTransformation,
    freeze: freezing.Freeze,
    *,
    scheme: str,
    policy: augment.Policy | None,
    seed: int,
    steps_per_epoch: int,
    channel_order: str = "",
    loss: losses.Loss = losses.softmax_cross_entropy,
) -> Callable[..., tuple[TrainState, dict[str, jax.Array]]]:
    """Makes the training step.

    Args:
      model: A network with a head, whose `frozen_stats` are those of `freeze`.
      tx: The optimiser.
      freeze: What learns. Gradients are taken of these leaves only, so nothing below the
        first of them is ever differentiated.
      scheme: Preprocessing, a key of `preprocess.SCHEMES`.
      policy: Augmentation.
      seed: Seed of the draws of augmentation and dropout.
      steps_per_epoch: With the step it gives the epoch, which the augmentation draws by.
      channel_order: Of the input, see `preprocess.normalize`.
      loss: What is minimised, as a mean over the batch, see `losses`.

    Returns:
      A pure function (state, examples, index (B,) int32, mask (B,) float32) -> (state, sums),
      to be jitted; where index is None, the examples are the batch. `sums` has float32 scalars
      'loss' and 'correct', summed over the batch's real examples, and 'count'.
    """

    def train_step(
        state: TrainState, examples: Examples, index: jax.Array | None, mask: jax.Array
    ) -> tuple[TrainState, dict[str, jax.Array]]:
        augment_key, dropout_key = jax.random.split(jax.random.key(seed, impl="threefry2x32"))
        dropout_key = jax.random.fold_in(dropout_key, state.step)
        batch = examples.at(index)
        epoch = state.step // steps_per_epoch
        images = augment.augment(batch.images, batch.ids, epoch, augment_key, policy)
        inputs = preprocess.normalize(images, scheme, channel_order)
        labels = batch.labels

        def loss_of(trainable: PyTree) -> tuple[jax.Array, tuple[jax.Array, jax.Array, PyTree]]:
            (logits, _), updates = model.apply(
                {
                    "params": freezing.merge(trainable, state.params),
                    "batch_stats": state.batch_stats,
                },
                inputs,
                train=True,
                mask=mask,
                rngs={"dropout": dropout_key},
                mutable=["batch_stats"],
            )
            total = jnp.sum(loss(logits, labels) * mask)
            return total / jnp.sum(mask), (total, logits, updates["batch_stats"])

        trainable = freezing.mask(state.params, freeze)
        gradients, (loss_sum, logits, batch_stats) = jax.grad(loss_of, has_aux=True)(trainable)
        updates, opt_state = tx.update(gradients, state.opt_state, trainable)
        params = freezing.merge(optax.apply_updates(trainable, updates), state.params)
        correct = jnp.sum((jnp.argmax(logits, -1) == labels) * mask)
        return (
            state.replace(
                step=state.step + 1, params=params, batch_stats=batch_stats, opt_state=opt_state
            ),
            {"loss": loss_sum, "correct": correct, "count": jnp.sum(mask)},
        )

    return train_step


def make_eval_step(
    model: nn.Module, *, scheme: str, channel_order: str = ""
) -> Callable[..., jax.Array]:
    """Makes the evaluation step.

    Returns:
      A pure function (params, batch_stats, examples, index or None) -> (B, classes) float32
      logits, without augmentation, dropout or batch statistics.
    """

    def eval_step(
        params: PyTree, batch_stats: PyTree, examples: Examples, index: jax.Array | None
    ) -> jax.Array:
        inputs = preprocess.normalize(examples.at(index).images, scheme, channel_order)
        logits, _ = model.apply({"params": params, "batch_stats": batch_stats}, inputs)
        return logits

    return eval_step
