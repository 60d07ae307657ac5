"""What a field's line says of it holds: for programs, for working directories, for studies."""

import json

import pytest

from configs import base, study_base
from radimagenet_jax.errors import ConfigError
from radimagenet_jax.models.preprocess import Input
from radimagenet_jax.studies import plan
from radimagenet_jax.training import config as config_pages
from radimagenet_jax.training.fields import FIELDS, Changes
from radimagenet_jax.training.optimizers import OPTIMIZERS
from radimagenet_jax.training.program import Program


def other(value):
    return {str: "other", bool: not value, int: 7, float: 0.125}[type(value)]


def changed(name, config=None):
    config = config or base.get_config("covid")
    before = dict(config_pages.flatten(config))[name]
    config_pages.set_field(config, name, other(before))
    return config


def program(config):
    return Program.of(config, Input("caffe_div255", "BGR"), ("no", "yes"))


@pytest.mark.parametrize("name", FIELDS)
def test_programs_differ_by_what_is_compiled_alone(name):
    one, another = program(base.get_config("covid")), program(changed(name))
    same = FIELDS[name].changes is not Changes.PROGRAM
    assert (one == another) == same
    assert not same or hash(one) == hash(another)


@pytest.mark.parametrize("name", FIELDS)
def test_a_working_directory_is_another_by_all_but_feeding_and_watching(name):
    kept = json.loads(config_pages.to_json(base.get_config("covid")))
    found = config_pages.differences(changed(name), kept)
    assert [text.partition(":")[0] for text in found] == (
        [] if FIELDS[name].changes is Changes.NOTHING else [name]
    )


@pytest.mark.parametrize("name", [n for n, field in FIELDS.items() if field.before is not None])
def test_a_working_directory_from_before_a_field_is_the_same_with_what_it_computed_by(name):
    config = base.get_config("covid")
    config_pages.set_field(config, name, FIELDS[name].before)
    kept = config.to_dict()
    *parents, leaf = name.split(".")
    node = kept
    for each in parents:
        node = node[each]
    del node[leaf]
    assert config_pages.differences(config, kept) == []
    assert len(config_pages.differences(changed(name, config), kept)) == 1


@pytest.mark.parametrize("name", [n for n, field in FIELDS.items() if field.in_study is not None])
def test_a_study_takes_the_default_of_what_is_of_single_runs_and_refuses_a_page_with_another(name):
    config = study_base.get_config("covid")
    assert dict(config_pages.flatten(config))[name] == FIELDS[name].in_study
    plan.validate(config)
    says = f"config.{FIELDS[name].instead}" if FIELDS[name].instead else "single runs"
    with pytest.raises(ConfigError, match=f"config.{name} has no effect.*{says}"):
        plan.validate(changed(name, config))


# Those of the first version; of a later one it has to be known by what versions before it computed.
FIRST = {
    *("task", "dataset.name", "dataset.data_dir", "dataset.fold", "dataset.streaming"),
    *("dataset.memory_gib", "dataset.positive", "model", "init"),
    *("preprocessing", "allow_preprocessing_mismatch", "structure", "dropout"),
    *("head_init", "loss", "batch_norm_momentum", "batch_norm_statistics", "dtype"),
    *("optimizer.name", "optimizer.learning_rate", "optimizer.b1", "optimizer.b2"),
    *("optimizer.eps", "optimizer.momentum", "schedule.name", "schedule.warmup_epochs"),
    *("label_smoothing", "sampling", "class_weights", "export_weights", "batch_size"),
    *("image_size", "epochs", "augment", "augment_seed", "shuffle", "seed", "accumulate"),
    *("remat", "ema", "scan", "shard_optimizer", "profile", "mesh.data", "log_every"),
    "checkpoint_every",
}


def test_of_each_field_that_was_added_it_is_known_by_what_was_computed_before_it():
    for name, field in FIELDS.items():
        matters = field.changes is not Changes.NOTHING
        assert (field.before is not None) == (matters and name not in FIRST), name


def test_every_option_of_an_optimiser_is_a_field_and_every_field_of_one_or_of_all():
    taken = {f"optimizer.{option}" for _, takes in OPTIMIZERS.values() for option in takes}
    of_all = {f"optimizer.{name}" for name in ("name", "learning_rate", "clip_norm")}
    assert taken | of_all == {name for name in FIELDS if name.startswith("optimizer.")}


@pytest.mark.parametrize("odd", ["5", "None", "ConfigDict({'name': ['adam']})"])
def test_an_optimiser_that_is_none_is_refused_by_its_name(odd, tmp_path):
    page = tmp_path / "page.py"
    page.write_text(
        "from ml_collections import ConfigDict\nfrom configs import base\n"
        f"def get_config(a):\n    c = base.get_config()\n    c.optimizer = {odd}\n    return c\n"
    )
    with pytest.raises(ConfigError, match="optimizer"):
        config_pages.validate(config_pages.load(str(page), ["--config.seed=1"]))


@pytest.mark.parametrize("page", ["quickstart", "study_covid"])
def test_an_option_of_another_optimiser_is_refused(page):
    override = ["--config.optimizer.weight_decay=0.5"]
    with pytest.raises(ConfigError, match=r"weight_decay has no effect: adam .*adamw or lion"):
        config_pages.load(page, override)
    taken = config_pages.load(page, [*override, "--config.optimizer.name=adamw"])
    assert taken.optimizer.weight_decay == 0.5
