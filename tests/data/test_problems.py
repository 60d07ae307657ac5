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


@pytest.mark.parametrize("count", [SHOWN, SHOWN + 1, 2500])
def test_all_problems_are_in_a_file_where_they_are_more_than_a_screen_shows(tmp_path, count):
    listing = tmp_path / "new" / "problems.txt"
    problems = Problems("source", listing)
    for number in range(count):
        problems.add(f"row {number} is bad.")
    with pytest.raises(DataError) as caught:
        problems.check("Or skip them.")
    lines = str(caught.value).splitlines()
    assert lines[-1] == "  Or skip them."
    if count <= SHOWN:
        assert not listing.exists()
        return
    assert f"All {count:,} are in {listing}." in lines[-2]
    written = listing.read_text().splitlines()
    assert written == [f"row {number} is bad." for number in range(count)]


def test_a_listing_that_cannot_be_written_is_said(tmp_path):
    (tmp_path / "file").write_text("")
    problems = Problems("source", tmp_path / "file" / "problems.txt")
    for number in range(SHOWN + 1):
        problems.add(f"row {number} is bad.")
    with pytest.raises(DataError, match="could not all be written"):
        problems.check()
