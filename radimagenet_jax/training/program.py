"""What a run computes: one value from which model, steps and losses follow.

`train`, the studies, `estimate` and `aot` all compute by a `Program`, so that an option is added
here once and holds everywhere. Programs that compute alike are equal and have one hash,
whatever their runs' seeds, rates and data: what is compiled for one serves the others.
"""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Self

import jax
import numpy as np
import optax
from flax import linen as nn
from flax import struct
from ml_collections import ConfigDict, FrozenConfigDict

from radimagenet_jax import models
from radimagenet_jax.data import augment, tasks
from radimagenet_jax.errors import ConfigError
from radimagenet_jax.models.preprocess import Input
from radimagenet_jax.training import fields, freezing, initialise, losses, optimizers, schedules
from radimagenet_jax.training import state as states
from radimagenet_jax.training import step as steps

PyTree = Any

# Steps are counted in 32 bits.
_MOST_STEPS = 2**31 - 1
# The largest published batch is 1,024: a batch like it is padded for however few images there are.
_PADDED_BATCH = 4096


class Values(struct.PyTreeNode):
    """The numbers that a run gives to its program; those of R runs are stacked.

    Attributes:
      learning_rate: The highest of the run.
      seed: Of augmentation and dropout.
      augment_seed: Of the augmentation's draws.
      steps_per_epoch: Steps in an epoch.
      total_steps: Steps in the run.
      class_weights: (classes,) float32, or None if classes weigh the same.
    """

    learning_rate: Any
    seed: Any
    augment_seed: Any
    steps_per_epoch: Any
    total_steps: Any
    class_weights: Any = None

    @classmethod
    def of(cls, config: ConfigDict, labels: np.ndarray, classes: int) -> "Values":
        """Those of a config, for a training split.

        Args:
          config: Of `configs/base.py`.
          labels: (N,) integers of the training split.
          classes: How many there are.

        Raises:
          ConfigError: If they are more steps than can be counted, or batches are mostly padding.
        """
        steps_per_epoch = -(-len(labels) // config.batch_size)
        if config.batch_size > max(_PADDED_BATCH, 4 * len(labels)):
            raise ConfigError(
                f"config.batch_size is {config.batch_size}, but there are {len(labels):,} images "
                "to train on, and the rest of each batch would be padding; make it smaller."
            )
        if config.epochs * steps_per_epoch > _MOST_STEPS:
            raise ConfigError(
                f"config.epochs={config.epochs} of {steps_per_epoch:,} steps are "
                f"{config.epochs * steps_per_epoch:,} steps, but a run has {_MOST_STEPS:,} at "
                "most; take fewer epochs or a larger config.batch_size."
            )
        balanced = config.class_weights == "balanced"
        return cls(
            learning_rate=config.optimizer.learning_rate,
            seed=config.seed,
            augment_seed=config.seed if config.augment_seed < 0 else config.augment_seed,
            steps_per_epoch=steps_per_epoch,
            total_steps=config.epochs * steps_per_epoch,
            class_weights=losses.class_weights(labels, classes) if balanced else None,
        )

    def arrays(self) -> "Values":
        """The same as arguments of a compiled function."""
        return self.replace(
            learning_rate=np.float32(self.learning_rate),
            seed=np.uint32(self.seed),
            augment_seed=np.uint32(self.augment_seed),
            steps_per_epoch=np.int32(self.steps_per_epoch),
            total_steps=np.int32(self.total_steps),
        )


@dataclass(frozen=True)
class Program:
    """A network, what learns of it, and how.

    Attributes:
      form: The fields of a config that decide what is computed.
      input: What the network's input is.
      class_names: Of the head, in index order.
      variant: Of the network.
      devices: That share a batch, for statistics of their own.
    """

    form: FrozenConfigDict
    input: Input
    class_names: tuple[str, ...]
    variant: str = ""
    devices: int = 1

    @classmethod
    def of(
        cls,
        config: ConfigDict,
        made_of: Input,
        class_names: tuple[str, ...],
        variant: str = "",
        devices: int = 1,
    ) -> Self:
        """The program of a config of `configs/base.py`, checked; see the attributes."""
        form = _compiled(config)
        if form["batch_norm_statistics"] != "per_device":
            devices = 1
        return cls(FrozenConfigDict(form), made_of, class_names, variant, devices)

    @functools.cached_property
    def model(self) -> nn.Module:
        """The network with its head, its frozen BatchNorms in inference mode in training."""
        return self.exact_model.clone(precision=self.form.precision)

    @functools.cached_property
    def exact_model(self) -> nn.Module:
        """The same, whose products are float32 on every chip if the network is: for evaluation."""
        return self._network.clone(frozen_stats=self.freeze.frozen_stats, stats_groups=self.devices)

    @functools.cached_property
    def _network(self) -> models.Network:
        fields = dict(self.form.model_options)
        if self.variant:
            fields["variant"] = self.variant
        return models.create(
            self.form.model,
            num_classes=len(self.class_names),
            dropout=self.form.dropout,
            head_init=self.form.head_init,
            dtype=self.form.dtype,
            bn_momentum=self.form.batch_norm_momentum,
            **fields,
        )

    @property
    def input_shape(self) -> tuple[int, ...]:
        """(S, S, 3) of an image, or whatever else the model takes of an example."""
        return (self.form.image_size, self.form.image_size, 3)

    def prepared(self, examples: jax.Array) -> jax.Array:
        """Turns augmented examples into the model's input."""
        return self.input.of(examples)

    @functools.cached_property
    def shapes(self) -> dict[str, PyTree]:
        """Shapes and dtypes of the network's variables."""
        return models.variable_shapes(self._network, self.form.image_size)

    def scratch(self, seed: int) -> dict[str, PyTree]:
        """Random variables on the host, see `initialise.scratch`."""
        size, head_init = self.form.image_size, self.form.head_init
        return initialise.scratch(self._network, size, seed, head_init)

    @functools.cached_property
    def freeze(self) -> freezing.Freeze:
        """What learns."""
        architecture = models.architecture(self.form.model)
        layers = architecture.layers(self._network, self.form.image_size)
        return freezing.specify(self.form.structure, self.shapes, layers)

    def learns(self, name: str) -> bool:
        """Tells whether a variable, such as 'params/stem/conv/kernel', changes in training."""
        collection, _, path = name.partition("/")
        if collection == "params":
            return path in self.freeze.trainable
        return path.rpartition("/")[0] not in self.freeze.frozen_stats

    @functools.cached_property
    def policy(self) -> augment.Policy | None:
        """The augmentation."""
        name = self.form.augment
        return augment.POLICIES[
            tasks.TASKS[self.form.task].augment if name == "published" else name
        ]

    def rate(self, values: Values) -> Any:
        """The learning rate, a number or a function of the steps taken."""
        return schedules.schedule(
            self.form.schedule.name,
            values.learning_rate,
            self.form.schedule.warmup_epochs,
            values.steps_per_epoch,
            values.total_steps,
        )

    def loss(self, class_weights: Any) -> losses.Loss:
        """What is minimised, of single examples."""
        return losses.loss_of(self.form.loss, self.form.label_smoothing, class_weights)

    def recipe(self, values: Values) -> steps.Recipe:
        """How the network learns."""
        return steps.Recipe(
            tx=optimizers.make_optimizer(
                **self.form.optimizer.to_dict(), learning_rate=self.rate(values)
            ),
            loss=self.loss(values.class_weights),
            policy=self.policy,
            accumulate=self.form.accumulate,
            ema=self.form.ema,
            remat=self.form.remat,
        )

    def state(self, variables: Mapping[str, PyTree], values: Values) -> states.TrainState:
        """The first state of {'params', 'batch_stats'}."""
        tx: optax.GradientTransformation = self.recipe(values).tx
        return states.create(variables, tx, self.freeze, ema=bool(self.form.ema))

    def train_step(self, values: Values) -> Callable[..., tuple[states.TrainState, dict[str, Any]]]:
        """Of `step.make_train_step`; the values may be traced."""
        draws = steps.Draws(values.seed, values.steps_per_epoch, values.augment_seed)
        return steps.make_train_step(
            self.model, self.freeze, self.input, self.recipe(values), draws
        )

    @functools.cached_property
    def eval_step(self) -> Callable[..., jax.Array]:
        """Of `step.make_eval_step`."""
        return steps.make_eval_step(self.exact_model, self.input)


def _compiled(config: ConfigDict) -> dict[str, Any]:
    """The fields of which a program is made."""
    form: dict[str, Any] = _with_tuples(config.to_dict())
    form.pop("from_scratch", None)
    for name, field in fields.FIELDS.items():
        *parents, leaf = name.split(".")
        if field.changes is not fields.Changes.PROGRAM:
            del functools.reduce(dict.__getitem__, parents, form)[leaf]
    return form


def _with_tuples(value: Any) -> Any:
    """The same with tuples for lists, which JSON makes of them."""
    if isinstance(value, dict):
        return {key: _with_tuples(inner) for key, inner in value.items()}
    return tuple(map(_with_tuples, value)) if isinstance(value, (list, tuple)) else value
