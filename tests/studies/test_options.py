"""What an option changes of a run by itself, it changes of runs on a shared trunk."""

import itertools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend import core

from radimagenet_jax.studies import plan, shared, tails
from radimagenet_jax.training import config as config_pages
from radimagenet_jax.training import network, step
from radimagenet_jax.training.examples import Examples
from radimagenet_jax.training.fields import FIELDS, Changes
from radimagenet_jax.training.program import Values

OTHERS = {
    "dropout": 0.25,
    "head_init": "zeros",
    "loss": "keras2",
    "batch_norm_momentum": 0.5,
    "dtype": "bfloat16",
    "precision": "default",
    "optimizer.name": "sgd",
    "optimizer.b1": 0.5,
    "optimizer.b2": 0.5,
    "optimizer.eps": 1e-3,
    "optimizer.momentum": 0.5,
    "optimizer.weight_decay": 0.5,
    "optimizer.clip_norm": 1.0,
    "label_smoothing": 0.25,
    "class_weights": "balanced",
    "batch_size": 4,
    "image_size": 64,
    "augment": "none",
    "remat": "norms",
}
LABELS = np.array([0, 1, 1, 1], np.int32)


def shape(*sizes, dtype=jnp.float32):
    return jax.ShapeDtypeStruct(sizes, dtype)


def operations(jaxpr):
    """What a program computes, an operation a line, without the names that tracing invents."""
    for eqn in jaxpr.eqns:
        settings = {name: repr(value) for name, value in eqn.params.items()}
        plain = {name: text for name, text in settings.items() if not re.search("0x|lambda", text)}
        plain.pop("jaxpr", None)
        shapes = [str(out.aval) for out in eqn.outvars]
        numbers = [one.val for one in eqn.invars if isinstance(one, core.Literal)]
        yield f"{eqn.primitive.name} {shapes} {numbers} {plain}"
        for part in core.jaxprs_in_params(eqn.params):
            yield from operations(part)


def traced(config):
    """What is computed by a run alone, and by one on a shared trunk."""
    run = plan.runs(config)[0]
    single = plan.run_config(config, run)
    program = network.build(single, ("no", "yes")).program
    values = Values.of(single, LABELS, 2).arrays()
    size, batch = single.image_size, single.batch_size
    state = jax.eval_shape(lambda variables: program.state(variables, values), program.shapes)
    images = shape(batch, size, size, 1, dtype=jnp.uint8)
    ids = shape(batch, dtype=jnp.uint32)
    examples = Examples(images, shape(batch, dtype=jnp.int32), ids)
    variables = (state.params, state.batch_stats)
    alone = (
        jax.make_jaxpr(lambda *rest: program.train_step(values)(*rest[:2], None, rest[2]))(
            state, examples, shape(batch)
        ),
        jax.make_jaxpr(lambda *rest: program.eval_step(*rest, None))(*variables, examples),
    )

    programs = shared._compiled(program, batch, 0)
    learning, frozen = shared._divided(program)
    one = {name: shape(1, *leaf.shape, dtype=leaf.dtype) for name, leaf in learning.items()}
    params = {name: leaf for name, leaf in one.items() if name.startswith("params/")}
    stats = {name: leaf for name, leaf in one.items() if name not in params}
    stacked = jax.tree.map(lambda value: np.asarray(value)[None], values)
    learners = jax.eval_shape(lambda *own: tails.start(program, *own), stacked, params, stats)
    steps = tails.Batches(
        shape(1, 1, batch, dtype=jnp.int32), shape(1, 1, batch), shape(1, 1, dtype=bool)
    )
    key = jax.eval_shape(lambda: step.run_keys(0)[0])
    trunk = (frozen, images, ids, shape(dtype=jnp.int32), key)
    labels = shape(batch, dtype=jnp.int32)
    beside = (
        programs.train_trunk.trace(*trunk),
        programs.train.trace(
            learners, stacked, steps, frozen, programs.train_chunk.activations, labels
        ),
        programs.eval_trunk.trace(*trunk),
        programs.evaluate.trace(params, stats, steps.rows, frozen, programs.eval_chunk.activations),
    )
    return tuple(
        [*itertools.chain(*(operations(one.jaxpr) for one in each))] for each in (alone, beside)
    )


@pytest.fixture(scope="module")
def configured(make_config):
    def make(**fields):
        config = make_config(settings=(("layers=stage2.*", 1e-3),))
        config.loss, config.optimizer.name = "softmax", "adamw"
        for name, value in fields.items():
            config_pages.set_field(config, name, value)
        plan.validate(config)
        return config

    return make


@pytest.fixture(scope="module")
def before(configured):
    return traced(configured())


def test_every_option_of_programs_that_a_study_takes_is_tried_here():
    taken = {
        name
        for name, field in FIELDS.items()
        if field.changes is Changes.PROGRAM and field.in_study is None and not field.instead
    }
    assert taken == OTHERS.keys()


@pytest.mark.parametrize("name", OTHERS)
def test_an_option_that_changes_a_step_alone_changes_the_shared_one(name, configured, before):
    alone, beside = traced(configured(**{name: OTHERS[name]}))
    if alone != before[0]:
        assert beside != before[1]
    else:  # of first values, or of another optimiser
        assert name in ("head_init", "optimizer.momentum")
