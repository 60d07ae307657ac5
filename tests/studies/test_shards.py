"""Laws of a study that is computed in parts."""

import csv

import pytest

from radimagenet_jax.studies import engine, plan, session
from radimagenet_jax.studies.course import Course


@pytest.fixture
def computed(monkeypatch):
    """Groups in the order they are asked for; instead of training, each run is a failure."""
    asked = []

    def compute(config, ledger, groups, command):
        for group in groups:
            asked.append(group.id)
            courses = [Course(run, reason="a test") for run in group.runs]
            ledger.write_group(group, courses, {"seconds": 1.0, "status": "done"})

    monkeypatch.setattr(engine, "compute", compute)
    return asked


def test_shards_compute_each_group_once_and_merge_makes_the_table_of_all(
    make_config, tmp_path, computed
):
    config = make_config(settings=(("freezeall", 1e-2), ("unfreezeall", 1e-3)))
    groups = [group.id for group in plan.groups(config)]
    session.run(config, str(tmp_path), "0/2")
    assert not (tmp_path / "report.html").exists()
    session.run(config, str(tmp_path), "1/2")
    assert sorted(computed) == sorted(groups)
    assert session.merge(config, str(tmp_path)) == 1  # the runs have failed, and it says so
    assert (tmp_path / "report.html").exists()
    with open(tmp_path / "study.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["run"] for row in rows] == [run.id for run in plan.runs(config)]
