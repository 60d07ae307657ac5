"""Every surface keeps its promise on a few inputs; many more are tried by hand."""

import pytest

from radimagenet_jax import models
from tests.fuzz import harness
from tests.fuzz.harness import known

INPUTS = 25


@pytest.fixture(autouse=True)
def networks_of_surfaces():
    """A surface may make a small network known; other tests are not to meet it."""
    before = dict(models._architectures())
    yield
    models._architectures().clear()
    models._architectures().update(before)


@pytest.mark.parametrize("name", known())
def test_inputs_are_taken_rightly_or_refused_in_a_sentence(name):
    tally = harness.run(known()[name], INPUTS, seed=1)
    assert not tally.bad, tally.bad[0]


def _explode(made):
    raise ValueError(made)


def _die(made):
    import os

    os.abort()


def test_the_harness_sees_what_it_looks_for():
    def surface(attempt, **fields):
        return harness.Surface("own", lambda rng, folder: str(folder), attempt, **fields)

    def leave(folder):
        from pathlib import Path

        Path(folder, "half").write_text("x")

    def verdict(one):
        (outcome,) = harness.run(one, 1, 0).outcomes
        return outcome.verdict

    assert verdict(surface(_explode)) == "trace"
    assert verdict(surface(_die)) == "crash"
    assert verdict(surface(leave)) == "left behind"
    assert verdict(surface(leave, outputs=frozenset({"half"}))) == "accepted"
    assert verdict(surface(lambda made: (b"x" * 2**30).count(b"y"))) == "memory"
    assert verdict(surface(lambda made: 1, judge=lambda made, result: "no")) == "wrong"
