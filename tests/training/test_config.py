"""Laws of config pages: every mistake is one sentence, and no override is lost."""

import json
from pathlib import Path

import pytest

from radimagenet_jax import models
from radimagenet_jax.errors import ConfigError
from radimagenet_jax.training import config as config_pages
from radimagenet_jax.training import network

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
COVID = str(CONFIGS / "covid.py")
PAGES = sorted(path for path in CONFIGS.glob("*.py") if path.stem not in ("base", "study_base"))


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)
@pytest.mark.parametrize("argument", ["", ":smoke"])
def test_every_page_is_valid_takes_smoke_and_documents_its_command(page, argument):
    config = config_pages.load(f"{page}{argument}")
    config_pages.validate(config)
    assert f"--config=configs/{page.name}" in page.read_text().split('"""')[1]


def test_covid_is_the_published_line():
    config = config_pages.load(COVID)
    assert config.image_size == 224
    assert config.optimizer.learning_rate == 1e-5
    assert config.optimizer.eps == 1e-7
    assert config.dropout == 0.5
    policy = network.from_scratch(config, ("negative", "positive")).policy
    assert policy is not None
    assert (policy.rotation, policy.shift, policy.shear, policy.zoom) == (0, 0.1, 0.1, 0.1)
    assert not policy.horizontal_flip


def test_overrides_take_the_type_of_their_field():
    config = config_pages.load(
        COVID,
        [
            "--config.epochs=3",
            "--config.optimizer.learning_rate=1e-2",
            "--config.shuffle=False",
            "--config.structure=layers=stage4_.*,head",
            "--config.mesh.data=1",
        ],
    )
    assert config.epochs == 3
    assert config.optimizer.learning_rate == 0.01
    assert config.shuffle is False
    assert config.structure == "layers=stage4_.*,head"
    assert config.mesh.data == 1


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("--config.epoch=3", "did you mean epochs"),
        ("--config.optimizer.lr=3", "no field 'optimizer.lr'"),
        ("--config.optimizer=adam", "no field 'optimizer'"),
        ("--config.epochs=many", "type int"),
        ("--config.shuffle=maybe", "type bool"),
        ("--config.epochs", "needs a value"),
    ],
)
def test_a_wrong_override_is_named_with_its_remedy(override, sentence):
    with pytest.raises(ConfigError, match=sentence):
        config_pages.load(COVID, [override])


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("--config.model=resnet51", "resnet50"),
        ("--config.batch_size=0", "at least 1"),
        ("--config.image_size=16", "32 pixels"),
        ("--config.preprocessing=imagenet", "published"),
        ("--config.augment=heavy", "shift_zoom"),
        ("--config.dropout=1.0", "below 1"),
        ("--config.optimizer.learning_rate=0", "positive"),
        ("--config.seed=-1", "from 0"),
        ("--config.dtype=float16", "bfloat16"),
        ("--config.dataset.streaming=maybe", "auto, true, false"),
        ("--config.schedule.name=polynomial", "constant, cosine"),
        ("--config.schedule.warmup_epochs=-1", "must not be negative"),
        ("--config.label_smoothing=1", "below 1"),
        ("--config.class_weights=sqrt", "none, balanced"),
        ("--config.sampling=sqrt", "uniform, balanced"),
        ("--config.scan=maybe", "auto, true, false"),
        ("--config.remat=all", "none, norms, blocks"),
        ("--config.batch_norm_statistics=local", "global, per_device"),
        ("--config.ema=1.0", "0 to below 1"),
        ("--config.accumulate=0", "1 or more"),
        ("--config.profile=8:5", "FIRST:LAST"),
    ],
)
def test_a_value_out_of_range_is_refused(override, sentence):
    with pytest.raises(ConfigError, match=sentence):
        config_pages.validate(config_pages.load(COVID, [override]))


def test_a_network_made_smaller_is_not_exported():
    page = str(CONFIGS / "radimagenet.py:smoke")
    config = config_pages.load(page, ["--config.export_weights=true"])
    with pytest.raises(ConfigError, match=r"without config\.model_options"):
        config_pages.validate(config)


@pytest.mark.parametrize("name", models.names())
def test_every_network_can_be_pretrained(name):
    for smoke in ("", ",smoke"):
        page = f"{CONFIGS / 'radimagenet.py'}:model={name}{smoke}"
        config_pages.validate(config_pages.load(page))


def test_all_that_is_wrong_is_said_at_once():
    config = config_pages.load(COVID, ["--config.epochs=0", "--config.model=vgg"])
    with pytest.raises(ConfigError, match=r"vgg.*epochs"):
        config_pages.validate(config)


def test_published_augmentation_without_a_task_names_the_alternatives():
    config = config_pages.load(str(CONFIGS / "quickstart.py"), ["--config.augment=published"])
    with pytest.raises(ConfigError, match="rotate_flip"):
        config_pages.validate(config)


def test_pages_that_are_missing_or_broken_are_named(tmp_path):
    with pytest.raises(ConfigError, match=r"nowhere\.py"):
        config_pages.load("nowhere.py")
    broken = tmp_path / "broken.py"
    broken.write_text("def get_config(argument):\n    return undefined.name\n")
    with pytest.raises(ConfigError, match="undefined"):
        config_pages.load(str(broken))
    with pytest.raises(ConfigError, match="takes no argument 'smok'"):
        config_pages.load(f"{COVID}:smok")


def test_a_kept_config_differs_in_what_matters_alone():
    config = config_pages.load(COVID)
    kept = json.loads(config_pages.to_json(config))
    assert config_pages.differences(config, kept) == []
    other = config_pages.load(COVID, ["--config.log_every=1", "--config.dataset.data_dir=/x"])
    assert config_pages.differences(other, kept) == []
    other = config_pages.load(COVID, ["--config.optimizer.learning_rate=1e-3"])
    assert config_pages.differences(other, kept) == ["optimizer.learning_rate: 1e-05 -> 0.001"]
