"""Laws of recording steps."""

import jax
import jax.numpy as jnp
import pytest

from radimagenet_jax.errors import ConfigError
from radimagenet_jax.training.profiling import Profiler, steps_of


def test_steps_are_a_range_or_none():
    assert list(steps_of("")) == []
    assert list(steps_of("5:8")) == [5, 6, 7, 8]
    assert list(steps_of("3:3")) == [3]


@pytest.mark.parametrize("text", ["5", "8:5", "0:3", "a:b", "1:2:3", ":"])
def test_anything_else_is_refused(text):
    with pytest.raises(ConfigError, match="FIRST:LAST"):
        steps_of(text)


@pytest.mark.parametrize("last", [4, 2])  # the run may end while it records
def test_the_named_steps_are_recorded_once(tmp_path, last):
    with Profiler(tmp_path, "2:3") as profiler:
        for done in range(1, last + 1):
            jax.block_until_ready(jnp.ones(3) * done)
            profiler.step(done)
    assert len(list(tmp_path.rglob("*.xplane.pb"))) == 1


def test_without_steps_nothing_is_written(tmp_path):
    with Profiler(tmp_path, "") as profiler:
        profiler.step(1)
    assert not list(tmp_path.iterdir())
