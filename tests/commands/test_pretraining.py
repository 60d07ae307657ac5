"""Pretraining on a set in RadImageNet's layout, then fine-tuning from what it leaves."""

import json

import pytest

from radimagenet_jax import load_pretrained
from radimagenet_jax.reports import predictions
from tests.radimagenet_source import write_source
from tfds_builders.radimagenet.radimagenet_dataset_builder import class_names


def run(start, *arguments):
    process = start("main", *arguments)
    _, errors = process.communicate(timeout=900)
    assert process.returncode == 0, errors


@pytest.mark.slow
def test_a_pretrained_run_learns_165_classes_and_is_fine_tuned(start, page, tmp_path):
    data_dir = tmp_path / "data"
    write_source(data_dir / "downloads/manual/radimagenet", 4000, 32)
    pretrained = tmp_path / "pretrained"
    run(
        start,
        "--config=configs/radimagenet.py:smoke",
        f"--workdir={pretrained}",
        f"--config.dataset.data_dir={data_dir}",
        "--config.dataset.streaming=true",
        "--config.augment=none",
        "--config.class_weights=balanced",
        "--config.optimizer.learning_rate=3e-3",
        "--config.batch_norm_momentum=0.8",
        "--config.epochs=4",
    )
    result = json.loads((pretrained / "result.json").read_text())
    test = result["test"]
    assert test["top5_accuracy"] > 0.15  # by chance 0.03
    assert test["auroc"] > 0.7
    assert test["balanced_accuracy"] > 0.02  # by chance 0.006
    assert set(test["by_modality"]) == {"CT", "MR", "US"}
    assert len(test["by_anatomy"]) == 11
    assert sum(group["n"] for group in test["by_anatomy"].values()) == test["n"]
    assert 0 <= result["train"]["input_wait"] < 1
    scored = predictions.read(pretrained / "predictions_test.csv")
    assert scored.class_names == class_names()
    report = (pretrained / "report.html").read_text()
    assert "Test set by modality and anatomy" in report
    assert "MR-knee" in report

    loaded = load_pretrained(pretrained)
    assert loaded.contract.labels == class_names()

    tuned = tmp_path / "tuned"
    run(
        start,
        f"--config={page}",
        f"--workdir={tuned}",
        f"--config.init={pretrained}",
        "--config.model_options.width=16",
        "--config.epochs=1",
    )
    result = json.loads((tuned / "result.json").read_text())
    assert result["init"] == str(pretrained)
    assert load_pretrained(tuned).contract.labels == ("normal", "lesion")
