"""A study's files: locks, changed configs, full disks, tables."""

import csv
import multiprocessing
import os
import signal

import numpy as np
import pytest

from radimagenet_jax.errors import ConfigError, DataError
from radimagenet_jax.reports.study_files import COLUMNS
from radimagenet_jax.studies import plan
from radimagenet_jax.studies.course import Course
from radimagenet_jax.studies.ledger import Ledger


@pytest.fixture
def config(make_config):
    return make_config()


def failed(config):
    (group,) = plan.groups(config)
    return group, [Course(run, reason="a test") for run in group.runs]


def test_the_table_begins_with_the_promised_columns(config, tmp_path):
    ledger = Ledger(tmp_path, config)
    group, courses = failed(config)
    ledger.write_group(group, courses, {"seconds": 4.0, "status": "done"})
    assert ledger.is_done(group)
    ledger.write_table(plan.runs(config))
    with open(tmp_path / "study.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    promised = "dataset,model,init,structure,learning_rate,fold,seed,auroc_val,auroc_test,"
    promised += "best_epoch,seconds"
    assert list(rows[0])[:11] == promised.split(",") == list(COLUMNS[:11])
    assert len(rows) == 4
    assert {row["status"] for row in rows} == {"failed"}
    assert {row["seconds"] for row in rows} == {"1.0"}


def test_a_changed_config_is_refused_once_a_run_is_there_and_memory_is_no_change(config, tmp_path):
    ledger = Ledger(tmp_path, config)
    group, courses = failed(config)
    ledger.write_group(group, courses, {"seconds": 1.0, "status": "done"})
    config.study.memory_gib = 1.0
    Ledger(tmp_path, config)
    config.epochs = 7
    with pytest.raises(ConfigError, match="epochs: 3 -> 7"):
        Ledger(tmp_path, config)


def test_a_foreign_folder_is_refused(config, tmp_path):
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(ConfigError, match="holds no study"):
        Ledger(tmp_path, config)


def hold(path, config, group, ready):
    with Ledger(path, config).lock(group) as held:
        ready.put(held)
        signal.pause()


def test_two_processes_never_hold_one_group_and_a_killed_one_lets_it_go(config, tmp_path):
    (group,) = plan.groups(config)
    context = multiprocessing.get_context("spawn")
    ready = context.Queue()
    other = context.Process(target=hold, args=(tmp_path, config, group, ready))
    other.start()
    try:
        assert ready.get(timeout=60)
        ledger = Ledger(tmp_path, config)
        with ledger.lock(group) as held:
            assert not held
    finally:
        os.kill(other.pid, signal.SIGKILL)
        other.join()
    with ledger.lock(group) as held:
        assert held


def test_a_full_disk_is_one_sentence_and_leaves_no_half_file(config, tmp_path, monkeypatch):
    ledger = Ledger(tmp_path, config)
    group, courses = failed(config)

    def full(number):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DataError, match="No space left"):
        ledger.write_group(group, courses, {"seconds": 1.0, "status": "done"})
    monkeypatch.undo()
    assert not ledger.is_done(group)
    assert not list(tmp_path.rglob("*.tmp"))


def test_a_loss_that_is_no_number_fails_the_run_for_good(config, make_images):
    images = make_images(32)
    course = Course(plan.runs(config)[0])
    assert not course.after_epoch(np.nan, np.zeros((6, 2)), None, images, 1)
    assert "epoch 1" in course.reason
    assert course.history[0]["train_loss"] is None
