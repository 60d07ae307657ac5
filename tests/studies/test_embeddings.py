"""Laws of tables of features in a study: heads on them are those of a frozen network."""

import csv
import json

import cv2
import numpy as np
import pytest

from radimagenet_jax import models, predict
from radimagenet_jax.data import features_file
from radimagenet_jax.errors import ConfigError, DataError
from radimagenet_jax.reports import predictions
from radimagenet_jax.studies import embeddings, engine, plan, session, shared
from radimagenet_jax.training import initialise
from radimagenet_jax.weights import native
from radimagenet_jax.weights.contract import Contract
from tests.studies.conftest import replaced

SETTINGS = (("freezeall", 1e-2), ("freezeall", 1e-3))


def nothing(epoch):
    pass


@pytest.fixture
def images(make_images):
    return make_images(32)


@pytest.fixture
def make_table(tmp_path, images):
    """Writes a table of eight columns that tell the classes apart somewhat, for some keys."""

    def make(keys=images.keys, name="embeddings.npz", columns=8, seed=0):
        rng = np.random.default_rng(seed)
        labels = dict(zip(images.keys, images.labels, strict=True))
        signal = np.array([[labels.get(key, 0)] for key in keys], np.float32)
        pooled = rng.normal(size=(len(keys), columns)).astype(np.float32) + signal
        features_file.write(tmp_path / name, keys, pooled)
        return tmp_path / name

    return make


@pytest.fixture
def in_memory(monkeypatch, images):
    monkeypatch.setattr(engine, "gather", lambda folds, load: images)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """ResNet50 with random weights, as a converted folder."""
    network = models.create("resnet50")
    variables = initialise.scratch(network, 32, 0, "zeros")
    contract = Contract(
        "resnet50", "v1", "caffe_div255", "BGR", "a test", "none", "0" * 64, None, "HWIO"
    )
    folder = tmp_path_factory.mktemp("weights") / "resnet50"
    native.write(folder, variables, contract)
    return folder


def test_heads_on_the_table_that_predict_makes_of_a_weight_file_are_those_of_the_frozen_file(
    weights, make_config, images, tmp_path
):
    pngs = tmp_path / "images"
    pngs.mkdir()
    named = replaced(images, keys=tuple(f"{key}.png" for key in images.keys))
    for key, pixels in zip(named.keys, images.read(np.arange(len(images))), strict=True):
        assert cv2.imwrite(str(pngs / key), pixels)
    flags = [f"--weights={weights}", f"--inputs={pngs}", f"--output={tmp_path / 'features'}"]
    assert predict.main([*flags, "--features", "--image_size=32"]) == 0
    config = make_config(
        inits=(f"mine={weights}",),
        features=(f"table={tmp_path / 'features' / 'features.npz'}",),
        settings=SETTINGS,
        model_options={"resnet50": {}},
    )
    config.augment = "none"
    of_table, of_file = plan.groups(config)
    assert of_table.runs[0].has_table
    assert not of_file.runs[0].has_table
    ours, figures = shared.train(config, of_table.runs, named, 1, nothing)
    theirs, _ = shared.train(config, of_file.runs, named, 1, nothing)
    assert len(ours) == len(theirs) == 4
    for one, other in zip(ours, theirs, strict=True):
        assert one.reason is None
        assert (one.run.learning_rate, one.run.fold) == (other.run.learning_rate, other.run.fold)
        assert one.best_epoch == other.best_epoch
        for split in ("val", "test"):
            np.testing.assert_allclose(
                one.scored[split].scores, other.scored[split].scores, atol=1e-5
            )
            assert one.scored[split].keys == other.scored[split].keys
        assert np.ptp(one.scored["test"].scores) > 1e-3  # not all the same
    # Rows are looked up once: of both splits' images and of all that are trained on.
    assert figures["trunk_images"] <= 3 * len(images)


def test_a_study_with_a_table_has_its_rows_comparisons_and_page(
    make_config, make_table, in_memory, tmp_path
):
    path = make_table()
    config = make_config(features=(f"medsiglip={path}",))
    command = ["python", "-m", "radimagenet_jax.study", "--config=a page.py"]
    assert session.run(config, str(tmp_path / "study"), "", command) == 0
    with open(tmp_path / "study/study.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["model"], row["init"], row["structure"]) for row in rows] == [
        *[("resnet50", "scratch", "freezeall")] * 4,
        *[("embedding", "medsiglip", "freezeall")] * 4,
    ]
    assert {row["status"] for row in rows} == {"ok"}
    scored = predictions.read(tmp_path / "study/predictions" / f"{rows[-1]['run']}_test.csv")
    assert len(scored.keys) == 6
    with open(tmp_path / "study/comparisons.csv", newline="") as file:
        compared = list(csv.DictReader(file))
    # At each learning rate with the network of that rate, over both folds' test images.
    assert [
        (one["compared"], one["model"], one["learning_rate"], one["first"], one["second"])
        for one in compared
    ] == [("init", "resnet50", rate, "scratch", "medsiglip") for rate in ("0.01", "0.001")]
    assert {one["images"] for one in compared} == {"12"}
    with open(tmp_path / "study/overall.csv", newline="") as file:
        (total,) = csv.DictReader(file)
    assert (total["first"], total["second"], total["settings"]) == ("scratch", "medsiglip", "2")
    digest = features_file.sha256(path)
    record = json.loads((tmp_path / "study/groups" / f"{_table_group(config).id}.json").read_text())
    assert (record["features_file"], record["features_sha256"]) == (str(path), digest)
    page = (tmp_path / "study/report.html").read_text()
    assert digest in page
    assert "of unaugmented images" in page
    assert "Networks (a shallow ResNet50, " in page
    assert "pixels) were trained on breast from the initialisations scratch" in page


def test_a_group_keeps_what_made_it_and_what_it_was_made_of(
    make_config, make_table, in_memory, tmp_path
):
    config = make_config(features=(f"medsiglip={make_table()}",))
    command = ["python", "-m", "radimagenet_jax.study", "--config=a page.py:smoke"]
    assert session.run(config, str(tmp_path / "study"), "", command) == 0
    for group in plan.groups(config):
        kept = json.loads((tmp_path / "study/groups" / f"{group.id}.json").read_text())
        assert kept["made_by"]["command"].endswith("'--config=a page.py:smoke'")
        assert kept["made_by"]["smoke"]
        assert kept["positive"] == "malignant"
        assert (kept["epochs"], kept["batch_size"], kept["image_size"]) == (3, 8, 32)
        assert kept["images"]["sizes"]["1"] == {"train": 30, "val": 6, "test": 6}
        assert set(kept["images"]["fingerprints"]) == {"1", "2"}
        if not group.runs[0].has_table:
            assert kept["weights"] is None
            assert kept["network"]["is_shallow"]
            assert kept["network"]["title"] == "ResNet50"


def _table_group(config):
    return next(group for group in plan.groups(config) if group.runs[0].has_table)


def test_a_study_with_a_table_goes_on_and_another_table_of_the_name_is_refused(
    make_config, make_table, in_memory, tmp_path, monkeypatch
):
    path = make_table()
    config = make_config(features=(f"medsiglip={path}",))
    assert session.run(config, str(tmp_path / "study"), "0/2") == 0
    (done,) = (tmp_path / "study/groups").glob("*.json")
    assert done.stem == _table_group(config).id  # first: it takes seconds
    written = done.stat().st_mtime_ns
    assert session.run(config, str(tmp_path / "study"), "1/2") == 0
    assert session.merge(config, str(tmp_path / "study")) == 0
    assert done.stat().st_mtime_ns == written
    assert "scratch − medsiglip" in (tmp_path / "study/report.html").read_text()
    make_table(seed=1)
    with pytest.raises(ConfigError, match="another table 'medsiglip'") as caught:
        session.run(config, str(tmp_path / "study"), "")
    assert "\n" not in str(caught.value)


def test_images_that_a_table_lacks_are_named_and_a_whole_one_may_take_its_place(
    make_config, make_table, images, in_memory, tmp_path
):
    config = make_config(features=(f"medsiglip={make_table(keys=images.keys[5:])}",))
    assert session.run(config, str(tmp_path / "study"), "") == 1
    with open(tmp_path / "study/study.csv", newline="") as file:
        rows = {row["run"]: row for row in csv.DictReader(file)}
    failed = [row for row in rows.values() if row["status"] == "failed"]
    assert {row["init"] for row in failed} == {"medsiglip"}
    first = ", ".join(repr(key) for key in images.keys[:3])
    assert {f"lacks 5 of 50 images: {first} and 2 more" in row["reason"] for row in failed} == {
        True
    }
    make_table(keys=("unused", *images.keys))
    assert session.run(config, str(tmp_path / "study"), "") == 0


def test_a_table_that_is_none_is_refused_before_anything_is_computed(
    make_config, tmp_path, monkeypatch
):
    np.savez(tmp_path / "flat.npz", keys=np.array(["a"]), pooled=np.float32(1))
    config = make_config(features=(f"flat={tmp_path / 'flat.npz'}",))
    for command in (session.run, session.preview):
        with pytest.raises(DataError, match="2 dimensions too few"):
            command(config, str(tmp_path / "study"), "")
    assert not (tmp_path / "study").exists()


@pytest.mark.parametrize(
    ("features", "says"),
    [
        (("medsiglip",), "NAME=PATH"),
        (("medsiglip=",), "NAME=PATH"),
        (("a/b=e.npz",), "NAME=PATH"),
        (("medsiglip=no/such.npz",), "no/such.npz, the table 'medsiglip'"),
        (("scratch={path}",), "'scratch', which another"),
        (("mine={path}",), "'mine', which another"),
        (("one={path}", "one={path}.copy"), "'one', which another"),
        (("one={path}", "one={path}"), "twice"),
    ],
)
def test_a_field_that_names_no_table_is_one_sentence(
    features, says, make_config, make_table, tmp_path
):
    path = make_table()
    config = make_config(inits=("scratch", f"mine={path}"))
    config.study.features = tuple(text.format(path=path) for text in features)
    with pytest.raises(ConfigError) as caught:
        plan.validate(config)
    assert "config.study.features" in str(caught.value)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_table_needs_a_frozen_setting_for_its_learning_rates(make_config, make_table):
    with pytest.raises(ConfigError, match="freezeall"):
        make_config(features=(f"one={make_table()}",), settings=(("unfreezeall", 1e-3),))


def test_each_task_may_have_a_table_of_its_own(make_config, make_table, tmp_path):
    path = make_table(name="breast.npz")
    config = make_config(features=(f"one={tmp_path}/{{task}}.npz",))
    assert plan.table_path(config, "one", "breast") == path
    assert embeddings.digests(config) == {("breast", "one"): features_file.sha256(path)}


def test_a_table_shares_its_group_whatever_the_engine(make_config, make_table):
    config = make_config(
        features=(f"one={make_table()}",),
        engine="alone",
        settings=(("unfreezeall", 1e-3), *SETTINGS),
        seeds=(0, 1),
    )
    groups = plan.groups(config)
    assert [group.runs[0].has_table for group in groups[:2]] == [True, False]
    assert len(groups[0].runs) == 2 * 2 * 2
    assert groups[0].has_trunk
