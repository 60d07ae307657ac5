"""Laws of the step's options: each computes what it is defined to compute."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from radimagenet_jax import models
from radimagenet_jax.data import augment
from radimagenet_jax.data.datasets import Split
from radimagenet_jax.models.preprocess import Input
from radimagenet_jax.training import freezing, initialise, sharding, stepping
from radimagenet_jax.training import state as states
from radimagenet_jax.training import step as steps
from radimagenet_jax.training.feed import feed as feed_of
from radimagenet_jax.training.optimizers import make_optimizer
from radimagenet_jax.training.order import DataOrder

SIDE, COUNT, BATCH = 32, 24, 8
RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (COUNT, SIDE, SIDE, 1), dtype=np.uint8)
LABELS = RNG.integers(0, 2, COUNT).astype(np.int32)
KEYS = tuple(f"image {number}" for number in range(COUNT))
SPLIT = Split(IMAGES, LABELS, KEYS, ("",) * COUNT, np.arange(COUNT, dtype=np.uint32))


def made(structure, *, dropout=0.0, ema=0.0, **options):
    """A shallow network's first state, its step, and the batch of step k."""
    model = models.create(
        "resnet50", num_classes=2, dropout=dropout, stage_sizes=(1,), width=4, bn_momentum=0.8
    )
    variables = initialise.scratch(model, SIDE, 0, "glorot_uniform")
    layers = models.architecture("resnet50").keras_layers()
    freeze = freezing.specify(structure, variables, layers)
    tx = make_optimizer("sgd", 0.05)
    policy = augment.POLICIES["shift_zoom"]
    step = steps.make_train_step(
        model.clone(frozen_stats=freeze.frozen_stats),
        freeze,
        Input("caffe_div255"),
        steps.Recipe(tx, policy=policy, ema=ema, **options),
        steps.Draws(seed=3, steps_per_epoch=3),
    )
    placed = jax.tree.map(jnp.asarray, variables)
    return states.create(placed, tx, freeze, ema=bool(ema)), step, freeze


def batch(real=BATCH):
    examples = steps.Examples(
        jnp.asarray(IMAGES[:BATCH]),
        jnp.asarray(LABELS[:BATCH]),
        jnp.arange(BATCH, dtype=jnp.uint32),
    )
    return examples, None, jnp.asarray(np.arange(BATCH) < real, jnp.float32)


def close(one, other, rtol=2e-5, atol=2e-6):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol, atol=atol), one, other)


@pytest.mark.parametrize("real", [BATCH, 3])  # with 3 images, some parts are padding alone
def test_a_batch_in_parts_has_the_gradient_of_the_whole(real):
    state, whole, _ = made("freezeall")
    _, in_parts, _ = made("freezeall", accumulate=4)
    one, one_sums = jax.jit(whole)(state, *batch(real))
    other, other_sums = jax.jit(in_parts)(state, *batch(real))
    close(one.params, other.params)
    close(one_sums, other_sums)
    assert float(other_sums["count"]) == real
    assert not np.allclose(one.params["head"]["kernel"], state.params["head"]["kernel"])


@pytest.mark.slow  # it compiles the step of all layers twice, as the next one
def test_the_statistics_of_parts_are_those_of_one_part_after_the_other():
    state, whole, _ = made("unfreezeall")
    _, in_parts, _ = made("unfreezeall", accumulate=2)
    after = jax.jit(in_parts)(state, *batch())[0].batch_stats
    examples, _, mask = batch()
    step = jax.jit(whole)
    expected = state
    for part in range(2):
        own = jax.tree.map(lambda leaf, part=part: leaf[part::2], examples)
        # The parameters stay those of before the step.
        stats = step(expected, own, None, mask[part::2])[0].batch_stats
        expected = state.replace(batch_stats=stats)
    close(after, expected.batch_stats)


def test_the_moving_average_follows_its_definition_and_leaves_training_alone():
    state, plain, freeze = made("freezeall")
    averaged, step, _ = made("freezeall", ema=0.7)
    plain, step = jax.jit(plain), jax.jit(step)
    expected = averaged.ema
    for _ in range(3):
        state, _ = plain(state, *batch())
        averaged, _ = step(averaged, *batch())
        learnt = freezing.mask(state.params, freeze)
        expected = jax.tree.map(lambda old, new: 0.7 * old + 0.3 * new, expected, learnt)
    close(averaged.params, state.params, atol=1e-7)
    close(averaged.ema, expected)
    evaluated = averaged.weights()["params"]
    close(evaluated["head"], expected["head"], atol=0)
    close(evaluated["stem"], state.params["stem"], atol=0)


@pytest.mark.slow
@pytest.mark.parametrize("what", ["norms", "blocks"])
def test_computing_again_changes_nothing_but_memory(what):
    state, plain, _ = made("unfreezeall", dropout=0.5)
    _, again, _ = made("unfreezeall", dropout=0.5, remat=what)
    one, _ = jax.jit(plain)(state, *batch())
    other, _ = jax.jit(again)(state, *batch())
    close(one.params, other.params)
    close(one.batch_stats, other.batch_stats)
    programs = [str(jax.make_jaxpr(step)(state, *batch())) for step in (plain, again)]
    assert ["remat" in program for program in programs] == [False, True]


def test_a_loop_takes_the_steps_that_single_calls_take_wherever_it_is_cut():
    mesh = sharding.make_mesh({"data": 1}, BATCH)
    order = DataOrder(COUNT, BATCH, seed=1, shuffle=True)
    feed = feed_of(SPLIT, mesh)
    found = []
    for how, cuts in (("false", []), ("true", []), ("true", [1, 2, 4, 5])):
        state, step, _ = made("freezeall", dropout=0.5)
        layout = sharding.state_layout(state, mesh, False)
        state = jax.tree.map(sharding.place, state, layout)
        taking = stepping.stepper(how, step, feed, order, layout, mesh)
        assert isinstance(taking, stepping.ScannedSteps) == (how == "true")
        taking.compile(state, 0, 6)
        done, losses = 0, []
        while done < 6:
            until = min([cut for cut in cuts if cut > done] + [order.next_boundary(done, 0)])
            state, made_of = taking.advance(state, done, until)
            done += made_of.sent
            assert done <= until
            losses += [float(row["loss"]) for row in made_of.rows]
        assert not taking.settle()
        found.append((losses, jax.device_get(state)))
    close(found[0], found[1])
    jax.tree.map(np.testing.assert_array_equal, found[1], found[2])


def test_a_few_steps_are_on_their_way_and_all_are_done_at_a_boundary():
    mesh = sharding.make_mesh({"data": 1}, BATCH)
    order = DataOrder(COUNT, BATCH, seed=1, shuffle=True)
    feed = feed_of(SPLIT, mesh)
    found = {}
    for in_flight in (1, 3):
        state, step, _ = made("freezeall", dropout=0.5)
        layout = sharding.state_layout(state, mesh, False)
        state = jax.tree.map(sharding.place, state, layout)
        taking = stepping.stepper("false", step, feed, order, layout, mesh, in_flight=in_flight)
        taking.compile(state, 0, 9)
        counts, losses = [], []
        for place in range(8):
            state, done = taking.advance(state, place, 6 if place < 6 else 9)
            counts.append(len(done.rows))
            losses += [float(row["loss"]) for row in done.rows]
        losses += [float(row["loss"]) for row in taking.settle()]
        assert counts == ([1] * 8 if in_flight == 1 else [0, 0, 1, 1, 1, 3, 0, 0])
        assert len(losses) == 8
        found[in_flight] = losses, jax.device_get(state)
    assert found[1][0] == found[3][0]
    jax.tree.map(np.testing.assert_array_equal, found[1][1], found[3][1])


def test_moments_are_split_where_the_devices_can_share_them():
    state, _, _ = made("unfreezeall")
    mesh = sharding.make_mesh({"data": 1}, BATCH)
    layout = sharding.state_layout(state, mesh, True)
    assert layout.params["head"]["kernel"] == sharding.replicated(mesh)
    tx = make_optimizer("adam", 0.1)
    moments = tx.init({"kernel": jnp.zeros((3, 3, 4, 16)), "scalar": jnp.zeros(())})
    split = sharding.state_layout(state.replace(opt_state=moments), mesh, True).opt_state
    specs = {leaf.spec for leaf in jax.tree.leaves(split)}
    assert specs == {PartitionSpec(), PartitionSpec(None, None, None, sharding.DATA_AXIS)}
