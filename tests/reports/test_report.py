"""Laws of report.html: self-contained, inert, and written whatever a run left."""

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import matplotlib
import numpy as np
import pytest

from radimagenet_jax.errors import DataError
from radimagenet_jax.reports import figures, provenance, report, svg
from radimagenet_jax.statistics import metrics, operating_points
from radimagenet_jax.statistics.scores import Predictions

EVIL = "<script>alert('1')</script>\"&'><img src=x onerror=alert(1)>$\\frac{"
CONFIG = {
    "dataset": {"name": "covid_ct", "fold": 0, "positive": "yes"},
    "model": "resnet50",
    "init": "scratch",
    "structure": "unfreezeall",
    "seed": 0,
    "optimizer": {"name": "adam", "learning_rate": 1e-5},
    "model_options": {},
}
PROVENANCE: provenance.Provenance = {
    "command": "python -m radimagenet_jax.main --config=configs/covid.py",
    "versions": {"jax": "0.10.2"},
    "device": "1 x cpu",
    "weights": {"architecture": "resnet50", "sha256": "ab" * 32, "labels": None},
    "dataset": {
        "name": "covid_ct",
        "fingerprint": "cd" * 32,
        "terms": "research only",
        "sizes": {"train": 425, "val": 118, "test": 203},
    },
    "trainable": [
        {"block": "head", "layers": 1, "parameters": 4098, "trainable": 4098, "batch_norm": ""}
    ],
    "warnings": ["2 images are in train and test."],
}


class Page(HTMLParser):
    """What a browser would make of a page: elements, their attributes, the text."""

    VOID = frozenset({"meta", "img", "br", "link", "input", "hr"})

    def __init__(self, text):
        super().__init__()
        self.elements, self.text, self._open = [], "", []
        self.feed(text)
        assert self._open == [], f"not closed: {self._open}"

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        if not self._open or self._open[-1] != "style":
            self.text += data

    def tags(self):
        return {tag for tag, _ in self.elements}

    def ids(self):
        return [attributes["id"] for _, attributes in self.elements if "id" in attributes]


def scored(n=60, classes=("no", "yes"), seed=0, labels=None, key="image %d.png", patients=True):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, len(classes), n) if labels is None else np.asarray(labels)
    logits = rng.normal(size=(n, len(classes)))
    logits[np.arange(n), labels] += 1
    scores = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return Predictions(
        classes,
        [key % i for i in range(n)],
        [f"p{i // 2}" if patients else "" for i in range(n)],
        labels,
        scores,
    )


def history(epochs=4, per_epoch=5):
    rows = []
    for step in range(1, epochs * per_epoch + 1):
        rows.append({"step": step, "split": "train", "epoch": step / per_epoch, "loss": 2 / step})
        if step % per_epoch == 0:
            rows.append(
                {
                    "step": step,
                    "split": "val",
                    "epoch": step // per_epoch,
                    "loss": 1 / step,
                    "auroc": 1 - 1 / step,
                }
            )
    return rows


def write(
    folder, predictions, rows=(), config=CONFIG, provenance=PROVENANCE, positive=1, points=None
):
    result = {
        split: metrics.evaluate(p.scores, p.labels, p.patients, positive)
        for split, p in predictions.items()
    }
    for split, given in (points or {}).items():
        result[split]["operating_points"] = given
    if rows:
        result |= {"best_step": rows[-1]["step"], "params_digest": "ef" * 32}
        result["train"] = {"steps": 20, "epochs": 4, "seconds": 61.5, "images_per_second": 3.2}
    thumbnails = {}
    if "test" in predictions:
        shape = (30, 40)
        keys = report.select_examples(predictions["test"])
        thumbnails = {key: np.full(shape, i, np.uint8) for i, key in enumerate(keys)}
    path = report.write_report(
        folder,
        config=config,
        result=result,
        history=list(rows),
        evaluated=report.Evaluated(predictions, thumbnails, positive),
        provenance=provenance,
    )
    return Page(path.read_text(encoding="utf-8")), path, result


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished")
    return write(folder, {"test": scored(), "val": scored(40, seed=1)}, history())


def test_the_page_tells_the_test_auroc_and_what_its_interval_is_over(finished):
    page, _, result = finished
    test = result["test"]
    text = re.sub(r"\s+", " ", page.text)
    assert f"{test['auroc']:.3f} test AUROC of yes" in text
    low, high = test["auroc_ci95"]
    assert f"95 % interval {low:.3f} to {high:.3f} , over 30 patients" in text.replace(",", " ,")


def test_the_page_holds_all_that_made_it(finished):
    text = finished[0].text
    for part in (
        PROVENANCE["command"],
        "ab" * 32,
        "cd" * 32,
        "ef" * 32,
        "research only",
        "0.10.2",
        "1 x cpu",
        "2 images are in train and test.",
        "optimizer.learning_rate",
        "1e-05",
        "4,098 of 4,098 parameters",
        "425 train, 118 val, 203 test",
    ):
        assert part in text


def test_the_page_has_all_figures(finished):
    labels = [a["aria-label"] for tag, a in finished[0].elements if tag == "svg"]
    assert len(labels) == 5
    words = ("loss", "Validation AUROC", "ROC curve", "Histogram", "Observed share")
    assert [any(word in label for label in labels) for word in words] == [True] * 5


def test_the_page_refers_to_nothing_outside_and_runs_nothing(finished):
    page, path, _ = finished
    assert not page.tags() & {"script", "link", "iframe", "object", "embed", "base", "form"}
    for _, attributes in page.elements:
        assert not [name for name in attributes if name.startswith("on")]
        for name in ("src", "href", "xlink:href", "srcset", "data"):
            if name in attributes:
                assert attributes[name].startswith(("data:image/png;base64,", "#"))
    text = path.read_text()
    assert "http" not in text
    assert "@import" not in text
    assert not re.search(r"url\((?!#)", text)


def test_ids_are_unique_and_every_local_reference_has_its_target(finished):
    page, path, _ = finished
    ids = page.ids()
    assert len(ids) == len(set(ids))
    references = re.findall(r"(?:url\(|href=\")#([^)\"]+)", path.read_text())
    assert references
    assert set(references) <= set(ids)


def test_figures_take_their_colours_from_the_page(finished):
    drawings = re.findall(r"<svg.*?</svg>", finished[1].read_text(), re.DOTALL)
    for drawing in drawings:
        assert "var(--" in drawing
        # Other colours would be lost on a page of the other brightness.
        assert set(re.findall(r"(?:fill|stroke): ?(#\w+)", drawing)) <= {"#000000"}


def test_every_selected_image_is_shown_with_its_key(finished):
    page, _, _ = finished
    keys = report.select_examples(scored())
    pictures = [a for tag, a in page.elements if tag == "img"]
    assert len(pictures) == len(keys)
    titles = {a.get("title") for tag, a in page.elements if tag == "p"}
    assert set(keys) <= titles


def test_equal_runs_give_equal_pages(finished, tmp_path):
    again = write(tmp_path, {"test": scored(), "val": scored(40, seed=1)}, history())
    assert again[1].read_text() == finished[1].read_text()


def test_markup_in_names_stays_text(tmp_path):
    names = (EVIL + "0", EVIL + "1")
    page, path, _ = write(
        tmp_path,
        {"test": scored(20, names, key=EVIL + "%d")},
        history(),
        config={**CONFIG, "model": EVIL, "dataset": {"name": EVIL}},
        provenance={**PROVENANCE, "command": EVIL, "warnings": [EVIL], "versions": {EVIL: EVIL}},
    )
    assert "script" not in page.tags()
    assert not [a for tag, a in page.elements if tag == "img" and "onerror" in a]
    assert "<script" not in path.read_text()
    assert EVIL in page.text


SMALL = provenance.network("resnet50", {"stage_sizes": (1, 1, 1, 1), "width": 32}, 64)


def test_the_title_and_the_first_sentence_say_which_network_was_trained_and_how(tmp_path):
    record: provenance.Provenance = {
        **PROVENANCE,
        "network": SMALL,
        "smoke": True,
        "less": provenance.SMOKE,
        "weights": {"origin": "RadImageNet, by its name", "sha256": "ab" * 32},
        "weights_remarks": ["Its checksum is not known."],
    }
    page, path, _ = write(tmp_path, {"test": scored()}, history(), provenance=record)
    head, rest = flat(page).split("test AUROC", 1)
    words = "shallow ResNet50, 2.0 of 23.6 million parameters, 64 pixels"
    assert head.count(words) == 3  # the title, of the window too, and the first sentence
    assert f"a {words}, smoke run" in head
    assert f"A {words}, trained on covid_ct from RadImageNet, by its name. " in head
    assert provenance.SMOKE in head
    assert "Its checksum is not known." in rest
    assert "smoke run · report</title>" in path.read_text()


def test_the_table_of_results_names_the_positive_class(finished):
    assert "AUROC ofyes" in finished[0].text
    assert "yespositive" in finished[0].text  # a row of the confusion matrix


def test_every_image_can_be_opened_large_without_a_script(finished):
    page, path, _ = finished
    shown = len(report.select_examples(scored()))
    boxes = [a for tag, a in page.elements if tag == "input"]
    assert [a["type"] for a in boxes] == ["checkbox"] * shown
    assert all(a["aria-label"] for a in boxes)
    assert ".zoom input:checked + .frames { position: fixed" in path.read_text()


@pytest.mark.parametrize("name", ["audit", "localisation", "maps", "report"])
def test_every_page_says_what_made_it_and_that_it_is_not_for_clinical_use(name):
    template = (Path(report.__file__).parent / f"templates/{name}.html").read_text()
    assert "{{ block(" in template
    assert "{{ not_a_device }}" in template
    # A table that is wider than a phone scrolls by itself, and not with the page.
    tables = re.findall(r"(.{20})<table class=\"figures", template, re.DOTALL)
    assert all(before.endswith('class="scroll">') for before in tables)


def test_a_missing_validation_set_is_left_out(tmp_path):
    page, _, _ = write(tmp_path, {"test": scored()}, history())
    assert "Validation" not in page.text
    assert "test AUROC" in page.text


def test_a_test_set_of_one_class_says_why_it_has_no_auroc(tmp_path):
    page, _, _ = write(tmp_path, {"test": scored(10, labels=[1] * 10)}, history())
    assert "All examples (n = 10) are of the class with index 1" in page.text
    assert "ROC curve" not in page.text
    assert "Reliability" in page.text


def test_a_run_without_a_test_set_shows_its_validation_set(tmp_path):
    page, _, _ = write(tmp_path, {"val": scored()}, history())
    assert "no test result" in page.text
    assert "Validation set (there is no test set)" in page.text


def test_one_example_of_one_step_is_enough(tmp_path):
    page, _, _ = write(tmp_path, {"test": scored(1)}, history(1, 1))
    assert "1 of 1" in page.text


def test_an_aborted_run_without_anything_says_so(tmp_path):
    page, _, _ = write(tmp_path, {}, config={}, provenance={})
    assert "no test result" in page.text
    assert "svg" not in page.tags()


def test_a_hundred_classes_fit(tmp_path):
    classes = [f"class {i}" for i in range(100)]
    page, path, _ = write(tmp_path, {"test": scored(600, classes)}, history())
    text = re.sub(r"\s+", " ", page.text)
    assert "mean of 100 classes" in text
    assert "Most frequent mistakes" in text
    assert page.text.count("class 99") >= 1
    assert path.stat().st_size < 2_000_000


def test_few_classes_have_a_table_of_confusions(tmp_path):
    page, _, _ = write(tmp_path, {"test": scored(90, ("a", "b", "c"))}, history())
    assert "Confusion matrix" in page.text
    assert "Figures of each class" in page.text
    assert "Most frequent mistakes" not in page.text


def test_the_positive_class_may_be_the_first(tmp_path):
    page, _, _ = write(tmp_path, {"test": scored()}, history(), positive=0)
    assert "Score of “no”" in page.text
    assert "True positives: no called no" in page.text


def test_rows_without_values_and_long_histories_are_drawn(tmp_path):
    rows = history(3, 400)
    rows[0]["loss"] = None
    rows[-1]["auroc"] = None
    _, path, _ = write(tmp_path, {"test": scored()}, rows)
    assert "nan" not in "".join(re.findall(r"<path d=\"([^\"]*)\"", path.read_text()))


def test_long_keys_are_shortened_in_the_middle_and_whole_in_the_tooltip(tmp_path):
    key = "folder/" + "x" * 3000 + "/slice %d.png"
    page, _, _ = write(tmp_path, {"test": scored(6, key=key, patients=False)}, history())
    assert "x" * 100 not in page.text
    assert "/slice 0.png" in page.text
    assert key % 0 in {a.get("title") for _, a in page.elements}


def test_a_stray_byte_in_a_key_is_written(tmp_path):
    page, _, _ = write(tmp_path, {"test": scored(4, key="a\udcff%d.png", patients=False)})
    assert "a?0.png" in page.text


@pytest.mark.parametrize("shape", [(300, 500), (20, 20, 1), (900, 30, 3)])
def test_images_of_any_shape_become_small_pictures(shape, tmp_path):
    p = scored(4, patients=False)
    report.write_report(
        tmp_path,
        config={},
        result={},
        history=[],
        evaluated=report.Evaluated({"test": p}, {key: np.zeros(shape, np.uint8) for key in p.keys}),
        provenance={},
    )
    page = Page((tmp_path / "report.html").read_text())
    sizes = [(int(a["width"]), int(a["height"])) for tag, a in page.elements if tag == "img"]
    assert len(sizes) == 4
    assert max(max(size) for size in sizes) <= 320


@pytest.mark.parametrize("image", [np.zeros((4, 4)), np.zeros((4, 4, 2), np.uint8)])
def test_images_that_are_none_are_refused(image, tmp_path):
    p = scored(1)
    with pytest.raises(ValueError, match="uint8"):
        report.write_report(
            tmp_path,
            config={},
            result={},
            history=[],
            evaluated=report.Evaluated({"test": p}, {p.keys[0]: image}),
            provenance={},
        )
    assert list(tmp_path.iterdir()) == []


def test_a_missing_folder_is_one_sentence(tmp_path):
    with pytest.raises(DataError, match=r"report\.html cannot be written"):
        write(tmp_path / "absent", {})


def test_the_users_matplotlib_settings_neither_matter_nor_change(finished, tmp_path):
    with matplotlib.rc_context({"axes.grid": False, "font.size": 30, "text.usetex": True}):
        again = write(tmp_path, {"test": scored(), "val": scored(40, seed=1)}, history())
        assert matplotlib.rcParams["font.size"] == 30
    assert again[1].read_text() == finished[1].read_text()


def test_the_template_is_part_of_the_package():
    folder = Path(report.__file__).parent / "templates"
    assert {entry.name for entry in folder.iterdir()} >= {"report.html", "report.css"}


def test_the_page_of_new_data_is_of_points_fixed_before_and_says_what_is_missing(tmp_path):
    predictions, before = scored(80), scored(seed=1)
    figures = metrics.evaluate(predictions.scores, predictions.labels, predictions.patients, 1)
    points = operating_points.fix(before.scores[:, 1], before.labels == 1)
    figures["operating_points"] = operating_points.evaluate(
        predictions.scores, predictions.labels, predictions.patients, 1, points
    )
    new_data: report.NewData = {
        "network": "runs/<covid>",
        "inputs": "new/labels.csv",
        "scored": 83,
        "failed": 4,
        "unlabelled": 3,
    }
    path = report.write_report(
        tmp_path,
        config={"dataset": {"name": "labels.csv"}, "model": "ResNet50"},
        result={"test": figures},
        history=[],
        evaluated=report.Evaluated({"test": predictions}, {}, 1),
        provenance=PROVENANCE,
        new_data=new_data,
    )
    text = " ".join(Page(path.read_text(encoding="utf-8")).text.split())
    assert "Evaluation on new data" in text
    assert "83 images of new/labels.csv were scored by runs/<covid>" in text
    assert "3 have no label and are in no figure" in text
    assert "4 could not be read and are listed in errors.csv" in text
    youden = figures["operating_points"][1]
    row = f"Youdennew data{youden['threshold']:.3f}{100 * youden['sensitivity']:.1f} %"
    assert row in text
    assert "test AUROC" not in text
    assert "predictions_test.csv" not in text


def flat(page):
    return re.sub(r"\s+", " ", page.text)


def test_head_and_foot_name_one_method_and_both_kinds_of_units(tmp_path):
    predictions = scored()
    predictions = replace(predictions, patients=[f"p{i // 4}" for i in range(36)] + [""] * 24)
    page, _, result = write(tmp_path, {"test": predictions}, history())
    text = flat(page)
    assert text.count(result["test"]["ci_method"]) == 2
    assert "over 9 patients and 24 images of unknown patients" in text
    assert "bootstrap" not in text


def test_too_few_patients_have_their_reason_where_the_interval_would_stand(tmp_path):
    predictions = replace(scored(), patients=["a", "b", "c"] * 20)
    page, _, result = write(tmp_path, {"test": predictions}, history())
    assert result["test"]["auroc_ci95_reason"] in flat(page).split("Read with care")[0]
    assert "A band needs at least 5 patients" in flat(page)


def test_a_network_at_chance_is_told_so_beside_its_auroc(tmp_path):
    labels, rng = np.arange(60) % 2, np.random.default_rng(0)
    score = 0.6 + 0.1 * rng.random(60)
    predictions = replace(scored(labels=labels), scores=np.stack([1 - score, score], axis=1))
    hero = flat(write(tmp_path, {"test": predictions}, history())[0]).split("Read with care")[0]
    assert "calls every image positive (sensitivity 100 %, specificity 0 %)" in hero
    assert "At chance" in hero


def test_the_number_under_every_image_is_the_score_of_the_positive_class():
    predictions = scored()
    strips = report._strips(report.Evaluated({"test": predictions}, {}, 1))
    score_of = dict(zip(predictions.keys, predictions.scores[:, 1], strict=True))
    tiles = [tile for strip in strips for tile in strip["tiles"]]
    assert any(example.called == "no" for example, *_ in tiles)
    for example, score, *_ in tiles:
        assert score == pytest.approx(score_of[example.key])


def test_operating_points_stand_with_their_splits_prevalence_and_reasons(tmp_path):
    predictions = {"val": scored(seed=1), "test": scored()}
    points = operating_points.fix(predictions["val"].scores[:, 1], predictions["val"].labels == 1)
    points[-1] = operating_points.OperatingPoint("90 % specificity", None, "no such threshold")
    given = {
        split: operating_points.evaluate(p.scores, p.labels, p.patients, 1, points, 0.05)
        for split, p in predictions.items()
    }
    page, _, _ = write(tmp_path, predictions, history(), points=given)
    text = flat(page)
    assert "Operating points for “yes”" in text
    assert f"{points[1].threshold:.3f}" in text
    assert "not available: no such threshold" in text
    assert "test, at a prevalence of 5.0 %" in text
    assert f"test {100 * given['test'][0]['prevalence']:.1f} %" in text


def test_an_axis_of_one_epoch_shows_it_alone():
    # The steps of its training do not count where only validation is drawn.
    rows = [row for row in history() if row["epoch"] <= 1]
    with svg.drawing():
        drawing = figures.auroc_curve(rows, 5)
    ticks = re.findall(r"<text[^>]*>([^<]*)</text>", drawing)
    assert ticks == ["1", "epoch", "0.5", "0.6", "0.7", "0.8", "0.9", "1.0", "AUROC"]


def test_terms_are_explained_where_they_stand(finished):
    text = flat(finished[0])
    for term in ("nats (natural logarithm)", "Wilson intervals (", "(ECE: ", "Brier score (mean"):
        assert term in text


def test_the_surest_images_have_their_maps_beside_them_on_one_scale(tmp_path):
    predictions = scored()
    shown = report.select_examples(predictions)
    images = {key: np.full((16, 16, 1), 90, np.uint8) for key in shown}
    maps = {key: np.full((2, 2), number - 3.0) for number, key in enumerate(shown)}
    evaluated = report.Evaluated({"test": predictions}, images, 1, maps)
    assert evaluated.limit == pytest.approx(np.quantile(np.abs(np.stack([*maps.values()])), 0.995))
    against, neither, favour = (evaluated.overlay(shown[place]) for place in (0, 3, 5))
    assert (against[..., 2] > against[..., 0]).all()
    assert (neither == 90).all()
    assert (favour[..., 0] > favour[..., 2]).all()
    page = " ".join(
        report.write_report(
            tmp_path,
            config={"dataset": {"name": "x"}, "model": "resnet50"},
            result={},
            history=[],
            evaluated=evaluated,
            provenance=PROVENANCE,
        )
        .read_text(encoding="utf-8")
        .split()
    )
    assert page.count('class="frames"') == len(shown)
    assert page.count('class="frame"') == 2 * len(shown)
    assert "orange speaks for “yes”" in page
    # Without maps the page is as it was.
    plain = report._strips(report.Evaluated({"test": predictions}, images, 1))
    assert all(overlay is None for strip in plain for *_, overlay, _ in strip["tiles"])
