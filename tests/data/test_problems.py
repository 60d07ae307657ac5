"""Laws of collecting what is wrong."""

import pytest

from radimagenet_jax.data.problems import SHOWN, Problems
from radimagenet_jax.errors import DataError


def collect(count: int) -> Problems:
    problems = Problems("folder")
    for number in range(count):
        with problems.collecting():
            raise DataError(f"row {number} is bad.")
    return problems


def test_no_problem_is_no_error():
    collect(0).check()


def test_one_problem_is_told_as_it_is():
    with pytest.raises(DataError, match=r"^row 0 is bad\.$"):
        collect(1).check()


@pytest.mark.parametrize("count", [2, SHOWN, SHOWN + 1, 1_000])
def test_many_are_told_together_and_counted(count):
    with pytest.raises(DataError) as info:
        collect(count).check()
    first, *rest = str(info.value).splitlines()
    assert first == f"folder has {count:,} problems:"
    assert rest[:SHOWN] == [f"  row {number} is bad." for number in range(min(count, SHOWN))]
    assert rest[SHOWN:] == ([f"  ... and {count - SHOWN:,} more."] if count > SHOWN else [])


def test_other_errors_pass():
    with pytest.raises(ZeroDivisionError), Problems("folder").collecting():
        raise ZeroDivisionError
