"""Every surface keeps its promise on a few inputs; many more are tried by hand."""

import pytest

from radimagenet_jax import models
from tests.fuzz import broken, harness
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


def test_the_harness_sees_what_it_looks_for():
    def verdict(attempt, **fields):
        surface = harness.Surface(
            "own",
            broken.make,
            attempt,
            **{"warm": broken.nothing, "judge": broken.no_fault, **fields},
        )
        (outcome,) = harness.run(surface, 1, 0).outcomes
        return outcome.verdict

    assert verdict(broken.explode) == "trace"
    assert verdict(broken.die) == "crash"
    assert verdict(broken.leave) == "left behind"
    assert verdict(broken.leave, outputs=frozenset({"half"})) == "accepted"
    assert verdict(broken.leave_beside) == "left behind"
    assert verdict(broken.grow) == "memory"
    assert verdict(str, judge=broken.find_fault) == "wrong"
