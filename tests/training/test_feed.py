"""Laws of the two feeds: the step cannot tell which of them it gets its examples from."""

import jax
import numpy as np
import pytest

from radimagenet_jax import models
from radimagenet_jax.data import augment, datasets, streaming
from radimagenet_jax.errors import DataError
from radimagenet_jax.models.preprocess import Input
from radimagenet_jax.training import evaluation, feed, freezing, initialise, sharding, state, step
from radimagenet_jax.training.optimizers import make_optimizer
from radimagenet_jax.training.order import DataOrder
from tests.conftest import COMPILED_QUICKLY

SIZE = 32
BATCH = 48
FIRST, LAST = 13, 17  # the end of an epoch, with its padding, is among them


@pytest.fixture(scope="module")
def splits(tmp_path_factory):
    folder = tmp_path_factory.mktemp("feed")
    return [
        datasets.load("phantom", folder, SIZE, streaming=streams) for streams in ("false", "true")
    ]


def trained(dataset):
    """Losses of a few steps, then the logits of the validation split."""
    mesh = sharding.make_mesh({"data": 1}, BATCH)
    model = models.create("resnet50", num_classes=2, stage_sizes=(1, 1, 1, 1), width=8, dropout=0.5)
    variables = initialise.scratch(model, SIZE, 0, "glorot_uniform")
    layers = models.architecture("resnet50").keras_layers()
    # Compiles soonest; how the batch comes about is the same for all of them.
    freeze = freezing.specify("freezeall", variables, layers)
    tx = make_optimizer("adam", 1e-3)
    order = DataOrder(700, BATCH, seed=3, shuffle=True)
    train_step = jax.jit(
        step.make_train_step(
            model,
            freeze,
            Input("caffe_div255"),
            step.Recipe(tx, policy=augment.POLICIES["rotate_flip"]),
            step.Draws(seed=1, steps_per_epoch=order.steps_per_epoch),
        ),
        compiler_options=COMPILED_QUICKLY,
    )
    current = state.create(variables, tx, freeze)
    losses = []
    for inputs in feed.feed(dataset.train, mesh).inputs(order, FIRST, LAST):
        current, sums = train_step(current, *inputs)
        losses.append(float(sums["loss"]))
    eval_step = jax.jit(
        step.make_eval_step(model, Input("caffe_div255")), compiler_options=COMPILED_QUICKLY
    )
    weights = {"params": current.params, "batch_stats": current.batch_stats}
    val = feed.feed(dataset.val, mesh)
    logits = evaluation.predict(eval_step, weights, val, len(dataset.val), BATCH)
    return losses, logits, state.digest(current.params, current.batch_stats)


def test_losses_weights_and_logits_are_equal_bit_for_bit(splits):
    (losses, logits, digest), (streamed_losses, streamed_logits, streamed_digest) = map(
        trained, splits
    )
    assert len(losses) == LAST - FIRST
    assert losses == streamed_losses
    assert digest == streamed_digest
    np.testing.assert_array_equal(logits, streamed_logits)
    assert logits.shape == (len(splits[0].val), 2)


def test_a_failing_read_reaches_whoever_takes_the_batch(splits, monkeypatch):
    def fail(*_):
        raise DataError("the disk is gone.")

    monkeypatch.setattr(streaming.StreamedSplit, "read", fail)
    mesh = sharding.make_mesh({"data": 1}, BATCH)
    inputs = feed.feed(splits[1].train, mesh).inputs(DataOrder(700, BATCH, 0, True), 0, 9)
    with pytest.raises(DataError, match="the disk is gone"):
        next(inputs)


def test_one_process_holds_every_row_of_a_batch():
    mesh = sharding.make_mesh({"data": 1}, BATCH)
    np.testing.assert_array_equal(sharding.local_rows(BATCH, mesh), np.arange(BATCH))
