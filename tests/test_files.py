"""Laws of paths: `~` is a home folder wherever a path is taken, and letters are only letters."""

import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from radimagenet_jax import predict
from radimagenet_jax.data import inputs, registry
from radimagenet_jax.errors import ConfigError, WeightsError
from radimagenet_jax.files import (
    check_output,
    expanded,
    force_to_disk,
    make_private,
    plainly_named,
    write_json,
)
from radimagenet_jax.pretrained import load_pretrained
from radimagenet_jax.training import config as config_pages
from radimagenet_jax.training import workdir

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
ODD = "Bild er [1] *ü? %s"


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def test_home_folders_are_expanded_and_unknown_ones_are_names(home):
    assert expanded("~/runs/a") == home / "runs/a"
    assert expanded(Path("~")) == home
    assert expanded("a/~/b") == Path("a/~/b")
    assert expanded("~nobody-has-this-name/x") == Path("~nobody-has-this-name/x")


@pytest.mark.parametrize("path", ["a\0b", "x" * 300, "/".join(["long"] * 1000), "\ud800"])
def test_what_no_file_can_be_called_is_refused(path):
    with pytest.raises(ConfigError, match="cannot be a path"):
        expanded(path)


def test_flags_configs_and_python_all_take_home_folders(home):
    (home / "page.py").write_text((CONFIGS / "quickstart.py").read_text())
    config = config_pages.load("~/page.py:smoke")
    assert config.epochs == 1
    run = workdir.Workdir("~/run", config)
    assert run.path == home / "run"
    run.close()
    (home / "w.h5").touch()
    with pytest.raises(WeightsError, match=rf"{home}/w\.h5 is empty"):
        load_pretrained("~/w.h5")
    assert registry.manual_dir("busi", "~/data") == home / "data/downloads/manual/busi"


def test_the_same_weights_by_another_name_are_the_same_run(home, monkeypatch):
    page = str(CONFIGS / "covid.py")
    kept = config_pages.load(page, ["--config.init=~/w.h5"]).to_dict()
    for name in (f"{home}/w.h5", "w.h5", "./w.h5"):
        monkeypatch.chdir(home)
        other = config_pages.load(page, [f"--config.init={name}"])
        assert config_pages.differences(other, kept) == []
    other = config_pages.load(page, ["--config.init=scratch"])
    assert config_pages.differences(other, kept) != []


def test_folders_with_wildcards_in_their_names_are_meant_as_they_are(tmp_path):
    folder = tmp_path / ODD / "x*"
    folder.mkdir(parents=True)
    for name in ("a [1].png", "b.png"):
        assert cv2.imwrite(str(folder / name), np.zeros((4, 4), np.uint8))
    root = tmp_path / ODD

    def keys(given):
        return [entry.key for entry in inputs.find(given).entries]

    assert keys(str(root)) == ["x*/a [1].png", "x*/b.png"]
    assert keys(f"{root}/x*/*.png") == ["a [1].png", "b.png"]
    assert keys(f"{root}/**/b.png") == ["x*/b.png"]
    assert keys(str(folder / "a [1].png")) == ["a [1].png"]


def test_a_library_that_takes_patterns_gets_a_name_without_them(tmp_path):
    folder = tmp_path / ODD
    folder.mkdir()
    way = plainly_named(folder)
    assert not set(str(way)) & set("[]*?\\")
    (way / "a").touch()
    assert (folder / "a").exists()
    assert plainly_named(tmp_path / "plain") == tmp_path / "plain"


def test_an_output_that_is_a_file_is_refused_before_anything_is_read(tmp_path):
    file = tmp_path / "README.md"
    file.touch()
    for output in (file, file / "below"):
        with pytest.raises(ConfigError, match="is a file"):
            check_output(output, "--output")
    check_output(tmp_path / "new/folder", "--output")
    assert not (tmp_path / "new").exists()
    with pytest.raises(ConfigError, match=r"--output=.*README\.md is a file"):
        predict.main([f"--weights={file}", "--inputs=nothing", f"--output={file}", "--features"])


def test_what_is_written_about_patients_is_kept_from_git(tmp_path):
    made = tmp_path / "a/b"
    make_private(made)
    assert (made / ".gitignore").read_text() == "*\n"
    # A folder with somebody's files in it is theirs.
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/code.py").touch()
    make_private(tmp_path / "mine")
    assert not (tmp_path / "mine/.gitignore").exists()


def test_files_and_folders_are_forced_to_the_disk_and_its_refusal_is_passed_on(
    tmp_path, monkeypatch
):
    (tmp_path / "a").write_bytes(b"a")
    forced = []
    monkeypatch.setattr(os, "fsync", lambda handle: forced.append(os.fstat(handle).st_ino))
    force_to_disk(tmp_path / "a", tmp_path)
    assert forced == [(tmp_path / "a").stat().st_ino, tmp_path.stat().st_ino]
    with pytest.raises(FileNotFoundError):
        force_to_disk(tmp_path / "b")


def test_a_record_that_json_has_no_number_for_leaves_the_file_as_it_was(tmp_path):
    write_json(tmp_path / "a.json", {"a": [1, None]}, indent=2)
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.json", {"a": float("nan")})
    assert (tmp_path / "a.json").read_text() == '{\n  "a": [\n    1,\n    null\n  ]\n}\n'
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]
