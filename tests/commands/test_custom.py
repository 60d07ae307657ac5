"""A folder and a CSV of one's own train through the page that says how to start."""

import json

import numpy as np
import pytest

from tests.tfds_builders.building import encoded


@pytest.mark.slow
def test_own_images_train_and_the_report_says_how_they_were_divided(start, tmp_path):
    folder = tmp_path / "data/downloads/manual/image_csv/mine"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    rows = ["filename,label"]
    for number in range(20):
        pixels = rng.integers(0, 128, (40, 32), np.uint8) + np.uint8(100 * (number % 2))
        (folder / f"{number}.png").write_bytes(encoded(pixels))
        rows.append(f"{number}.png,{('dark', 'light')[number % 2]}")
    (folder / "labels.csv").write_text("\n".join(rows))
    workdir = tmp_path / "run"
    process = start(
        "main",
        "--config=configs/custom.py:smoke",
        f"--config.dataset.data_dir={tmp_path / 'data'}",
        f"--workdir={workdir}",
    )
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    result = json.loads((workdir / "result.json").read_text())
    assert result["test"]["n"] == 4
    assert "no column split: fold 1 of a deterministic" in (workdir / "report.html").read_text()
