"""A run that shares nothing, by the ordinary training step, compiled once for all of its form."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from radimagenet_jax.models import ops
from radimagenet_jax.studies import plan, record
from radimagenet_jax.studies.course import Course
from radimagenet_jax.studies.images import Images
from radimagenet_jax.training import network
from radimagenet_jax.training import state as states
from radimagenet_jax.training.examples import Examples
from radimagenet_jax.training.order import DataOrder, padded
from radimagenet_jax.training.program import Program, Values


def train(
    config: ConfigDict,
    run: plan.Run,
    images: Images,
    positive: int,
    after_epoch: Callable[[int], None],
) -> tuple[Course, dict[str, Any]]:
    """Trains a run; the arguments and the result are those of `shared.train`, for one run."""
    single = plan.run_config(config, run)
    start = network.build(single, images.class_names)
    program = start.program
    train_step, eval_step = _compiled(program)
    places = images.splits[run.fold]["train"]
    values = Values.of(single, images.labels[places], len(images.class_names)).arrays()
    # A copy, since the first step takes the state's memory.
    state = jax.device_put(program.state(start.variables, values))
    order = DataOrder(len(places), single.batch_size, run.seed, single.shuffle)
    loss = program.loss(values.class_weights)

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
    known = record.weights(single, start)
    return course, {"activation_bytes": 0, "trunk_images": 0, "warnings": [], **known}


def _examples(images: Images, places: np.ndarray) -> Examples:
    parts = (images.read(places), images.labels[places], images.ids[places])
    return Examples(*map(jnp.asarray, parts))


@functools.lru_cache(maxsize=2)
def _compiled(program: Program) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """The steps of all runs of a program, whose values are theirs to give."""

    @functools.partial(ops.jit, donate_argnums=1)
    def train_step(
        values: Values, state: states.TrainState, batch: Examples, mask: jax.Array
    ) -> tuple[states.TrainState, dict[str, jax.Array]]:
        return program.train_step(values)(state, batch, None, mask)

    return train_step, ops.jit(program.eval_step)
