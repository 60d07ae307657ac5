"""What a config computes: its optimiser, learning rate, loss and training step."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import optax
from flax import linen as nn
from ml_collections import ConfigDict

from radimagenet_jax import config as config_pages
from radimagenet_jax.training import losses, schedules
from radimagenet_jax.training import state as states
from radimagenet_jax.training import step as steps
from radimagenet_jax.training.freezing import Freeze

PyTree = Any


@dataclass(frozen=True)
class Program:
    """A training run as functions, before anything is compiled.

    Attributes:
      step: Of `step.make_train_step`.
      create: Makes the first state of {'params', 'batch_stats'}.
      rate: The learning rate, a number or a function of the steps taken.
      loss: What is minimised, of single examples.
    """

    step: Callable[..., tuple[states.TrainState, dict[str, Any]]]
    create: Callable[[Mapping[str, PyTree]], states.TrainState]
    rate: float | optax.Schedule
    loss: losses.Loss


def make(
    config: ConfigDict,
    model: nn.Module,
    freeze: Freeze,
    *,
    scheme: str,
    channel_order: str,
    steps_per_epoch: int,
    devices: int = 1,
    class_weights: np.ndarray | None = None,
) -> Program:
    """Reads a config.

    Args:
      config: Of `configs/base.py`, checked.
      model: The network with its head.
      freeze: What learns.
      scheme: Preprocessing, a key of `preprocess.SCHEMES`.
      channel_order: Of the input, see `preprocess.normalize`.
      steps_per_epoch: Steps in an epoch.
      devices: That share the batch.
      class_weights: Of `losses.class_weights`, or None.
    """
    rate = schedules.schedule(
        config.schedule.name,
        config.optimizer.learning_rate,
        config.schedule.warmup_epochs,
        steps_per_epoch,
        config.epochs * steps_per_epoch,
    )
    tx = steps.make_optimizer(**{**config.optimizer, "learning_rate": rate})
    loss = losses.loss_of(config.loss, config.label_smoothing, class_weights)
    per_device = config.batch_norm_statistics == "per_device"
    step = steps.make_train_step(
        model.clone(frozen_stats=freeze.frozen_stats, stats_groups=devices if per_device else 1),
        tx,
        freeze,
        scheme=scheme,
        policy=config_pages.augmentation(config),
        seed=config.seed,
        augment_seed=config.seed if config.augment_seed < 0 else config.augment_seed,
        steps_per_epoch=steps_per_epoch,
        channel_order=channel_order,
        loss=loss,
        accumulate=config.accumulate,
        ema=config.ema,
        remat=config.remat,
    )

    def create(variables: Mapping[str, PyTree]) -> states.TrainState:
        return states.create(variables, tx, freeze, ema=bool(config.ema))

    return Program(step, create, rate, loss)
