"""A study that is killed at random goes on, and ends as an undisturbed one."""

import csv
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]
KILLS = 10


@pytest.mark.slow
@pytest.mark.alone
def test_ten_kills_lose_only_the_running_group_and_change_no_figure(tmp_path, shared_data):
    manual = tmp_path / "data/downloads/manual/busi"
    (manual / "splits").mkdir(parents=True)
    (manual / "images").symlink_to(shared_data / "Dataset_BUSI_with_GT")
    for split in ("train", "val", "test"):
        name = f"breast_{split}_fold1.csv"
        (manual / "splits" / name).symlink_to(
            shared_data / "published_splits/breast/dataframe" / name
        )

    def start(workdir: Path) -> subprocess.Popen[bytes]:
        command = [
            *(sys.executable, "-m", "radimagenet_jax.study"),
            *("--config=configs/study_breast.py:smoke", f"--workdir={workdir}"),
            f"--config.dataset.data_dir={tmp_path / 'data'}",
        ]
        return subprocess.Popen(command, cwd=PROJECT, stdout=-3, stderr=-3)

    assert start(tmp_path / "whole").wait() == 0
    groups = len(list((tmp_path / "whole").glob("groups/*.json")))
    draws = random.Random(1)
    killed = tmp_path / "killed"
    kills = 0
    before: dict[Path, int] = {}
    while True:
        process = start(killed)
        deadline = time.monotonic() + draws.uniform(3, 10)
        while process.poll() is None:
            # On a fast machine too, no start may finish the study before the last kill.
            left = groups - len(list(killed.glob("groups/*.json")))
            if kills < KILLS and (left <= 1 or time.monotonic() > deadline):
                time.sleep(draws.uniform(0, 1) if left <= 1 else 0)
                break
            time.sleep(0.05)
        finished = process.poll() is not None
        process.kill()
        process.wait()
        # What was done before this start is not computed again.
        for path, written in before.items():
            assert path.stat().st_mtime_ns == written
        before = {path: path.stat().st_mtime_ns for path in killed.glob("groups/*.json")}
        if finished:
            break
        kills += 1
    assert kills == KILLS
    assert _figures(killed) == _figures(tmp_path / "whole")


def _figures(workdir: Path) -> list[dict[str, str]]:
    with open(workdir / "study.csv", newline="") as file:
        return [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)]
