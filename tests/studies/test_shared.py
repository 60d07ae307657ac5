"""Runs beside each other on a shared trunk end as each of them ends alone."""

import numpy as np
import pytest

from radimagenet_jax import models
from radimagenet_jax.studies import alone, plan, shared
from tests.studies.conftest import LAST_LAYERS


def nothing(epoch):
    pass


def assert_equal_courses(ours, theirs):
    assert ours.run == theirs.run
    assert ours.reason is None
    assert theirs.reason is None
    for epoch, expected in zip(ours.history, theirs.history, strict=True):
        for field in ("train_loss", "val_loss"):
            assert epoch[field] == pytest.approx(expected[field], abs=1e-4, rel=1e-4)
        assert epoch["val_auroc"] == pytest.approx(expected["val_auroc"], abs=1e-3)
    assert ours.best_epoch == theirs.best_epoch
    for split in ("val", "test"):
        np.testing.assert_allclose(
            ours.scored[split].scores, theirs.scored[split].scores, atol=1e-4
        )
        assert ours.scored[split].keys == theirs.scored[split].keys
        assert ours.aurocs[split] == pytest.approx(theirs.aurocs[split], abs=1e-3)


@pytest.mark.parametrize("name", models.names())
def test_a_run_on_a_shared_trunk_equals_the_run_alone(name, make_config, make_images):
    # At the published rates the first steps of Adam make a gradient of rounding errors as large as
    # any other; at these the runs compare to seven digits.
    config = make_config(name, settings=((LAST_LAYERS[name], 1e-4), (LAST_LAYERS[name], 3e-5)))
    images = make_images(config.image_size)
    (group,) = plan.groups(config)
    assert len(group.runs) == 4
    courses, figures = shared.train(config, group.runs, images, 1, nothing)
    assert figures["trunk_images"] <= len(images) * (config.epochs + 2)
    # Of the two folds, whose lengths differ, one run each, at different rates.
    for ours in (courses[0], courses[3]):
        theirs, _ = alone.train(config, ours.run, images, 1, nothing)
        assert_equal_courses(ours, theirs)


def test_freezeall_under_vmap_equals_the_run_alone(make_config, make_images):
    config = make_config()
    images = make_images(config.image_size)
    (group,) = plan.groups(config)
    courses, _ = shared.train(config, group.runs, images, 1, nothing)
    theirs, _ = alone.train(config, group.runs[1], images, 1, nothing)
    assert_equal_courses(courses[1], theirs)
