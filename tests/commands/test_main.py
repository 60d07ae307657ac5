"""Laws of the main job, run as a user runs it."""

import dataclasses
import json
import random
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from radimagenet_jax import load_pretrained, main
from radimagenet_jax.data import datasets
from radimagenet_jax.errors import ConfigError, UserError
from radimagenet_jax.reports import predictions

RESULT_KEYS = {
    "test", "val", "best_step", "train", "model", "init", "structure", "fold", "seed",
    "params_digest", "positive", "provenance", "machines",
}  # fmt: skip


def finish(process: subprocess.Popen) -> str:
    _, error = process.communicate(timeout=300)
    assert process.returncode == 0, error
    return error


def rows(workdir: Path) -> list[dict]:
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def losses(workdir: Path) -> list[float]:
    return [row["loss"] for row in rows(workdir) if row["split"] == "train"]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, start, page) -> Path:
    """A finished run that nothing disturbed."""
    workdir = tmp_path_factory.mktemp("undisturbed") / "run"
    finish(start("main", f"--config={page}", f"--workdir={workdir}"))
    return workdir


def test_the_network_says_on_what_it_was_trained(undisturbed):
    contract = load_pretrained(undisturbed).contract
    assert contract.origin == "trained on phantom, from random initialisation, seed 0"
    assert contract.labels == ("normal", "lesion")


def test_a_run_leaves_every_promised_file(undisturbed):
    result = json.loads((undisturbed / "result.json").read_text())
    assert result.keys() == RESULT_KEYS
    for split in ("val", "test"):
        assert {"auroc", "auroc_ci95", "accuracy", "loss", "n"} <= result[split].keys()
        low, high = result[split]["auroc_ci95"]
        assert low <= result[split]["auroc"] <= high
    assert result["train"].keys() == {
        "steps",
        "epochs",
        "seconds",
        "images_per_second",
        "input_wait",
        "outside_step",
        "parts",
    }
    assert 0 <= result["train"]["outside_step"] < 1
    assert json.loads((undisturbed / "config.json").read_text())["epochs"] == 3
    assert (undisturbed / "checkpoints").is_dir()
    assert list((undisturbed / "tensorboard").glob("events*"))
    made_of = result["provenance"]
    for name in ("made", "command", "versions", "device", "notice"):
        assert made_of[name]
    assert made_of["weights"] is None
    assert {"name", "fingerprint", "terms", "split", "sizes"} <= made_of["dataset"].keys()
    assert "3 of 30 epochs" in made_of["less"]
    page = (undisturbed / "report.html").read_text()
    for part in (made_of["made"], made_of["less"], made_of["dataset"]["fingerprint"]):
        assert part in page
    assert "<script" not in page
    assert "http://" not in page.replace("http://www.w3.org", "")


def test_every_step_and_every_epoch_is_in_the_log(undisturbed):
    result = json.loads((undisturbed / "result.json").read_text())
    log = rows(undisturbed)
    train = [row["step"] for row in log if row["split"] == "train"]
    assert train == list(range(1, result["train"]["steps"] + 1))
    val = {row["step"]: row["loss"] for row in log if row["split"] == "val"}
    assert len(val) == 3
    assert result["best_step"] == min(val, key=val.get)
    assert result["val"]["loss"] == pytest.approx(val[result["best_step"]], rel=1e-5)


def test_figures_can_be_recomputed_from_the_predictions(undisturbed):
    result = json.loads((undisturbed / "result.json").read_text())
    for split in ("val", "test"):
        scored = predictions.read(undisturbed / f"predictions_{split}.csv")
        assert len(scored.keys) == result[split]["n"]
        auroc = roc_auc_score(scored.labels, scored.scores[:, 1])
        assert auroc == pytest.approx(result[split]["auroc"], abs=1e-12)
        assert all(scored.patients)
        np.testing.assert_allclose(scored.scores.sum(1), 1, atol=1e-5)


def test_a_finished_run_is_left_alone(undisturbed, start, page):
    before = {p: p.stat().st_mtime_ns for p in undisturbed.rglob("*") if p.name != ".lock"}
    output = finish(start("main", f"--config={page}", f"--workdir={undisturbed}"))
    assert "is finished" in output
    result = json.loads((undisturbed / "result.json").read_text())
    assert f"positive: {result['positive']}" in output
    assert result["provenance"]["less"] in " ".join(output.split())
    assert before == {p: p.stat().st_mtime_ns for p in undisturbed.rglob("*") if p.name != ".lock"}


def disturbed_run(start, page, workdir, number, kills, seed):
    """Runs to the end in spite of signals at random times; returns the exit codes."""
    codes = []
    rng = random.Random(seed)
    for _ in range(kills):
        process = start("main", f"--config={page}", f"--workdir={workdir}")
        seen = len(rows(workdir)) if (workdir / "metrics.jsonl").exists() else 0
        deadline = time.monotonic() + 120
        # From the first new row on the run is training, evaluating or saving.
        while process.poll() is None and time.monotonic() < deadline:
            log = workdir / "metrics.jsonl"
            if log.exists() and len(log.read_text().splitlines()) > seen + 1:
                break
            time.sleep(0.02)
        time.sleep(rng.uniform(0, 1.0))
        process.send_signal(number)
        process.communicate(timeout=120)
        codes.append(process.returncode)
    finish(start("main", f"--config={page}", f"--workdir={workdir}"))
    return codes


@pytest.mark.parametrize(("number", "kills"), [(signal.SIGKILL, 1), (signal.SIGTERM, 1)])
def test_a_killed_run_ends_bitwise_equal_to_an_undisturbed_one(
    undisturbed, tmp_path, start, page, number, kills
):
    workdir = tmp_path / "run"
    codes = disturbed_run(start, page, workdir, number, kills, seed=int(number))
    expected_code = -signal.SIGKILL if number == signal.SIGKILL else 128 + signal.SIGTERM
    # The last kills may come after a quick run has ended.
    assert codes[0] == expected_code
    assert set(codes) <= {expected_code, 0}
    ours = json.loads((workdir / "result.json").read_text())
    theirs = json.loads((undisturbed / "result.json").read_text())
    assert ours["params_digest"] == theirs["params_digest"]
    assert ours["best_step"] == theirs["best_step"]
    assert ours["test"] == theirs["test"]
    assert losses(workdir) == losses(undisturbed)
    for split in ("val", "test"):
        name = f"predictions_{split}.csv"
        assert (workdir / name).read_bytes() == (undisturbed / name).read_bytes()


@pytest.mark.slow  # it compiles the step anew
def test_devices_share_a_batch_and_change_nothing(tmp_path, start, page, environment):
    # Adam divides rounding errors by themselves, and units of the ReLU flip: the steps are small.
    steady = (
        "--config.optimizer.name=sgd",
        "--config.optimizer.learning_rate=1e-6",
        "--config.optimizer.momentum=0.0",
    )
    found = []
    for devices, more in ((1, ()), (8, ("--config.shard_optimizer=true",))):
        workdir = tmp_path / f"run{devices}"
        flags = f"{environment['XLA_FLAGS']} --xla_force_host_platform_device_count={devices}"
        run = (f"--config={page}", f"--workdir={workdir}", "--config.epochs=1", *steady, *more)
        assert f"{devices} x cpu" in finish(start("main", *run, XLA_FLAGS=flags))
        found.append((losses(workdir), predictions.read(workdir / "predictions_test.csv")))
    np.testing.assert_allclose(found[0][0], found[1][0], rtol=1e-5)
    assert found[0][1].keys == found[1][1].keys
    np.testing.assert_allclose(found[0][1].scores, found[1][1].scores, atol=1e-5)


def test_devices_that_cannot_share_the_batch_are_refused_in_one_sentence(tmp_path, start, page):
    process = start(
        "main",
        f"--config={page}",
        f"--workdir={tmp_path / 'run'}",
        XLA_FLAGS="--xla_force_host_platform_device_count=3",
    )
    _, error = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "Traceback" not in error
    assert "batch_size 128 cannot be shared by 3 devices; use 126 or 129" in error


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--config.nonsense=1"], "no field 'nonsense'"),
        (["--config.structure=freezesome"], "'freezesome' is not known"),
        (["--config.structure=layers=nothing.*"], "matches 'nothing"),
        (["--config.dataset.name=atlantis"], "atlantis"),
        (["--config.dataset.positive=tumour"], "has the classes"),
        (["--config.init=missing.h5"], r"missing\.h5"),
        (["--config.preprocessing=native"], "'native' is the input of a weight file"),
    ],
)
def test_a_mistake_is_one_sentence_and_leaves_nothing_half_trained(
    tmp_path, page, arguments, sentence
):
    workdir = tmp_path / "run"
    with pytest.raises(UserError, match=sentence):
        main.main([f"--config={page}", f"--workdir={workdir}", *arguments])
    assert not (workdir / "result.json").exists()
    assert not list(workdir.glob("checkpoints/*/[0-9]*"))


def test_a_directory_of_another_config_is_refused(undisturbed, page):
    before = (undisturbed / "result.json").read_bytes()
    with pytest.raises(ConfigError, match=r"another config \(seed: 0 -> 1\)"):
        main.main([f"--config={page}", f"--workdir={undisturbed}", "--config.seed=1"])
    assert (undisturbed / "result.json").read_bytes() == before


def test_a_data_set_that_changed_under_a_run_is_refused(undisturbed, tmp_path, page, monkeypatch):
    workdir = tmp_path / "run"
    shutil.copytree(undisturbed, workdir)
    (workdir / "result.json").unlink()
    load = datasets.load
    monkeypatch.setattr(
        datasets,
        "load",
        lambda *found, **how: dataclasses.replace(load(*found, **how), fingerprint="0" * 64),
    )
    before = sorted(path.name for path in (workdir / "checkpoints").iterdir())
    with pytest.raises(ConfigError, match=r"is not the data that .* was trained on"):
        main.main([f"--config={page}", f"--workdir={workdir}"])
    assert sorted(path.name for path in (workdir / "checkpoints").iterdir()) == before


def test_a_loss_that_is_no_number_stops_the_run_and_names_the_step(tmp_path, start, page):
    process = start(
        "main",
        f"--config={page}",
        f"--workdir={tmp_path / 'run'}",
        "--config.optimizer.learning_rate=3e38",
        "--config.structure=freezeall",
    )
    _, error = process.communicate(timeout=300)
    assert process.returncode == 1
    assert "Traceback" not in error
    assert re.search(r"error: the loss is not a finite number at step \d+ \(images train-", error)
    assert "lower config.optimizer.learning_rate" in error


def test_help_teaches(capsys):
    with pytest.raises(SystemExit) as exit_code:
        main.main(["--help"])
    assert exit_code.value.code == 0
    text = capsys.readouterr().out
    for word in ("--config", "--workdir", "quickstart", "resumes", "smoke"):
        assert word in text
