"""Laws of what a dry run says that a study takes."""

import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from radimagenet_jax.studies import estimate, plan

PROJECT = Path(__file__).resolve().parents[2]


def test_what_is_compiled_once_is_counted_once(make_config, monkeypatch, capsys):
    config = make_config(settings=(("unfreezeall", 1e-3), ("unfreezeall", 1e-4)))
    monkeypatch.setattr(estimate, "_speed", lambda: 1e30)
    monkeypatch.setattr(estimate, "_reading", lambda *_: 100.0)
    monkeypatch.setattr(estimate, "_sample", lambda: 10.0)
    monkeypatch.setattr(estimate, "_cost", lambda config, group: (0.0, 1.0, 0))
    groups = plan.groups(config)
    assert len(groups) == 4
    estimate.show(config, groups, Path("nowhere"))
    assert "4 runs in 4 groups; roughly 3 min 06 s" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.alone
@pytest.mark.parametrize("task", ["breast", "covid"])
def test_the_estimate_of_a_smoke_study_is_within_a_factor_of_two(task, tmp_path, shared_data):
    manual = tmp_path / "data/downloads/manual"
    manual.mkdir(parents=True)
    for name, source in (("busi", "Dataset_BUSI_with_GT"), ("covid_ct", "covid_ct")):
        (manual / name).symlink_to(shared_data / source)
    command = [
        *(sys.executable, "-m", "radimagenet_jax.study", f"--workdir={tmp_path / 'study'}"),
        f"--config=configs/study_{task}.py:smoke",
        f"--config.dataset.data_dir={tmp_path / 'data'}",
    ]
    environment = {"PATH": "/usr/bin:/bin", "JAX_COMPILATION_CACHE_DIR": str(tmp_path / "cache")}

    def run(*flags: str) -> str:
        done = subprocess.run(
            [*command, *flags],
            cwd=PROJECT,
            env=environment,
            check=True,
            capture_output=True,
            text=True,
        )
        return done.stderr

    said = re.search(r"roughly (?:(\d+) min )?(\d+) s on this machine", run("--dry_run"))
    assert said
    expected = 60 * int(said[1] or 0) + int(said[2])
    began = time.monotonic()
    run()
    assert 0.5 < expected / (time.monotonic() - began) < 2
