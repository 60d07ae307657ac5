"""The RSNA pneumonia files in their true layout, and what is wrong with them."""

import numpy as np
import pytest

from radimagenet_jax.data import preparation
from radimagenet_jax.errors import DataError
from tests.dicom_files import dicom_file
from tests.tfds_builders.building import examples, notes, pixels
from tfds_builders.rsna_pneumonia import rsna_pneumonia_dataset_builder as module

RADIOGRAPHS = {
    f"{number:04}-c0ffee": np.random.default_rng(number).integers(0, 256, (20, 16), np.uint8)
    for number in range(20)
}
LABELS = {patient: int(patient[:4]) % 2 for patient in RADIOGRAPHS}


@pytest.fixture
def source(tmp_path):
    root = tmp_path / "downloads/manual/rsna_pneumonia"
    (root / "stage_2_train_images").mkdir(parents=True)
    rows = ["patientId,x,y,width,height,Target"]
    for patient, image in RADIOGRAPHS.items():
        path = root / f"stage_2_train_images/{patient}.dcm"
        path.write_bytes(dicom_file(image, patient))
        boxes = ["1.0,2.0,3.0,4.0,1", "8.0,9.0,5.0,6.0,1"] if LABELS[patient] else [",,,,0"]
        rows += [f"{patient},{box}" for box in boxes]
    (root / "stage_2_train_labels.csv").write_text("\n".join(rows))
    return root


def prepare(tmp_path, config="published"):
    return preparation.prepare(f"rsna_pneumonia/{config}", tmp_path, workers=2)


def refuse(tmp_path, message):
    with pytest.raises(DataError, match=message):
        prepare(tmp_path)
    assert not (tmp_path / "rsna_pneumonia").exists()


def test_each_patient_is_there_once_with_label_boxes_and_pixels(tmp_path, source):
    built = prepare(tmp_path)
    found = {key: row for rows in examples(built).values() for key, row in rows.items()}
    assert set(found) == {f"{patient}.dcm" for patient in RADIOGRAPHS}
    for patient, image in RADIOGRAPHS.items():
        row = found[f"{patient}.dcm"]
        assert row["label"] == ("no", "yes")[LABELS[patient]]
        assert row["patient"] == patient
        assert row["boxes"].shape == (2 * LABELS[patient], 4)
        np.testing.assert_array_equal(pixels(row["image"]), image)
    assert "the published split tables are not there" in notes(built)[0]


def test_the_published_tables_are_used_row_for_row(tmp_path, source, monkeypatch):
    monkeypatch.setattr(module, "PUBLISHED_ROWS", {"train": 12, "val": 4, "test": 4})
    patients = list(RADIOGRAPHS)
    listed = {"train": patients[:12], "val": patients[12:16], "test": patients[16:]}
    (source / "splits").mkdir()
    for split, rows in listed.items():
        lines = [f"{i},images/{p}.png,{LABELS[p]},{('no', 'yes')[LABELS[p]]}"
                 for i, p in enumerate(rows)]  # fmt: skip
        table = "\n".join([",filename,0/1,label", *lines])
        (source / f"splits/{split}.csv").write_text(table)
    built = prepare(tmp_path)
    assert {split: set(rows) for split, rows in examples(built).items()} == {
        split: {f"{patient}.dcm" for patient in rows} for split, rows in listed.items()
    }
    assert notes(built) == []


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("0000-c0ffee,,,,,0", "0000-c0ffee,,,,,2", "row 2: the Target '2' is unknown"),
        ("0001-c0ffee,8.0", "0001-c0ffee,x", "row 4: has Target 1 without a box of four numbers"),
        ("0002-c0ffee,,,,,0", "0001-c0ffee,,,,,0", "row 5: '0001-c0ffee' has the Target 0 here"),
        ("0002-c0ffee", "nobody", r"row 5: the image 'nobody\.dcm' is not there"),
        ("0001-c0ffee,8.0", "0001-c0ffee,15.0", "a box in .* that leaves it"),
        ("patientId", "id", "has no column 'patientId'"),
    ],
)
def test_a_bad_table_is_refused(tmp_path, source, old, new, message):
    table = source / "stage_2_train_labels.csv"
    table.write_text(table.read_text().replace(old, new))
    refuse(tmp_path, message)


def test_damaged_files_are_all_told(tmp_path, source):
    for patient in list(RADIOGRAPHS)[:3]:
        path = source / f"stage_2_train_images/{patient}.dcm"
        path.write_bytes(path.read_bytes()[:-100])
    refuse(tmp_path, r"(?s)3 problems.*0000.*cut short or damaged.*0002")
