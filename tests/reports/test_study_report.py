"""Laws of what a study says: from its files alone, and of what is there only."""

import base64
import csv
import dataclasses
import html
import json
import re

import numpy as np
import pytest

from radimagenet_jax.errors import DataError
from radimagenet_jax.reports import predictions, provenance, study_files, study_report
from radimagenet_jax.statistics import comparisons, delong
from radimagenet_jax.statistics.pooled import IDENTITY
from radimagenet_jax.statistics.scores import Predictions
from radimagenet_jax.weights.card import NOT_A_DEVICE

CONFIG = {"dataset": {"positive": ""}, "epochs": 3, "image_size": 32, "batch_size": 16}
KEYS = tuple(f"image{number}" for number in range(60))
PATIENTS = tuple(f"p{number // 2}" for number in range(60))


def row(init, structure, fold, **more):
    auroc = {"a": 0.7, "b": 0.6}[init] + 0.01 * fold + 0.1 * (structure == "freezeall")
    found = {
        "dataset": "breast", "model": "resnet50", "init": init, "structure": structure,
        "learning_rate": 0.001, "fold": fold, "seed": 0, "auroc_val": 0.7, "auroc_test": auroc,
        "best_epoch": 2, "seconds": 3.5, "preprocessing": "published", "views": 0, "status": "ok",
        "reason": "",
    }  # fmt: skip
    return {**found, **more}


@pytest.fixture
def study(tmp_path):
    """A study of two initialisations, two structures and two folds, one of its runs failed."""
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 2
    rows = [row(i, s, f) for i in "ab" for s in ("freezeall", "unfreezeall") for f in (1, 2)]
    rows[-1] |= {"status": "failed", "reason": "the loss is <no> number", "auroc_test": ""}
    for folder in ("predictions", "groups"):
        (tmp_path / folder).mkdir()
    for one in rows[:-1]:
        positive = np.clip(0.3 * labels + rng.uniform(0, 0.7, 60), 0, 1)
        scored = Predictions(
            ("no", "yes"), KEYS, PATIENTS, labels, np.stack([1 - positive, positive], 1)
        )
        path = study_files.predictions_path(tmp_path, study_files.run_id(one), "test")
        predictions.write(path, scored)
    with open(tmp_path / "study.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, study_files.COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    (tmp_path / "study.json").write_text(json.dumps(CONFIG))
    record = {"group": "g1", "runs": ["x"], "shared_trunk": True, "seconds": 12.5}
    (tmp_path / "groups/g1.json").write_text(json.dumps({**record, "warnings": ["a leak"]}))
    return tmp_path


def test_a_setting_is_the_mean_of_its_folds_and_the_table_is_over_settings(study):
    first, second = comparisons.summaries(study_files.read_rows(study))
    assert (first.init, first.settings, first.runs) == ("a", 2, 4)
    assert first.values == pytest.approx((0.815, 0.715))
    assert first.mean == pytest.approx(0.765)
    assert first.sd == pytest.approx(0.1 / np.sqrt(2))
    assert second.runs == 3  # the run that failed is not in it


def test_comparisons_are_delongs_on_the_images_that_both_have(study):
    rows = study_files.read_rows(study)
    found = comparisons.compare(study_files.pool(study, rows, {}))
    assert [one.images for one in found] == [120, 60]  # of the second, one fold is there
    whole = found[0]
    scores, labels, patients = [], [], []
    for init in "ab":
        runs = [
            predictions.read(study_files.predictions_path(study, study_files.run_id(r), "test"))
            for r in rows
            if r["init"] == init and r["structure"] == "freezeall"
        ]
        scores.append(np.concatenate([run.scores[:, 1] for run in runs]))
        labels = np.concatenate([run.labels for run in runs])
        patients = [patient for run in runs for patient in run.patients]
    areas = delong.areas(np.array(scores), labels == 1, patients)
    assert whole.aurocs == pytest.approx(tuple(areas.auroc))
    assert whole.difference.value == pytest.approx(areas.auroc[0] - areas.auroc[1])
    assert whole.difference.standard_error == pytest.approx(delong.difference(areas).standard_error)
    p_values = [one.difference.p_value for one in found]
    assert [one.corrected for one in found] == comparisons.holm(p_values)


@pytest.mark.parametrize(("factor", "value"), [("views", "8"), ("preprocessing", "native")])
def test_other_ways_to_compute_the_same_settings_are_compared_too(study, factor, value):
    rows = study_files.read_rows(study)
    first = study_files.pool(study, [row for row in rows if row["init"] == "a"], {})
    place = IDENTITY.index(factor)
    again = {(*name[:place], value, *name[place + 1 :]): s for name, s in first.items()}
    found = comparisons.compare({**first, **again})
    assert {one.factor for one in found} == {factor}
    assert {one.second for one in found} == {value}
    assert {one.difference.value for one in found} == {0}
    (total,) = comparisons.overall({**first, **again})
    assert (total.factor, total.effect.settings, total.effect.value) == (factor, 2, 0)


def test_a_task_without_patients_is_compared_image_by_image(study):
    pooled = {
        name: dataclasses.replace(own, patients=("",) * len(own.patients))
        for name, own in study_files.pool(study, study_files.read_rows(study), {}).items()
    }
    whole = comparisons.compare(pooled)[0]
    pair = [own for name, own in pooled.items() if name[3] == "freezeall"]
    areas = delong.areas(np.stack([own.scores for own in pair]), pair[0].positive)
    expected = delong.difference(areas)
    assert whole.difference.value == pytest.approx(expected.value)
    assert whole.difference.standard_error == pytest.approx(expected.standard_error)
    # Patients have two images each, which are no proof of one another.
    known = comparisons.compare(study_files.pool(study, study_files.read_rows(study), {}))[0]
    assert known.difference.standard_error != pytest.approx(expected.standard_error)


def test_a_fold_without_an_auroc_of_its_own_counts_in_the_pooled_one(study):
    rows = [dict(one) for one in study_files.read_rows(study)]
    whole = study_files.pool(study, rows, {})
    for one in rows:
        if one["fold"] == "2":
            one["auroc_test"] = ""
    pooled = study_files.pool(study, rows, {})
    assert {name: own.images for name, own in pooled.items()} == {
        name: own.images for name, own in whole.items()
    }


def test_a_summary_is_of_settings_with_the_same_images_only(study):
    rows = study_files.read_rows(study)
    assert comparisons.overall(study_files.pool(study, rows, {})) == []  # one lacks a fold
    whole = [row for row in rows if row["fold"] == "1"]
    (total,) = comparisons.overall(study_files.pool(study, whole, {}))
    pairs = comparisons.compare(study_files.pool(study, whole, {}))
    assert total.effect.value == pytest.approx(np.mean([one.difference.value for one in pairs]))
    assert (total.images, total.left_out) == (60, 0)


def test_the_page_holds_all_of_it_and_asks_for_nothing_outside(study):
    page = study_report.write(study).read_text()
    for text in ("0.765", "a leak", "&lt;no&gt; number", "Obuchowski", "12.5", "<svg"):
        assert text in page
    assert "src=" not in page
    assert "http" not in page.replace("http://www.w3.org", "")
    with open(study / "comparisons.csv", newline="") as file:
        table = list(csv.DictReader(file))
    assert [one["images"] for one in table] == ["120", "60"]
    assert float(table[0]["low"]) <= float(table[0]["difference"]) <= float(table[0]["high"])


@pytest.mark.parametrize("kept", [0, 1, 4])
def test_a_study_that_has_only_begun_has_a_page_too(study, kept):
    lines = (study / "study.csv").read_text().splitlines(keepends=True)
    (study / "study.csv").write_text("".join(lines[: 1 + kept]))
    page = study_report.write(study).read_text()
    assert "no setting has two initialisations" in page


def test_missing_scores_are_named(study):
    next(study.glob("predictions/*a-freezeall*_test.csv")).unlink()
    with pytest.raises(DataError, match=r"freezeall.*_test\.csv"):
        study_report.write(study)


@pytest.mark.parametrize(
    ("optimizer", "words"),
    [
        (None, "a batch size of 16 and Adam. The epoch"),
        ({"name": "adam", "momentum": 0.9}, "a batch size of 16 and Adam. The epoch"),
        ({"name": "sgd", "momentum": 0.9}, "and SGD with momentum 0.9. The"),
        ({"name": "sgd", "momentum": 0.0}, "and SGD. The"),
        ({"name": "adamw", "momentum": 0.9}, "and AdamW. The"),
        ({"name": "lion"}, "and Lion. The"),
    ],
)
def test_the_methods_name_the_optimiser_that_was_used(study, optimizer, words):
    used = {} if optimizer is None else {"optimizer": optimizer}
    (study / "study.json").write_text(json.dumps(CONFIG | used))
    assert words in study_report.write(study).read_text()


SHALLOW = {
    "title": "ResNet50", "parameters": 2_000_000, "published_parameters": 23_587_712,
    "is_shallow": True, "image_size": 32,
}  # fmt: skip
CONTRACT = {"origin": "Keras 2, origin not stated", "sha256": "ab" * 32, "licence": "Unknown."}


def keep(study, weights, dataset="breast", images="busi", smoke=False):
    """Writes what a group keeps, one for each initialisation."""
    (study / "groups/g1.json").unlink(missing_ok=True)
    for init, contract in weights.items():
        rows = [one for one in study_files.read_rows(study) if one["init"] == init]
        rows = [one for one in rows if one["dataset"] == dataset]
        command = f"python -m radimagenet_jax.study --config=x.py{':smoke' if smoke else ''}"
        made_by = {**provenance.stamp(command.split(), "8 x TPU v9"), "smoke": smoke}
        record = {
            "group": f"{dataset}-{init}", "shared_trunk": True, "seconds": 3.0,
            "runs": [study_files.run_id(one) for one in rows], "warnings": [],
            "made_by": made_by, "epochs": 3, "batch_size": 16, "image_size": 32,
            "network": SHALLOW, "weights": contract, "weights_remarks": [],
            "images": {
                "name": images, "terms": "CC BY 4.0: cite it.",
                "fingerprints": {"1": "f" * 64}, "sizes": {"1": {"train": 9, "val": 8, "test": 7}},
            },
        }  # fmt: skip
        (study / f"groups/{dataset}-{init}.json").write_text(json.dumps(record))


def whole(study):
    """Leaves the run that failed away, so that all settings have the same images."""
    rows = [one for one in study_files.read_rows(study) if one["fold"] == "1"]
    with open(study / "study.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, study_files.COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows({name: row.get(name, "") for name in study_files.COLUMNS} for row in rows)


def text_of(study):
    return html.unescape(study_report.write(study).read_text())


def test_a_study_of_small_networks_says_so_beside_its_title_and_first(study):
    keep(study, {"a": CONTRACT, "b": None})
    page = text_of(study)
    assert "<title>breast · study · shallow networks, 32 pixels</title>" in page
    first = page[page.index('<p class="said">') :]
    assert first.startswith(
        '<p class="said">A shallow ResNet50, 2.0 of 23.6 million parameters, 32 pixels; trained '
        "for 3 epochs. Less than the published training: a shallow network, 3 of 30 epochs and "
        "images of 32 instead of 256 pixels."
    )
    assert "Networks (a shallow ResNet50, 2.0 of 23.6 million parameters, 32 pixels)" in page
    keep(study, {"a": CONTRACT, "b": None}, smoke=True)
    page = text_of(study)
    assert "32 pixels, smoke run</title>" in page
    assert provenance.SMOKE in page


def test_a_study_says_what_made_it_and_what_it_is_not_for(study):
    keep(study, {"a": CONTRACT, "b": None})
    page = text_of(study)
    for text in (
        "UTC", "python -m radimagenet_jax.study --config=x.py", "8 x TPU v9", "jaxlib",
        "ab" * 32, CONTRACT["origin"], "f" * 64, "CC BY 4.0: cite it.", "9 train, 8 val, 7 test",
        NOT_A_DEVICE,
    ):  # fmt: skip
        assert text in page


def test_a_name_that_says_more_than_the_weights_is_remarked_on_first(study):
    keep(study, {"a": CONTRACT, "b": None})
    table = (study / "study.csv").read_text()
    assert "is so named by whoever" not in text_of(study)
    for old in study.glob("predictions/*-a-*"):
        old.rename(old.with_name(old.name.replace("-a-", "-radimagenet-")))
    (study / "study.csv").write_text(table.replace(",a,", ",radimagenet,"))
    for origin, is_said in (("random numbers", True), ("RadImageNet, released Keras file", False)):
        (study / "groups/breast-a.json").unlink(missing_ok=True)
        keep(study, {"radimagenet": CONTRACT | {"origin": origin}, "b": None})
        assert ("Nothing here shows that they are RadImageNet's" in text_of(study)) == is_said


def test_the_positive_class_stands_in_every_table_of_figures(study):
    whole(study)
    keep(study, {"a": CONTRACT, "b": None})
    page = text_of(study)
    for heading in ("AUROC over the settings", "Paired differences", "Every setting"):
        part = page[page.index(f"<h2>{heading}") :]
        table = part[part.index("<table") : part.index("</table>")]
        section = part[: part.index("</table>")] if heading == "Paired differences" else table
        assert "yes" in re.sub(r"<[^>]+>", " ", section).split()
    for name in ("summaries.csv", "comparisons.csv", "overall.csv", "settings.csv"):
        with open(study / name, newline="") as file:
            lines = list(csv.DictReader(file))
        assert lines
        assert {line["positive"] for line in lines} == {"yes"}


def test_each_table_comes_with_its_csv_inside_the_page(study):
    page = study_report.write(study).read_text()
    links = dict(re.findall(r'download="([^"]+)" href="data:text/csv;base64,([^"]+)"', page))
    assert set(links) == {
        *("summaries.csv", "comparisons.csv", "settings.csv", "failed.csv", "groups.csv")
    }
    for name, inside in links.items():
        assert base64.b64decode(inside) == (study / name).read_bytes()


def test_the_published_gain_stands_beside_the_measured_one_with_its_source(study):
    whole(study)
    keep(study, {"a": {"origin": "RadImageNet"}, "b": {"origin": "Keras Applications, ImageNet"}})
    page = text_of(study)
    assert "+4.0" in page
    assert "10.1148/ryai.210315" in page
    assert "not the same comparison" not in page
    keep(study, {"a": {"origin": "RadImageNet"}, "b": None})
    assert "not the same comparison</b>: here RadImageNet with random weights" in text_of(study)
    keep(study, {"a": {"origin": "trained on busi/fold1, from RadImageNet"}, "b": None})
    assert "here trained on busi/fold1, from RadImageNet with random weights" in text_of(study)
    keep(study, {"a": {"origin": "RadImageNet"}, "b": None}, images="phantom")
    assert "beside the published gain" not in text_of(study)


def test_settings_that_are_no_better_than_guessing_are_counted_where_the_page_begins(study):
    whole(study)
    positive = np.arange(60) // 2 % 10 / 10  # the same of both classes: labels alternate
    for path in study.glob("predictions/*-b-*fold1*"):
        scores = np.stack([1 - positive, positive], 1)
        predictions.write(path, dataclasses.replace(predictions.read(path), scores=scores))
    page = text_of(study)
    assert page.index("breast, b: 2 of 2 settings are not told from chance") < page.index("<h2>AUR")
    assert "breast, a:" not in page


def test_several_tasks_have_one_answer_with_its_test_and_what_differs_between_them(study):
    whole(study)
    table = (study / "study.csv").read_text()
    rows = table.partition("\n")[2]
    (study / "study.csv").write_text(table + rows.replace("breast", "thyroid"))
    for path in list(study.glob("predictions/*")):
        scored = predictions.read(path)
        positive = np.clip(scored.scores[:, 1] * 0.9, 0, 1)
        other = dataclasses.replace(scored, scores=np.stack([1 - positive, positive], 1))
        predictions.write(path.with_name(path.name.replace("breast", "thyroid")), other)
    (study / "study.json").write_text(json.dumps(CONFIG | {"dataset": {"positive": "yes"}}))
    keep(study, {"a": CONTRACT, "b": None})
    keep(study, {"a": CONTRACT, "b": None}, "thyroid", "ddti")
    page = text_of(study)
    answer = re.search(r"<h2>Which gives the higher AUROC, a or b\?</h2>\s*<p>(.*?)</p>", page)
    assert answer
    assert re.match(
        r"Over 2 tasks, AUROC was 0\.\d+ higher from (a|b) than from (a|b) "
        r"\(95 % interval -?[\d.]+ to -?[\d.]+, p .*Hartung, Knapp, Sidik and Jonkman\.",
        answer[1],
    )
    for text in ("+9.4 %", "+4.0 %", "Heterogeneity", "I² is", "another comparison"):
        assert text in page
    with open(study / "tasks.csv", newline="") as file:
        (joined,) = csv.DictReader(file)
    assert joined["tasks"] == "2"
    assert float(joined["low"]) <= float(joined["difference"]) <= float(joined["high"])


def test_the_methods_name_what_else_the_networks_learnt_by_and_on(study):
    config = {
        **CONFIG,
        "loss": "softmax",
        "label_smoothing": 0.1,
        "class_weights": "balanced",
        "augment": "none",
        "dropout": 0.0,
        "optimizer": {"name": "adamw", "weight_decay": 0.01, "clip_norm": 1.0},
    }
    (study / "study.json").write_text(json.dumps(config))
    images = {"name": "own/breast", "terms": "", "fingerprints": {}, "sizes": {}}
    run = study_files.run_id(row("a", "freezeall", 1))
    record = {"group": "g1", "runs": [run], "shared_trunk": True, "seconds": 12.5}
    (study / "groups/g1.json").write_text(json.dumps({**record, "images": images, "epochs": 1}))
    page = html.unescape(study_report.write(study).read_text())
    assert "were trained on own/breast (in the place of breast’s images) from" in page
    assert "for 1 epoch at 32 pixels" in page
    assert (
        "AdamW with a weight decay of 0.01, with gradients clipped to a global norm of 1, softmax "
        "cross-entropy, label smoothing of 0.1, classes of equal weight in the loss, no dropout "
        "and no augmentation. The epoch"
    ) in page
