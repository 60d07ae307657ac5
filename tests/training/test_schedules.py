"""Laws of the learning rates of a run."""

import jax.numpy as jnp
import numpy as np
import pytest

from radimagenet_jax.training import schedules
from radimagenet_jax.training.optimizers import make_optimizer


def rates(name, warmup, total=100):
    made = schedules.schedule(name, 0.5, warmup, steps_per_epoch=10, total_steps=total)
    return np.array([schedules.rate(made, number) for number in range(total)])


def test_without_warm_up_a_constant_rate_is_a_number():
    assert schedules.schedule("constant", 0.5, 0.0, 10, 100) == 0.5


def test_a_warm_up_rises_by_equal_amounts_to_the_highest_rate():
    for name in schedules.NAMES:
        rise = rates(name, 2.0)[:21]
        np.testing.assert_allclose(np.diff(rise), 0.5 / 21, rtol=1e-4)
        assert rise[0] == pytest.approx(0.5 / 21)
        assert rise[20] == pytest.approx(0.5)


def test_the_cosine_falls_from_the_highest_rate_towards_zero():
    found = rates("cosine", 0.0)
    expected = 0.25 * (1 + np.cos(np.pi * np.arange(100) / 100))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)
    after = rates("cosine", 2.0)[20:]
    assert (np.diff(after) < 0).all()
    assert 0 < after[-1] < 0.001


def test_the_line_falls_by_equal_amounts_towards_zero():
    np.testing.assert_allclose(rates("linear", 0.0), 0.5 * (1 - np.arange(100) / 100), rtol=1e-5)
    after = rates("linear", 2.0)[20:]
    np.testing.assert_allclose(np.diff(after), -0.5 / 80, rtol=1e-3)


@pytest.mark.parametrize("epochs", [1.0, 50.0])
def test_a_warm_up_longer_than_the_run_still_ends(epochs):
    assert np.isfinite(rates("cosine", epochs, total=3)).all()


def test_the_optimiser_follows_the_schedule():
    made = schedules.schedule("cosine", 0.5, 1.0, 10, 100)
    tx = make_optimizer("sgd", made)
    parameter = {"w": jnp.ones(())}
    state = tx.init(parameter)
    for number in range(30):
        update, state = tx.update({"w": jnp.ones(())}, state, parameter)
        assert float(update["w"]) == pytest.approx(-schedules.rate(made, number), rel=1e-5)


def test_an_unknown_schedule_is_refused():
    with pytest.raises(ValueError, match="unknown schedule 'polynomial'"):
        schedules.schedule("polynomial", 0.5, 0.0, 10, 100)
