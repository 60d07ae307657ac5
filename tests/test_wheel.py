"""Laws of the wheel: what the checkout does, it does, wherever one stands; so does the checkout."""

import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

import radimagenet_jax
from radimagenet_jax.reports import provenance
from radimagenet_jax.training import config as config_pages
from radimagenet_jax.training import pages

PROJECT = Path(__file__).resolve().parents[1]
PARTS = ("pyproject.toml", "setup.py", "README.md", "LICENSE")
FOLDERS = ("configs", "radimagenet_jax", "tfds_builders")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    pytest.importorskip("setuptools", "77", reason="wheels are built with setuptools 77 or newer")
    # A copy, since setuptools leaves folders where it builds.
    source = tmp_path_factory.mktemp("source")
    for name in PARTS:
        shutil.copy(PROJECT / name, source)
    for name in FOLDERS:
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(PROJECT / name, source / name, ignore=ignored)
    built = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-q"]
    subprocess.run([*command, "-w", str(built), str(source)], check=True, timeout=300)
    (path,) = built.glob("*.whl")
    return path


@pytest.fixture
def site(wheel, tmp_path) -> Path:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    return tmp_path / "site"


@pytest.mark.slow
def test_the_wheel_holds_every_file_of_the_package_and_the_pages_within_it(site):
    tracked = {
        file.relative_to(PROJECT)
        for name in FOLDERS
        for file in (PROJECT / name).rglob("*")
        if file.is_file() and file.suffix != ".pyc"
    }
    moved = {
        Path("radimagenet_jax/pages", path) if path.parts[0] == "configs" else path
        for path in tracked
    }
    held = {path.relative_to(site) for path in site.rglob("*") if path.is_file()}
    info = {path for path in held if path.parts[0].endswith(".dist-info")}
    assert held - info == moved
    assert {path.parts[0] for path in held - info} == {"radimagenet_jax", "tfds_builders"}


@pytest.mark.slow
def test_the_wheel_trains_by_a_page_s_name_outside_of_the_checkout(site, tmp_path):
    stand = tmp_path / "elsewhere"
    stand.mkdir()
    own = stand / "mine.py"
    own.write_text(
        "from configs import quickstart\n"
        "def get_config(argument=None):\n"
        "    config = quickstart.get_config('smoke')\n"
        "    config.seed = 7\n"
        "    return config\n"
    )
    for page, seed in (("quickstart:smoke", 0), ("mine.py", 7)):
        workdir = stand / f"run{seed}"
        done = subprocess.run(
            [
                *(sys.executable, "-m", "radimagenet_jax.main", f"--config={page}"),
                *(f"--workdir={workdir}", f"--config.dataset.data_dir={tmp_path / 'data'}"),
            ],
            cwd=stand,
            env={**os.environ, "PYTHONPATH": str(site)},
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr
        assert json.loads((workdir / "config.json").read_text())["seed"] == seed
        assert radimagenet_jax.__version__ in (workdir / "report.html").read_text()


def test_a_page_is_found_by_its_name_wherever_one_stands(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    by_path = config_pages.load(f"{PROJECT}/configs/covid.py:smoke").to_dict()
    assert config_pages.load("covid:smoke").to_dict() == by_path
    assert config_pages.load("configs/covid.py:smoke").to_dict() == by_path
    # A file is itself, though one of the project's has its name.
    own = tmp_path / "configs/covid.py"
    own.parent.mkdir()
    own.write_text((PROJECT / "configs/quickstart.py").read_text())
    assert config_pages.load("configs/covid.py").dataset.name == "phantom"
    assert set(pages.names()) == {
        page.stem for page in (PROJECT / "configs").glob("*.py") if "base" not in page.stem
    }


def test_results_state_the_version_where_nothing_is_installed(monkeypatch):
    def absent(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", absent)
    versions = provenance.versions()
    assert versions["radimagenet-jax"] == radimagenet_jax.__version__
    assert versions["jax"] == "unknown"


def test_pyproject_takes_the_version_from_the_package():
    settings = tomllib.loads((PROJECT / "pyproject.toml").read_text())
    assert settings["project"]["dynamic"] == ["version"]
    place = settings["tool"]["setuptools"]["dynamic"]["version"]
    assert place == {"attr": "radimagenet_jax.version.__version__"}
