"""Laws of the DDTI builder, on cases in the owners' form and on the real crops."""

import json
import zipfile

import numpy as np
import pytest
import tensorflow_datasets as tfds

from radimagenet_jax.errors import DataError
from tests.tfds_builders.building import build, counts, encoded, examples, notes, pixels
from tfds_builders.ddti import ddti_dataset_builder
from tfds_builders.ddti.ddti_dataset_builder import Builder

RNG = np.random.default_rng(0)
HEIGHT, WIDTH = 36, 56
TIRADS = ["2", "3", "4a", "4b", "4c", "5"]
SQUARE = [(10, 5), (20, 5), (20, 15), (10, 15)]


def outlines(*regions: list[tuple[int, int]]) -> str:
    """The JSON of a mark, as the owners' drawing tool wrote it."""
    return json.dumps(
        [
            {
                "points": [{"x": x, "y": y} for x, y in region],
                "annotation": {},
                "regionType": "freehand",
            }
            for region in regions
        ]
    )


def case_file(number: int, tirads: str, marks: dict[int, str]) -> str:
    marked = "".join(
        f"<mark><image>{image}</image><svg>{svg}</svg></mark>" for image, svg in marks.items()
    )
    return (
        '<?xml version="1.0" encoding="UTF-8" standalone="no"?>'
        f"<case><number>{number}</number><age>53</age><sex>F</sex><composition>solid</composition>"
        "<echogenicity>hypoechogenicity</echogenicity><margins>ill defined</margins>"
        f"<calcifications>non</calcifications><tirads>{tirads}</tirads>"
        f"<reportbacaf>no</reportbacaf><reporteco></reporteco>{marked}</case>"
    )


@pytest.fixture
def source(tmp_path, monkeypatch):
    """30 cases, every third with two images; cases 1 to 6 have the six categories."""
    monkeypatch.setattr(
        ddti_dataset_builder, "PUBLISHED_ROWS", {1: {"train": 3, "val": 2, "test": 2}}
    )
    root = tmp_path / "manual" / "ddti"
    root.mkdir(parents=True)
    for number in range(1, 31):
        images = range(1, 3 if number % 3 == 0 else 2)
        for image in images:
            drawn = RNG.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
            (root / f"{number}_{image}.jpg").write_bytes(encoded(drawn, "JPEG"))
        marks = {image: outlines(SQUARE) for image in images}
        tirads = TIRADS[(number - 1) % len(TIRADS)]
        (root / f"{number}.xml").write_text(case_file(number, tirads, marks))
    return root


ROWS = {
    "train": ["1_1.jpg,benign", "3_1.jpg,malignant", "3_2.jpg,malignant"],
    "val": ["2_1.jpg,benign", "4_1.jpg,malignant"],
    "test": ["7_1.jpg,benign", "5_1.jpg,malignant"],
}


@pytest.fixture
def tables(source):
    folder = source / "splits"
    folder.mkdir()
    for split, rows in ROWS.items():
        lines = ["img_dir,label", *(f"images/{row}" for row in rows)]
        (folder / f"thyroid_{split}_fold1.csv").write_text("\n".join(lines))
    return folder


def test_the_published_tables_are_used_row_for_row_and_followed_against_tirads(
    tmp_path, source, tables
):
    builder = build(Builder, tmp_path, source, "fold1")
    found = examples(builder)
    for split, rows in ROWS.items():
        assert {f"{key},{each['label']}" for key, each in found[split].items()} == set(rows)
        for key, each in found[split].items():
            assert each["image"] == (source / key).read_bytes()
            assert each["patient"] == key.split("_")[0]
    # Case 3 is of category 4a, case 5 of 4c, 4 of 4b, 7 of 2 again: no contradiction.
    assert notes(builder) == []
    (source / "5.xml").write_text(case_file(5, "2", {1: outlines(SQUARE)}))
    builder = build(Builder, tmp_path / "again", source, "fold1")
    assert examples(builder)["test"]["5_1.jpg"]["label"] == "malignant"
    (note,) = notes(builder)
    assert "label 1 images other than their TI-RADS category does, and are followed: 5_1." in note


def test_outlines_become_masks_of_all_nodules_with_their_lines(tmp_path, source, tables):
    other = [(40, 20), (70, 20), (70, 50), (40, 50)]  # leaves the image at the right and below
    (source / "1.xml").write_text(case_file(1, "2", {1: outlines(SQUARE, other)}))
    found = examples(build(Builder, tmp_path, source, "fold1"))
    expected = np.zeros((HEIGHT, WIDTH), np.uint8)
    expected[5:16, 10:21] = 255
    expected[20:, 40:] = 255
    np.testing.assert_array_equal(pixels(found["train"]["1_1.jpg"]["mask"]), expected)


@pytest.mark.parametrize(
    "svg", ["", "[]", "undefined", "[{}]", '[{"points": [{"x": null, "y": 1}]}]', '{"a": 1}']
)
def test_an_outline_that_cannot_be_read_is_no_mask_but_a_note(tmp_path, source, tables, svg):
    (source / "1.xml").write_text(case_file(1, "2", {1: svg}))
    builder = build(Builder, tmp_path, source, "fold1")
    assert examples(builder)["train"]["1_1.jpg"]["mask"] == b""
    assert notes(builder) == ["1 images have no nodule outline that can be read, and no mask: 1_1."]


def test_without_tables_tirads_gives_labels_and_cases_stay_together(tmp_path, source):
    (source / "30.xml").write_text(case_file(30, "", {}))  # no category: 30_1 and 30_2 left out
    tested: list[str] = []
    for fold in range(1, 6):
        builder = build(Builder, tmp_path, source, f"fold{fold}")
        found = examples(builder)
        for rows in found.values():
            for key, each in rows.items():
                tirads = TIRADS[(int(key.split("_")[0]) - 1) % len(TIRADS)]
                assert each["label"] == ("benign" if tirads in "23" else "malignant")
        cases = [{each["patient"] for each in rows.values()} for rows in found.values()]
        assert len(set.union(*cases)) == sum(map(len, cases)) == 29
        tested += found["test"]
        assert "2 images are left out, whose case has no TI-RADS category: 30_1, 30_2." in notes(
            builder
        )
        assert any(
            f"fold {fold} of a deterministic 5-fold split by case" in n for n in notes(builder)
        )
    assert len(tested) == len(set(tested)) == 38


def test_the_zip_gives_what_the_folder_gives(tmp_path, source, tables):
    expected = examples(build(Builder, tmp_path / "folder", source, "fold1"))
    with zipfile.ZipFile(source / "thyroid.zip", "w") as archive:
        for path in sorted(source.glob("*_*.jpg")) + sorted(source.glob("*.xml")):
            archive.write(path, f"thyroid/{path.name}")
            path.unlink()
    assert examples(build(Builder, tmp_path / "zip", source, "fold1")) == expected


def refuse(tmp_path, source, message, config="fold1"):
    with pytest.raises(DataError, match=message) as info:
        build(Builder, tmp_path, source, config)
    assert not list((tmp_path / "data").rglob("*.array_record*"))
    return str(info.value)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("<case><tirads>2</tirads>", r"8\.xml is no valid XML"),
        ("", r"8\.xml is no valid XML"),
        (case_file(8, "6", {}), r"8\.xml has the unknown TI-RADS category '6'; known are 2, 3, 4a"),
        ("<!DOCTYPE x [<!ENTITY a 'b'>]><case>&a;</case>", r"8\.xml is refused: it declares a doc"),
        (
            "<case><tirads>2</tirads><mark><image>x</image></mark></case>",
            r"8\.xml marks an image without a number \('x'\)",
        ),
    ],
)
def test_a_bad_case_file_is_refused_by_name(tmp_path, source, content, sentence):
    (source / "8.xml").write_text(content)
    refuse(tmp_path, source, sentence)


def test_missing_truncated_and_misnamed_images_are_told_by_row_and_name(tmp_path, source, tables):
    (source / "4_1.jpg").unlink()
    path = tables / "thyroid_test_fold1.csv"
    path.write_text(path.read_text() + "\nimages/case9.jpg,benign\nimages/9_1.jpg,unsure\n")
    text = refuse(tmp_path, source, "has 3 problems")
    assert "thyroid_val_fold1.csv, row 3: the image '4_1.jpg' is not below" in text
    assert "thyroid_test_fold1.csv, row 4: 'images/case9.jpg' is not named <case>_<image>" in text
    assert "thyroid_test_fold1.csv, row 5: the label 'unsure' is unknown" in text


def test_a_truncated_jpeg_is_told_by_name(tmp_path, source, tables):
    path = source / "3_2.jpg"
    path.write_bytes(path.read_bytes()[:-100])
    refuse(tmp_path, source, r"3_2\.jpg is cut short or damaged")


def test_crops_without_labels_or_images_are_refused_with_what_to_get(tmp_path, source):
    refuse(tmp_path, source, r"has no PNG crop named '<case>_<image>'", "crops_fold1")
    for path in source.glob("*.xml"):
        path.unlink()
    refuse(tmp_path, source, r"has neither the owners' XML files .* nor thyroid_train_fold1\.csv")


def test_the_real_crops_give_the_published_fold_but_eight_rows(tmp_path, shared_data):
    root = tmp_path / "manual" / "ddti"
    root.mkdir(parents=True)
    (root / "crops").symlink_to(shared_data / "ddti_crops")
    (root / "splits").symlink_to(shared_data / "published_splits/thyroid/dataframe")
    builder = build(Builder, tmp_path, root, "crops_fold1")
    found = examples(builder)
    assert counts(found) == {"train": 247 - 7, "val": 30 - 1, "test": 72}
    (note,) = notes(builder)
    assert note.startswith("8 rows of the published tables are left out")
    for name in ("54_1", "197_1", "205_1", "127_1", "142_2", "166_1", "176_1", "203_1"):
        assert name in note
    for rows in found.values():
        for key, each in rows.items():
            mask = pixels(each["mask"])
            assert mask.shape == (300, 300)
            # One of the 341 masks is empty, and stays so.
            assert set(np.unique(mask)) == ({0} if key == "337_3.png" else {0, 255})


def test_a_fold_without_tables_takes_the_labels_of_another_and_stands_in(tmp_path, shared_data):
    root = tmp_path / "manual" / "ddti"
    root.mkdir(parents=True)
    (root / "crops").symlink_to(shared_data / "ddti_crops")
    (root / "splits").symlink_to(shared_data / "published_splits/thyroid/dataframe")
    found = {fold: examples(build(Builder, tmp_path, root, f"crops_fold{fold}")) for fold in (1, 3)}
    labels = [
        {key: each["label"] for rows in of_fold.values() for key, each in rows.items()}
        for of_fold in found.values()
    ]
    assert labels[0] == labels[1]
    cases = [{key.partition("_")[0] for key in rows} for rows in found[3].values()]
    assert sum(map(len, cases)) == len(set().union(*cases))
    told = notes(build(Builder, tmp_path, root, "crops_fold3"))
    assert any("published tables of fold 1" in note for note in told)
    assert any("deterministic" in note for note in told)


def test_the_tags_are_ones_that_tfds_knows():
    known = tfds.core.dataset_metadata.valid_tags()
    assert set(Builder.get_metadata().tags) <= set(known)
