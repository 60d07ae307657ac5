"""A run that shares nothing, by the ordinary training step, compiled once for all of its form."""

import functools
import json
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from radimagenet_jax import config as config_pages
from radimagenet_jax import models
from radimagenet_jax.models import ops
from radimagenet_jax.studies import plan
from radimagenet_jax.studies.course import Course
from radimagenet_jax.studies.images import Images
from radimagenet_jax.training import freezing, initialise, losses, network
from radimagenet_jax.training import state as states
from radimagenet_jax.training import step as steps
from radimagenet_jax.training.order import DataOrder, padded
from radimagenet_jax.weights.contract import Contract


def train(
    config: ConfigDict,
    run: plan.Run,
    images: Images,
    positive: int,
    after_epoch: Callable[[int], None],
) -> tuple[Course, dict[str, Any]]:
    """Trains a run; the arguments and the result are those of `shared.train`, for one run."""
    single = plan.run_config(config, run)
    _, variables, contract = network.build(single, images.class_names)
    form, freeze = _form(single, contract, images.class_names)
    train_step, eval_step = _programs(*form)
    # A copy, since the first step takes the state's memory.
    state = jax.device_put(states.create(variables, _optimizer(single, 0.0), freeze))
    places = images.splits[run.fold]["train"]
    order = DataOrder(len(places), single.batch_size, run.seed, single.shuffle)
    weights = None
    if single.class_weights == "balanced":
        weights = losses.class_weights(images.labels[places], len(images.class_names))
    loss = losses.loss_of(single.loss, single.label_smoothing, weights)
    values = {
        "learning_rate": np.float32(run.learning_rate),
        "seed": np.uint32(run.seed),
        "augment_seed": np.uint32(single.augment_seed),
        "steps_per_epoch": np.int32(order.steps_per_epoch),
        "weights": weights,
    }

    def logits(split: str, params: Any, stats: Any) -> np.ndarray:
        own = images.splits[run.fold][split]
        parts = []
        for start in range(-(-len(own) // single.batch_size)):
            index, _ = padded(own, start, single.batch_size)
            parts.append(np.asarray(eval_step(params, stats, _examples(images, index), None)))
        return np.concatenate(parts)[: len(own)]

    course = Course(run)
    best: tuple[Any, Any] | None = None
    for epoch in range(single.epochs):
        total = 0.0
        for k in range(order.steps_per_epoch):
            index, mask = order.batch(epoch * order.steps_per_epoch + k)
            state, sums = train_step(values, state, _examples(images, places[index]), mask)
            total += float(sums["loss"])
            if not np.isfinite(total):
                break
        own = logits("val", state.params, state.batch_stats)
        if course.after_epoch(total / len(places), own, loss, images, positive):
            best = states.copied((state.params, state.batch_stats))
        after_epoch(epoch + 1)
        if course.reason is not None:
            break
    if best is not None:
        for split in ("val", "test"):
            course.finish(split, logits(split, *best), images, positive)
    return course, {"activation_bytes": 0, "trunk_images": 0, "warnings": []}


def _examples(images: Images, places: np.ndarray) -> steps.Examples:
    parts = (images.read(places), images.labels[places], images.ids[places])
    return steps.Examples(*map(jnp.asarray, parts))


def _optimizer(single: ConfigDict, learning_rate: Any) -> Any:
    return steps.make_optimizer(**{**single.optimizer, "learning_rate": learning_rate})


def _form(
    single: ConfigDict, contract: Contract, class_names: tuple[str, ...]
) -> tuple[tuple[Any, ...], freezing.Freeze]:
    """What the compiled steps depend on, hashable; and what learns."""
    form = single.to_dict()
    for field in ("init", "seed", "augment_seed", "epochs", "log_every", "checkpoint_every"):
        del form[field]
    del form["dataset"]
    del form["optimizer"]["learning_rate"]
    key = (
        json.dumps(form, sort_keys=True),
        contract.variant,
        contract.preprocessing,
        contract.channel_order,
        class_names,
    )
    return key, _freeze(single, class_names, contract.variant)


def _freeze(single: ConfigDict, class_names: tuple[str, ...], variant: str) -> freezing.Freeze:
    shapes = initialise.shapes(network.module(single, class_names, variant), single.image_size)
    layers = models.architecture(single.model).keras_layers()
    return freezing.specify(single.structure, shapes, layers)


@functools.lru_cache(maxsize=2)
def _programs(
    form: str, variant: str, scheme: str, channel_order: str, class_names: tuple[str, ...]
) -> tuple[Callable[..., Any], Callable[..., Any]]:
    single = ConfigDict(json.loads(form))
    single.model_options = ConfigDict(
        {k: tuple(v) if isinstance(v, list) else v for k, v in single.model_options.items()}
    )
    freeze = _freeze(single, class_names, variant)
    model = network.module(single, class_names, variant).clone(frozen_stats=freeze.frozen_stats)

    @functools.partial(ops.jit, donate_argnums=1)
    def train_step(
        values: dict[str, Any], state: states.TrainState, batch: steps.Examples, mask: jax.Array
    ) -> Any:
        # The learning rate, the seeds and the fold's length are values of the compiled step.
        one = steps.make_train_step(
            model,
            _optimizer(single, values["learning_rate"]),
            freeze,
            scheme=scheme,
            policy=config_pages.augmentation(single),
            seed=values["seed"],
            augment_seed=values["augment_seed"],
            steps_per_epoch=values["steps_per_epoch"],
            channel_order=channel_order,
            loss=losses.loss_of(single.loss, single.label_smoothing, values["weights"]),
            remat=single.remat,
        )
        return one(state, batch, None, mask)

    evaluate = steps.make_eval_step(model, scheme=scheme, channel_order=channel_order)
    return train_step, ops.jit(evaluate)
