"""Laws of a run's directory, its log and its clock."""

import json
import multiprocessing

import pytest
from ml_collections import ConfigDict

from configs import base
from radimagenet_jax.errors import ConfigError
from radimagenet_jax.training import clock as clocks
from radimagenet_jax.training import tally, writers
from radimagenet_jax.training.workdir import Workdir

CONFIG = ConfigDict({"model": "resnet50", "epochs": 3, "log_every": 10})


def test_a_directory_belongs_to_one_config(tmp_path):
    Workdir(tmp_path / "run", CONFIG).close()
    Workdir(tmp_path / "run", CONFIG).close()
    (tmp_path / "run" / "checkpoints" / "8").mkdir(parents=True)
    other = ConfigDict({**CONFIG.to_dict(), "epochs": 4})
    with pytest.raises(ConfigError, match="epochs: 3 -> 4"):
        Workdir(tmp_path / "run", other)
    kept = json.loads((tmp_path / "run" / "config.json").read_text())
    assert kept["epochs"] == 3


def test_a_directory_made_before_a_field_was_there_belongs_to_the_run_with_its_default(tmp_path):
    config = base.get_config()
    Workdir(tmp_path, config).close()
    (tmp_path / "checkpoints" / "8").mkdir(parents=True)
    earlier = config.to_dict()
    for field in ("weight_decay", "clip_norm"):
        del earlier["optimizer"][field]
    (tmp_path / "config.json").write_text(json.dumps(earlier))
    Workdir(tmp_path, config).close()
    config.optimizer.clip_norm = 1.0
    with pytest.raises(ConfigError, match=r"optimizer\.clip_norm: 0\.0 -> 1\.0"):
        Workdir(tmp_path, config)


def test_a_mistake_can_be_mended_before_the_first_checkpoint(tmp_path):
    Workdir(tmp_path / "run", CONFIG).close()
    mended = ConfigDict({**CONFIG.to_dict(), "epochs": 4})
    Workdir(tmp_path / "run", mended).close()
    assert json.loads((tmp_path / "run" / "config.json").read_text())["epochs"] == 4


def hold(path, ready, done):
    run = Workdir(path, CONFIG)
    ready.set()
    done.wait(30)
    run.close()


def test_two_processes_in_one_directory_refuse_each_other(tmp_path):
    context = multiprocessing.get_context("spawn")
    ready, done = context.Event(), context.Event()
    other = context.Process(target=hold, args=(tmp_path / "run", ready, done))
    other.start()
    try:
        assert ready.wait(60)
        with pytest.raises(ConfigError, match="another process"):
            Workdir(tmp_path / "run", CONFIG)
    finally:
        done.set()
        other.join(30)
    Workdir(tmp_path / "run", CONFIG).close()


def test_a_folder_with_other_things_in_it_is_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(ConfigError, match="holds no run"):
        Workdir(tmp_path, CONFIG)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"
    with pytest.raises(ConfigError, match="cannot use"):
        Workdir(tmp_path / "thesis.txt" / "run", CONFIG)


def test_a_damaged_config_is_named(tmp_path):
    Workdir(tmp_path, CONFIG).close()
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ConfigError, match=r"config\.json is damaged"):
        Workdir(tmp_path, CONFIG)


def test_a_resumed_log_has_each_row_once_and_no_torn_line(tmp_path):
    log = writers.MetricWriter(tmp_path, resume_step=0)
    for step in (1, 2, 3):
        log.write(step, "train", loss=1 / step)
    log.close()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "spl')  # what a kill leaves
    assert [row["step"] for row in writers.read_metrics(tmp_path)] == [1, 2, 3]
    log = writers.MetricWriter(tmp_path, resume_step=2)
    log.write(3, "train", loss=0.5)
    log.close()
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [(row["step"], row["loss"]) for row in rows] == [(1, 1.0), (2, 0.5), (3, 0.5)]


def test_figures_that_are_no_numbers_are_null(tmp_path):
    log = writers.MetricWriter(tmp_path, resume_step=0)
    log.write(1, "val", loss=float("nan"), auroc=None, accuracy=float("inf"))
    log.close()
    (row,) = writers.read_metrics(tmp_path)
    assert row == {"step": 1, "split": "val", "loss": None, "auroc": None, "accuracy": None}
    assert list((tmp_path / "tensorboard").iterdir())


def test_the_clock_counts_training_and_neither_pauses_nor_the_first_step(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(clocks.time, "perf_counter", lambda: now[0])
    clock = clocks.Clock()

    def pass_time(seconds):
        now[0] += seconds

    clock.start()
    pass_time(30)  # compiles
    clock.step(16)
    for _ in range(4):
        clock.start()
        pass_time(2)
        clock.step(16, waited=0.25, sending=0.5, device=1.0)
    clock.stop()
    with clock.spending("evaluation"):
        pass_time(1000)
    with clock.spending("saving"):
        pass_time(1)
    assert clock.images_per_second == pytest.approx(8)
    assert clock.seconds == pytest.approx(38)
    assert clock.input_wait == pytest.approx(0.125)
    assert clock.outside_step == pytest.approx(0.25)
    # The parts add up to the whole, and none hides another.
    assert clock.parts == pytest.approx(
        {
            "input": 1,
            "sending": 2,
            "device": 4,
            "host": 31,
            "evaluation": 1000,
            "saving": 1,
        }
    )
    assert sum(clock.parts.values()) == pytest.approx(now[0] - 100)
    resumed = clocks.Clock(**clock.to_json())
    resumed.start()
    pass_time(10)
    resumed.step(16)
    assert resumed.seconds == pytest.approx(48)
    assert resumed.images_per_second == pytest.approx(8)


def test_memory_survives_json():
    kept = tally.Tally()
    kept.add({"loss": 2.0, "correct": 3.0, "count": 4.0})
    kept.best_loss, kept.best_step = 0.1 + 0.2, 12
    again = tally.Tally.from_json(json.loads(json.dumps(kept.to_json())))
    assert again == kept
    assert (again.loss, again.accuracy) == (0.5, 0.75)
