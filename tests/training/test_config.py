"""Laws of config pages: every mistake is one sentence, and no override is lost."""

import json
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from radimagenet_jax import models
from radimagenet_jax.errors import ConfigError
from radimagenet_jax.studies import plan
from radimagenet_jax.training import config as config_pages
from radimagenet_jax.training import fields, footprint, network, pages, program

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


def test_every_field_has_its_range_stated_and_no_other():
    names = {name for name, _ in config_pages.flatten(config_pages.load(str(CONFIGS / "base.py")))}
    assert names == set(fields.FIELDS)
    study = config_pages.load(str(CONFIGS / "study_acl.py")).study
    assert set(study) - {"model_options"} == set(plan.FIELDS)


@pytest.mark.parametrize("page", ["covid", "custom", "quickstart", "thyroid"])
@pytest.mark.parametrize("name", models.names())
def test_smoke_makes_whichever_network_small(page, name):
    config = config_pages.load(f"{CONFIGS / page}.py:smoke", [f"--config.model={name}"])
    config_pages.validate(config)
    assert config.image_size == max(32, models.architecture(name).min_image_size)
    program = network.from_scratch(config, ("no", "yes"))
    # The page's own small ResNet50 may be wider.
    assert sum(leaf.size for leaf in jax.tree.leaves(program.shapes)) < (
        1e7 if name == "resnet50" else 3e6
    )
    assert "head" in program.freeze.rows[-1].block


def test_the_first_network_keeps_what_the_page_says_and_flags_are_heard():
    smoke = f"{CONFIGS / 'covid.py'}:smoke"
    same = config_pages.load(smoke, ["--config.model=resnet50"])
    assert same.model_options.to_dict() == {"stage_sizes": (1, 1, 1, 1)}
    config = config_pages.load(
        smoke,
        ["--config.model_options.growth=4", "--config.model=densenet121", "--config.image_size=64"],
    )
    assert config.model_options.growth == 4
    assert config.image_size == 64
    whole = config_pages.load(COVID, ["--config.model=densenet121"])
    assert not whole.model_options
    with pytest.raises(ConfigError, match=r"no field 'model_options\.stage_sizes'"):
        config_pages.load(
            smoke, ["--config.model=densenet121", "--config.model_options.stage_sizes=(1,)"]
        )


@pytest.mark.parametrize("streaming", ["auto", "true", "decoded", "false", "sharded"])
def test_worker_processes_are_for_images_on_disk(streaming):
    given = [f"--config.dataset.streaming={streaming}", "--config.dataset.workers=2"]
    config = config_pages.load(COVID, given)
    if streaming in ("false", "sharded"):
        with pytest.raises(ConfigError, match=f"'{streaming}' has them on the devices; leave out"):
            config_pages.validate(config)
    else:
        config_pages.validate(config)


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("optimizer.b1=2", "optimizer.b1 is 2.0, but must be from 0 to below 1"),
        ("optimizer.eps=-1", "optimizer.eps is -1.0, but must be positive"),
        ("optimizer.eps=inf", "optimizer.eps is inf"),
        ("optimizer.learning_rate=nan", "learning_rate is nan"),
        ("optimizer.learning_rate=1e-50", "learning_rate is 1e-50"),  # 0 in float32
        ("optimizer.clip_norm=-inf", "clip_norm is -inf"),
        ("dataset.memory_gib=nan", "memory_gib is nan"),
        ("batch_norm_momentum=1.5", "batch_norm_momentum is 1.5"),
        ("batch_size=1000000000", "batch_size is 1000000000, but must be a whole number"),
        ("image_size=1000000", "image_size is 1000000"),
        ("epochs=1000000000", "at most 100000"),
        ("epochs=" + "9" * 5000, "takes a value of type int"),
        ("accumulate=512", "not so many parts"),
        ("dataset.name=a\x00b", "printable"),
        ("structure=layers=(a+)+$", "could take for ever"),
        ("structure=layers=((.*)*)x", "could take for ever"),
        ("structure=layers=(a|a)*x", "could take for ever"),
        ("structure=everything", "'everything' is not known"),
        ("model_options.stage_sizes=(0,0,0,0)", "each from 1 to 64"),
        ("model_options.stage_sizes=()", "tuple of 1 to 4"),
        ("model_options.stage_sizes=(64,64,64,64)", "160 in all"),
        ("model_options.width=0", "at least 1"),
        ("model_options.width=1000000", "at most 1024"),
        ("model_options.variant=v2", "'v1', 'v1.5'"),
        ("model_options.widht=3", "did you mean model_options.width"),
        ("model_options.stage_sizes=" + "(" * 5000, "takes a value of type tuple"),
    ],
)
def test_nonsense_is_refused_with_its_field(override, sentence):
    def take():
        config_pages.validate(config_pages.load(f"{COVID}:smoke", [f"--config.{override}"]))

    with pytest.raises(ConfigError) as caught:
        take()
    assert sentence in str(caught.value)
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ("return None", "returns NoneType, but must return the ConfigDict"),
        ("input('? ')", "reads the keyboard"),
        ("import sys; sys.stdin.read()", "reads the keyboard"),
        ("raise SystemExit(3)", "cannot be loaded: SystemExit: 3"),
        ("return get_config(argument)", "RecursionError"),
        ("raise ValueError('\\x1b[31m')", r"ValueError: \\x1b\[31m"),
        ("return '\0'", "cannot be loaded: .*null bytes"),
        ("return (", "SyntaxError"),
        ("c = base.get_config('covid'); c.batchsize = 3; return c", "did you mean batch_size"),
        ("c = base.get_config('covid'); del c.optimizer; return c", r"optimizer\.b1 is missing"),
        (
            "c = base.get_config('covid'); c.model_options = 5; return c",
            "cannot be loaded: TypeError",
        ),
    ],
)
def test_a_page_that_does_not_answer_is_told(tmp_path, body, sentence):
    page = tmp_path / "page.py"
    page.write_text(f"from configs import base\ndef get_config(argument=None):\n    {body}\n")
    with pytest.raises(ConfigError, match=sentence):
        config_pages.validate(config_pages.load(str(page)))
    assert sys.stdin is not None


def test_a_page_without_get_config_in_another_encoding_or_without_end_is_told(
    tmp_path, monkeypatch
):
    page = tmp_path / "page.py"
    page.write_text("x = 1\n")
    with pytest.raises(ConfigError, match="has no function get_config"):
        config_pages.load(str(page))
    page.write_bytes("def get_config(a): pass\n".encode("utf-16"))
    with pytest.raises(ConfigError, match="cannot be loaded"):
        config_pages.load(str(page))
    monkeypatch.setattr(pages, "_SECONDS", 1)
    page.write_text("def get_config(argument):\n    while True:\n        pass\n")
    with pytest.raises(ConfigError, match="does not end"):
        config_pages.load(str(page))


def test_what_a_page_prints_is_kept_from_standard_output(tmp_path, capsys):
    page = tmp_path / "page.py"
    page.write_text(
        "from configs import base\n"
        "def get_config(a):\n    print('hello'); return base.get_config()\n"
    )
    config_pages.load(str(page))
    out, err = capsys.readouterr()
    assert (out, err) == ("", "hello\n")


def test_more_memory_than_there_is_is_refused_with_the_figures():
    config = config_pages.load(f"{COVID}:smoke", ["--config.batch_size=1000"])
    footprint.check(config, devices=1)
    with pytest.raises(ConfigError, match=r"1000 images of 32 pixels takes .* but there are 0\.0"):
        footprint.check(config, devices=2, accelerator_bytes=10_000_000)
    with pytest.raises(ConfigError, match=r"takes 0\.3 GiB of memory at least"):
        footprint.check(config, devices=2, accelerator_bytes=55_000_000)
    config.structure = "freezeall"  # which keeps neither outputs nor moments for what is frozen
    footprint.check(config, devices=2, accelerator_bytes=55_000_000)
    parameters, image = footprint.sizes(models.create("resnet50"), 224)
    assert parameters == 23_534_592  # Keras' trainable ones of ResNet50 without its top
    # The input, the stem, and the widest output of each of the five resolutions, in float32.
    assert image == 4 * (224**2 * 3 + 56**2 * 256 + 28**2 * 512 + 14**2 * 1024 + 7**2 * 2048) + (
        4 * 2048
    )


def test_steps_that_cannot_be_counted_and_batches_of_padding_are_refused():
    labels = np.zeros(10_000, np.int64)
    config = config_pages.load(COVID, ["--config.epochs=100000", "--config.batch_size=1"])
    assert program.Values.of(config, labels, 2).total_steps == 10**9
    with pytest.raises(ConfigError, match=r"10,000,000,000 steps"):
        program.Values.of(config, np.zeros(100_000, np.int64), 2)
    config = config_pages.load(COVID, ["--config.batch_size=1000000"])
    with pytest.raises(ConfigError, match="padding"):
        program.Values.of(config, labels, 2)
