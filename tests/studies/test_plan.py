"""What a study consists of, and what its config must not say."""

import re
from pathlib import Path

import pytest

from configs import study_all, study_base
from radimagenet_jax import models
from radimagenet_jax.errors import ConfigError
from radimagenet_jax.studies import plan, session, unread
from radimagenet_jax.training import config as config_pages
from radimagenet_jax.training import fields, initialise
from radimagenet_jax.weights import native
from radimagenet_jax.weights.contract import Contract


def published(**study):
    config = study_base.get_config("breast")
    for name, value in study.items():
        config.study[name] = value
    return config


def test_the_whole_published_comparison_has_1152_runs(tmp_path):
    config = study_all.get_config()
    (tmp_path / "weights").touch()
    config.study.inits = (f"radimagenet={tmp_path}/weights", f"imagenet={tmp_path}/weights")
    plan.validate(config)
    runs = plan.runs(config)
    assert len(runs) == 1152
    assert len({run.id for run in runs}) == 1152


def test_runs_with_the_same_frozen_weights_are_one_group_and_others_are_alone():
    groups = plan.groups(published())
    assert len(groups) == 4 * (2 + 2 * 5)
    shared = [group for group in groups if group.has_trunk]
    assert {len(group.runs) for group in shared} == {2 * 5}
    for group in shared:
        assert len({(run.model, run.init, run.structure) for run in group.runs}) == 1


def test_seeds_of_random_frozen_weights_share_no_group(tmp_path):
    (tmp_path / "w").touch()
    config = published(seeds=(0, 1), inits=("scratch", f"file={tmp_path}/w"))
    for group in plan.groups(config):
        if group.has_trunk:
            seeds = {run.seed for run in group.runs}
            assert seeds == ({0, 1} if group.runs[0].init == "file" else {group.runs[0].seed})


def test_views_multiply_the_runs_that_share_a_trunk_and_no_others():
    config = published(views=(0, 8))
    plan.validate(config)
    runs = plan.runs(config)
    of = {views: [run for run in runs if run.views == views] for views in (0, 8)}
    assert len(of[0]) == len(plan.runs(published()))
    assert len(of[8]) == sum(run.structure != "unfreezeall" for run in of[0])
    assert all(run.structure != "unfreezeall" for run in of[8])
    for group in plan.groups(config):
        assert len({run.views for run in group.runs}) == 1


def test_shards_divide_the_groups():
    groups = plan.groups(published())
    parts = [plan.shard(groups, f"{i}/3") for i in range(3)]
    assert sorted(g.id for part in parts for g in part) == sorted(g.id for g in groups)


@pytest.mark.parametrize("text", ["3/3", "1", "a/b", "-1/2"])
def test_a_shard_that_is_none_is_refused(text):
    with pytest.raises(ConfigError, match="i from 0"):
        plan.shard((), text)


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("tasks", ("brest",), "'brest'"),
        ("models", ("resnet18",), "'resnet18'"),
        ("models", (), "empty"),
        ("inits", ("radimagenet",), "NAME=PATH"),
        ("inits", ("a=no/such/file",), "no/such/file"),
        ("settings", (("freezeall", -1.0),), "positive"),
        ("folds", (6,), "breast has 1, 2, 3, 4, 5"),
        ("preprocessing", ("native",), "scratch"),
        ("seeds", (0, 0), "twice"),
        ("views", (0, -1), "(0, -1)"),
        ("views", (), "empty"),
        ("engine", "none", "'shared' or 'alone'"),
        ("memory_gib", 0.0, "positive"),
    ],
)
def test_a_bad_study_config_is_one_sentence_that_names_the_field(field, value, says):
    with pytest.raises(ConfigError) as caught:
        plan.validate(published(**{field: value}))
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_weights_of_another_network_are_refused_before_anything_is_computed(tmp_path, make_config):
    contract = Contract(
        "resnet50", "v1", "caffe_div255", "BGR", "a test", "none", "0" * 64, None, "HWIO"
    )
    folder = tmp_path / "weights"
    variables = initialise.scratch(models.create("resnet50"), 32, 0, "zeros")
    native.write(folder, variables, contract)
    config = make_config("densenet121", inits=("scratch", f"mine={folder}"))
    with pytest.raises(ConfigError, match=r"'mine' for densenet121.*those of resnet50") as caught:
        session.run(config, str(tmp_path / "study"), "")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "study").exists()


def test_a_file_that_is_no_weights_is_refused_before_anything_is_computed(tmp_path, make_config):
    (tmp_path / "notes.h5").write_text("not HDF5")
    config = make_config(inits=(f"mine={tmp_path / 'notes.h5'}",))
    with pytest.raises(ConfigError, match=r"notes\.h5 cannot be the weights 'mine'"):
        session.preview(config, str(tmp_path / "study"), "")


def test_a_structure_that_a_network_has_no_layers_for_is_refused_before_anything_is_computed(
    tmp_path, make_config
):
    config = make_config(settings=(("layers=stage2.*", 1e-3),))
    plan.check_structures(config)
    config.study.models, config.image_size = ("resnet50", "inception_v3"), 75
    plan.validate(config)
    with pytest.raises(ConfigError, match=r"settings, for inception_v3: .*no layer's whole name"):
        session.run(config, str(tmp_path / "study"), "")
    assert not (tmp_path / "study").exists()


def test_a_schedule_is_refused():
    config = published()
    config.schedule.name = "cosine"
    with pytest.raises(ConfigError, match=r"schedule\.name"):
        plan.validate(config)


def test_every_task_has_a_study_page():
    from radimagenet_jax.data.tasks import TASKS

    folder = Path(__file__).resolve().parents[2] / "configs"
    for task in TASKS:
        for argument in ("", ":smoke"):
            config = config_pages.load(f"{folder}/study_{task}.py{argument}")
            plan.validate(config)
            assert config.study.tasks == (task,)


def _loaded(page, *overrides):
    folder = Path(__file__).resolve().parents[2] / "configs"
    config = config_pages.load(f"{folder}/{page}", overrides)
    _check(config, overrides)
    return config


def _check(config, overrides):
    plan.validate(config)
    unread.check(config, overrides)


def _sizes(config):
    singles = [plan.run_config(config, run) for run in plan.runs(config)]
    return {(single.task, single.image_size, single.batch_size) for single in singles}


@pytest.mark.parametrize(
    ("page", "overrides", "sizes"),
    [
        ("study_breast.py", (), {("breast", 256, 256)}),
        ("study_breast.py", ("study.image_size=96", "study.batch_size=8"), {("breast", 96, 8)}),
        ("study_breast.py:smoke", ("study.image_size=96",), {("breast", 96, 64)}),
        ("study_breast.py:smoke", ("image_size=48", "batch_size=8"), {("breast", 48, 8)}),
        ("study_covid.py", ("study.batch_size=8",), {("covid", 224, 8)}),
        ("study_breast.py", ("study.tasks=('covid',)",), {("covid", 224, 1024)}),
        (
            "study_all.py",
            ("study.tasks=('breast','covid')", "study.image_size=96"),
            {("breast", 96, 256), ("covid", 96, 1024)},
        ),
    ],
)
def test_the_sizes_named_for_a_study_are_those_of_its_runs(page, overrides, sizes):
    assert _sizes(_loaded(page, *(f"--config.{text}" for text in overrides))) == sizes


@pytest.mark.parametrize(
    ("page", "overrides", "says"),
    [
        ("study_breast.py", ["model=densenet121"], "config.model .*config.study.models"),
        (
            "study_breast.py",
            ["model_options.width=8"],
            r"config.model_options.width .*NETWORK.width",
        ),
        ("study_breast.py", ["scan=true"], "config.scan .*single runs"),
        ("study_breast.py", ["image_size=64", "study.image_size=96"], "config.image_size .*alone"),
        ("study_all.py", ["batch_size=8"], "config.batch_size .*config.study.batch_size"),
        ("study_all.py", ["dataset.positive=a"], "config.dataset.positive .*page of one task"),
        ("study_breast.py", ["study.engine=alone", "study.trunk_batch=8"], "study.trunk_batch"),
        (
            "study_breast.py",
            ["study.settings=(('unfreezeall',1e-3),)", "study.memory_gib=2", "study.views=(8,)"],
            "study.memory_gib .*study.views",
        ),
        ("study_breast.py", ["augment=none", "study.augment_seed=3"], "study.augment_seed"),
        (
            "study_breast.py",
            ["study.models=('resnet50',)", "study.model_options.densenet121.width=8"],
            "study.model_options.densenet121.width",
        ),
    ],
)
def test_a_field_without_effect_is_refused_by_its_name(page, overrides, says):
    with pytest.raises(ConfigError, match=says) as caught:
        _loaded(page, *(f"--config.{text}" for text in overrides))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", [n for n in fields.FIELDS if n != "model_options"])
def test_a_field_of_single_runs_is_that_of_each_run_or_refused(name):
    config = published()
    before = dict(config_pages.flatten(config))[name]
    others = {str: "other", bool: not before, int: 7, float: 0.125}
    config_pages.set_field(config, name, others[type(before)])
    single = plan.run_config(config, plan.runs(config)[0])
    if dict(config_pages.flatten(single))[name] != others[type(before)]:
        with pytest.raises(ConfigError, match=rf"config\.{re.escape(name)} has no effect"):
            _check(config, [f"--config.{name}={others[type(before)]}"])
