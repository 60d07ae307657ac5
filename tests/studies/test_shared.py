"""Runs beside each other on a shared trunk end as each of them ends alone."""

import functools

import jax
import numpy as np
import pytest

from radimagenet_jax.errors import ConfigError
from radimagenet_jax.studies import alone, plan, shared
from radimagenet_jax.training import network
from radimagenet_jax.training.program import Values
from tests.networks import KNOWN, each


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


@each(quick="resnet50")
def test_a_run_on_a_shared_trunk_equals_the_run_alone(name, make_config, make_images):
    # At the published rates the first steps of Adam make a gradient of rounding errors as large as
    # any other; at these the runs compare to seven digits.
    config = make_config(
        name, settings=((KNOWN[name].last_layers, 1e-4), (KNOWN[name].last_layers, 3e-5))
    )
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


def test_a_run_that_diverges_is_marked_and_the_others_are_untouched(make_config, make_images):
    images = make_images(32)
    healthy = make_config(settings=(("freezeall", 1e-3), ("freezeall", 1e-2)))
    with_bad = make_config(settings=(("freezeall", 1e-3), ("freezeall", 1e38)))
    expected, _ = shared.train(healthy, plan.groups(healthy)[0].runs, images, 1, nothing)
    courses, _ = shared.train(with_bad, plan.groups(with_bad)[0].runs, images, 1, nothing)
    for course, other in zip(courses[:2], expected[:2], strict=True):
        assert course.reason is None
        assert course.history == other.history
        np.testing.assert_array_equal(course.scored["test"].scores, other.scored["test"].scores)
    for course in courses[2:]:
        assert "not a finite number" in course.reason
        assert not course.scored


def test_activations_that_do_not_fit_are_computed_in_parts_to_the_same_result(
    make_config, make_images
):
    images = make_images(32)
    config = make_config()
    (group,) = plan.groups(config)
    whole, figures = shared.train(config, group.runs, images, 1, nothing)
    # Room for about 24 images: two folds' batches of 8 at a time.
    config.study.memory_gib = figures["activation_bytes"] / 2**30 * 0.45
    parts, more = shared.train(config, group.runs, images, 1, nothing)
    assert more["activation_bytes"] < figures["activation_bytes"]
    assert more["trunk_images"] > figures["trunk_images"]
    for ours, theirs in zip(parts, whole, strict=True):
        assert_equal_courses(ours, theirs)


def test_too_little_memory_for_one_step_is_refused(make_config, make_images):
    config = make_config(memory_gib=1e-8)
    with pytest.raises(ConfigError, match="memory_gib"):
        shared.train(config, plan.groups(config)[0].runs, make_images(32), 1, nothing)


def test_a_bounded_pool_of_views_is_computed_once(make_config, make_images):
    config = make_config(views=(2,))
    config.epochs = 6
    images = make_images(32)
    (group,) = plan.groups(config)
    courses, figures = shared.train(config, group.runs, images, 1, nothing)
    assert figures["trunk_images"] <= (2 + 2) * len(images)
    assert all(course.reason is None and course.run.views == 2 for course in courses)


@pytest.mark.parametrize("what", ["norms", "blocks"])
def test_computing_again_holds_on_a_shared_trunk_and_changes_no_course(
    what, make_config, make_images
):
    settings = ((KNOWN["resnet50"].last_layers, 1e-4),)
    config = make_config(settings=settings)
    images = make_images(config.image_size)
    runs = plan.groups(config)[0].runs[:1]
    (plain,), _ = shared.train(config, runs, images, 1, nothing)
    config.remat = what
    (again,), _ = shared.train(config, runs, images, 1, nothing)
    assert_equal_courses(again, plain)
    # The group's programs are those of this option and not of the run before.
    single = plan.run_config(config, runs[0])
    program = network.from_scratch(single, images.class_names)
    values = Values.of(single, images.labels, 2)
    batch = (np.ones((2, 2), np.float32), np.array([0, 1]), np.ones(2, np.float32))
    step = functools.partial(program.recipe(values).learn, lambda x, stats, y, *_: (x * y, stats))
    state = program.recipe(values).tx.init(1.0)
    assert "remat" in str(jax.make_jaxpr(step)(1.0, {}, state, batch, jax.random.key(0)))
