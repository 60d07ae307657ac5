"""Laws of the CC-CCII builder, on slices in the owners' layout."""

import zipfile

import numpy as np
import pytest
import tensorflow_datasets as tfds

from radimagenet_jax.errors import DataError
from tests.tfds_builders.building import build, counts, encoded, examples, notes
from tfds_builders.cc_ccii import cc_ccii_dataset_builder
from tfds_builders.cc_ccii.cc_ccii_dataset_builder import Builder

RNG = np.random.default_rng(0)
# Numbers of patients repeat across classes; some patients have two scans.
SLICES = [
    f"{kind}/{patient}/{3000 + 2 * patient + scan}/{number:04}.{'jpg' if patient % 3 else 'png'}"
    for kind in ("CP", "NCP")
    for patient in range(10)
    for scan in range(1 + patient % 2)
    for number in range(3)
]
LESIONS = [key for key in SLICES if "/0002." not in key]
ROWS = {
    "train": ["CP/0/3000/0000.png", "CP/0/3000/0001.png", "NCP/0/3000/0000.png"],
    "val": ["CP/1/3002/0000.jpg", "NCP/1/3003/0001.jpg"],
    "test": ["CP/2/3004/0000.jpg", "NCP/2/3004/0000.jpg"],
}


@pytest.fixture
def source(tmp_path, monkeypatch):
    monkeypatch.setattr(
        cc_ccii_dataset_builder, "PUBLISHED_ROWS", {"train": 3, "val": 2, "test": 2}
    )
    root = tmp_path / "manual" / "cc_ccii"
    for key in SLICES:
        path = root / key
        path.parent.mkdir(parents=True, exist_ok=True)
        kind = "PNG" if path.suffix == ".png" else "JPEG"
        path.write_bytes(encoded(RNG.integers(0, 256, (12, 10), dtype=np.uint8), kind))
    # What the owners also hand out, and the task does not use.
    normal = root / "Normal/1/100/0000.png"
    normal.parent.mkdir(parents=True)
    normal.write_bytes(b"not looked at")
    (root / "lesions_slices.csv").write_text("\n".join(["imgpath", *LESIONS]))
    return root


@pytest.fixture
def tables(source):
    folder = source / "splits"
    folder.mkdir()
    for split, keys in ROWS.items():
        lines = [",imgpath,pid,label,filename"]
        for number, key in enumerate(keys):
            kind, patient = key.split("/")[:2]
            lines.append(f"{number},{key},{kind}_{patient},{kind},images/{key}")
        (folder / f"sarscovid2_{split}.csv").write_text("\r\n".join(lines))
    return folder


def test_the_published_tables_are_used_row_for_row(tmp_path, source, tables):
    builder = build(Builder, tmp_path, source, "published")
    found = examples(builder)
    assert {split: set(rows) for split, rows in found.items()} == {
        split: set(keys) for split, keys in ROWS.items()
    }
    for rows in found.values():
        for key, each in rows.items():
            assert each["image"] == (source / key).read_bytes()
            kind, patient = key.split("/")[:2]
            assert (each["label"], each["patient"]) == (kind, f"{kind}_{patient}")
    assert notes(builder) == []
    assert builder.info.features["label"].names == ["CP", "NCP"]


@pytest.mark.parametrize(("with_lesions", "slices"), [(True, LESIONS), (False, SLICES)])
def test_folds_are_by_patient_and_take_the_slices_with_lesions(
    tmp_path, source, with_lesions, slices
):
    if not with_lesions:
        (source / "lesions_slices.csv").unlink()
    tested: list[str] = []
    for fold in range(1, 6):
        builder = build(Builder, tmp_path, source, f"fold{fold}")
        found = examples(builder)
        patients = [{each["patient"] for each in rows.values()} for rows in found.values()]
        assert sum(map(len, patients)) == len(set.union(*patients)) == 20
        tested += found["test"]
        (note,) = notes(builder)
        assert f"fold {fold} of a deterministic 5-fold split by patient" in note
        assert ("the slices of lesions_slices.csv" in note) == with_lesions
    assert sorted(tested) == sorted(slices)


def test_without_its_tables_the_published_configuration_is_fold_1_and_says_so(tmp_path, source):
    builder = build(Builder, tmp_path, source, "published")
    assert examples(builder) == examples(build(Builder, tmp_path, source, "fold1"))
    assert notes(builder)[0].startswith("the published split tables are not there: fold 1 of")


def test_the_owners_zips_give_what_the_folders_give(tmp_path, source, tables):
    expected = examples(build(Builder, tmp_path / "folders", source, "published"))
    for kind in ("CP", "NCP"):
        for part in (0, 1):
            with zipfile.ZipFile(source / f"{kind}-{part + 1}.zip", "w") as archive:
                for key in SLICES:
                    if key.startswith(f"{kind}/") and int(key.split("/")[1]) % 2 == part:
                        archive.write(source / key, key)
                        (source / key).unlink()
    assert examples(build(Builder, tmp_path / "zips", source, "published")) == expected


def refuse(tmp_path, source, message, config="published"):
    with pytest.raises(DataError, match=message) as info:
        build(Builder, tmp_path, source, config)
    assert not list((tmp_path / "data").rglob("*.array_record*"))
    return str(info.value)


def test_what_is_wrong_with_rows_is_told_together(tmp_path, source, tables):
    path = tables / "sarscovid2_test.csv"
    bad = [
        "2,NCP/9/1/0000.png,NCP_9,NCP,images/NCP/9/1/0000.png",
        "3,CP/4/3008/0000.jpg,CP_4,NCP,images/CP/4/3008/0000.jpg",
        "4,CP/5/3010/0000.jpg,CP_6,CP,images/CP/5/3010/0000.jpg",
        "5,Normal/1/100/0000.png,Normal_1,CP,images/Normal/1/100/0000.png",
        "6,x,CP_7,CP,/images/CP/7/3014/0000.jpg",
    ]
    path.write_text("\n".join([path.read_text(), *bad]))
    text = refuse(tmp_path, source, "has 5 problems")
    assert "sarscovid2_test.csv, row 4: the image 'NCP/9/1/0000.png' is not below" in text
    assert "row 5: 'CP/4/3008/0000.jpg' is labelled 'NCP' and lies in the folder CP" in text
    assert (
        "row 6: 'CP/5/3010/0000.jpg' has the patient 'CP_6' and lies in the folder of CP_5" in text
    )
    assert "row 7: 'images/Normal/1/100/0000.png' does not end in CP or NCP/<patient>" in text
    assert "row 8: the filename '/images/CP/7/3014/0000.jpg' leaves" in text


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        (LESIONS[0], r"lesions_slices\.csv, row 82: '.*' is listed before, in row 2"),
        ("CP/1/2/3.png", r"row 82: the image 'CP/1/2/3\.png' is not below"),
        ("../CP/1/2/3.png", r"row 82: the imgpath '\.\./CP/1/2/3\.png' leaves"),
    ],
)
def test_a_bad_row_of_the_table_of_lesions_is_refused(tmp_path, source, row, sentence):
    path = source / "lesions_slices.csv"
    assert len(path.read_text().splitlines()) == len(LESIONS) + 1
    path.write_text(f"{path.read_text()}\n{row}\n")
    refuse(tmp_path, source, sentence.replace("82", str(len(LESIONS) + 2)), "fold2")


def test_a_truncated_slice_is_told_by_name(tmp_path, source, tables):
    for key in ("CP/0/3000/0001.png", "NCP/1/3003/0001.jpg"):
        (source / key).write_bytes((source / key).read_bytes()[:70])
    text = refuse(tmp_path, source, "has 2 problems")
    assert "CP/0/3000/0001.png is cut short" in text
    assert "NCP/1/3003/0001.jpg is" in text


def test_a_folder_without_slices_is_told_with_what_to_get(tmp_path):
    root = tmp_path / "manual" / "cc_ccii"
    root.mkdir(parents=True)
    (root / "notes.txt").write_text("nothing yet")
    refuse(tmp_path, root, r"has no image CP/<patient>/<scan>/<slice>\.png .* lesions_slices\.csv")


def test_the_published_counts_are_those_of_the_study():
    assert cc_ccii_dataset_builder.PUBLISHED_ROWS == {"train": 44644, "val": 4367, "test": 9755}


def test_one_class_only_is_refused(tmp_path, source):
    for path in (source / "NCP").rglob("*.*"):
        if path.is_file():
            path.unlink()
    (source / "lesions_slices.csv").unlink()
    refuse(tmp_path, source, r"all images are of one class \(CP\)", "fold1")


def test_counts_of_a_fold_are_about_72_8_and_20_percent(tmp_path, source):
    found = counts(examples(build(Builder, tmp_path, source, "fold1")))
    shares = {split: count / len(LESIONS) for split, count in found.items()}
    # 20 patients of at most 6 slices: a patient is up to 10 percent of all.
    assert shares == pytest.approx({"train": 0.72, "val": 0.08, "test": 0.2}, abs=0.1)


def test_the_tags_are_ones_that_tfds_knows():
    known = tfds.core.dataset_metadata.valid_tags()
    assert set(Builder.get_metadata().tags) <= set(known)
