"""What a run begins with: weights that lie where they belong, else a recipe, and told which."""

import json
from pathlib import Path

import pytest

from radimagenet_jax.data.tasks import TASKS
from radimagenet_jax.errors import ConfigError
from radimagenet_jax.training import beginning
from radimagenet_jax.training import config as config_pages

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
COVID = str(CONFIGS / "covid.py")
RELEASED = "RadImageNet-ResNet50_notop.h5"


@pytest.fixture(autouse=True)
def _nothing_said(monkeypatch):
    monkeypatch.delenv(beginning.ENVIRONMENT, raising=False)


def settled(data_dir, *overrides, page=COVID, workdir="nowhere"):
    given = [f"--config.dataset.data_dir={data_dir}", *overrides]
    config = config_pages.load(page, given)
    beginning.settle(config, given, workdir)
    config_pages.validate(config)
    assert "from_scratch" not in config
    return config


def weights(folder, name=RELEASED):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(b"any")
    return folder / name


def test_a_file_in_its_place_gives_the_published_line(tmp_path, capsys):
    path = weights(tmp_path / "weights")
    config = settled(tmp_path)
    assert config.init == str(path)
    published = TASKS["covid"]
    assert config.image_size == published.image_size
    assert config.optimizer.learning_rate == published.learning_rate
    assert config.epochs == 30
    assert config.loss == "keras2"
    assert f"beginning with {path}" in capsys.readouterr().err


def test_without_one_the_recipe_is_taken_and_the_file_named(tmp_path, capsys):
    config = settled(tmp_path, "--config.epochs=3")
    assert config.init == "scratch"
    assert (config.image_size, config.optimizer.learning_rate) == (96, 3e-3)
    assert (config.schedule.name, config.batch_norm_momentum) == ("cosine", 0.97)
    assert config.epochs == 3  # what the user says goes before the recipe
    told = capsys.readouterr().err
    assert "image_size=96" in told
    assert ", epochs=" not in told
    assert f"request {RELEASED}" in told
    assert str(tmp_path / "weights") in told


def test_the_file_is_that_of_the_network(tmp_path):
    weights(tmp_path / "weights")
    path = weights(tmp_path / "weights", "RadImageNet-IRV2_notop.h5")
    assert settled(tmp_path, "--config.model=inception_resnet_v2").init == str(path)
    assert settled(tmp_path, "--config.model=densenet121").init == "scratch"


def test_the_environment_goes_before_the_folder(tmp_path, monkeypatch):
    weights(tmp_path / "weights")
    elsewhere = weights(tmp_path / "elsewhere")
    for said in (elsewhere, elsewhere.parent):
        monkeypatch.setenv(beginning.ENVIRONMENT, str(said))
        assert settled(tmp_path).init == str(elsewhere)
    monkeypatch.setenv(beginning.ENVIRONMENT, str(tmp_path / "none"))
    with pytest.raises(ConfigError, match=r"RADIMAGENET_WEIGHTS is .*none, which is not there"):
        settled(tmp_path)


def test_what_the_user_says_is_taken_as_it_is(tmp_path):
    weights(tmp_path / "weights")
    config = settled(tmp_path, "--config.init=scratch")
    assert (config.init, config.image_size) == ("scratch", TASKS["covid"].image_size)
    assert settled(tmp_path, "--config.init=mine.h5").init == "mine.h5"


@pytest.mark.parametrize("init", ["scratch", "then.h5"])
def test_a_run_goes_on_with_what_it_began_with(init, tmp_path, capsys):
    workdir = tmp_path / "run"
    (workdir / "checkpoints/3").mkdir(parents=True)
    (workdir / "config.json").write_text(json.dumps({"init": init}))
    weights(tmp_path / "weights")  # came later
    config = settled(tmp_path, workdir=workdir)
    assert config.init == init
    assert config.image_size == (96 if init == "scratch" else 224)
    assert "beginning" not in capsys.readouterr().err


@pytest.mark.parametrize("task", TASKS)
def test_each_task_has_a_recipe_and_its_smoke_begins_from_scratch(task, tmp_path):
    page = str(CONFIGS / f"{task}.py")
    assert settled(tmp_path, page=page).image_size == 96
    weights(tmp_path / "weights")
    assert settled(tmp_path, page=f"{page}:smoke").init == "scratch"
