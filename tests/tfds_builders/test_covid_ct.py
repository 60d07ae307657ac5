"""Laws of the COVID-CT builder, on small images in the owners' true layout."""

import io
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from radimagenet_jax.errors import DataError
from tfds_builders.covid_ct.covid_ct_dataset_builder import Builder

RNG = np.random.default_rng(0)
EXPECTED = {"train": 4, "val": 2, "test": 3}

# Name in the split files, split, patient; the names are of the published kinds.
COVID = [
    ("2020.01.24.919183-p27-132.png", "train", "Patient 1"),
    ("2020.02.10.20021584-p6-52%0.png", "train", "Patient 2"),
    ("2020.02.10.20021584-p6-52%10.png", "val", "Patient 3"),
    ("2019-novel-Coronavirus_2020_International-Jour-p3-91.png", "test", "Patient 180 "),
]
NON_COVID = [
    ("0.jpg", "train", "crawled_patient_0"),
    ("1%0.jpg", "train", "crawled_patient_1"),
    ("35%1.jpg", "val", "crawled_patient_35"),
    ("112.png", "test", "medpix_patient_66"),
    ("1029.png", "test", "medpix_patient_66"),
]
FOLDERS = {"COVID": COVID, "NonCOVID": NON_COVID}


def image(name: str) -> bytes:
    """A picture of one of the published kinds: a JPEG called .png, RGBA, L and RGB."""
    kinds = {"-p27-132": ("JPEG", 3), "52%0": ("PNG", 4), "0.jpg": ("JPEG", 1)}
    kind, channels = next((v for k, v in kinds.items() if k in name), ("PNG", 3))
    pixels = RNG.integers(0, 256, (9, 11, channels), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels.squeeze()).save(buffer, kind)
    return buffer.getvalue()


@pytest.fixture
def source(tmp_path, monkeypatch):
    monkeypatch.setitem(Builder.EXPECTED, "official", EXPECTED)
    root = tmp_path / "manual" / "covid_ct"
    for suffix, rows in FOLDERS.items():
        images = root / "Images-processed" / f"CT_{suffix}"
        images.mkdir(parents=True)
        lists = root / "Data-split" / suffix
        lists.mkdir(parents=True)
        for split in EXPECTED:
            names = [f"{name}\n" for name, where, _ in rows if where == split]
            (lists / f"{split}CT_{suffix}.txt").write_text("".join(names))
        for name, _, _ in rows:
            (images / name.replace("%", "_")).write_bytes(image(name))
    (root / "COVID-CT-MetaInfo.csv").write_text(
        "File name,Patient ID,DOI\n" + "".join(f"{name},{who},\n" for name, _, who in COVID)
    )
    (root / "NonCOVID-CT-MetaInfo.csv").write_text(
        "image name,patient id\n" + "".join(f"{name},{who}\n" for name, _, who in NON_COVID)
    )
    return root


def build(tmp_path: Path, source: Path, config: str = "official") -> Builder:
    builder = Builder(data_dir=tmp_path / "data", config=config)
    builder.workers = 2
    builder.download_and_prepare(
        download_config=tfds.download.DownloadConfig(manual_dir=source),
        file_format="array_record",
    )
    return builder


def examples(builder: Builder) -> dict[str, dict[str, tuple]]:
    """Split to key to (bytes, label, patient)."""
    decoders = {"image": tfds.decode.SkipDecoding()}
    return {
        split: {
            example["key"].decode(): (
                example["image"],
                int(example["label"]),
                example["patient"].decode(),
            )
            for example in builder.as_data_source(split, decoders=decoders)
        }
        for split in builder.info.splits
    }


def zip_folder(folder: Path, location: Path, prefix: str) -> None:
    with zipfile.ZipFile(location, "w") as archive:
        for path in sorted(folder.iterdir()):
            archive.write(path, f"{prefix}{path.name}")
    shutil.rmtree(folder)


def test_a_name_that_stands_for_nobody_is_no_patient(tmp_path, source):
    table = source / "NonCOVID-CT-MetaInfo.csv"
    table.write_text(table.read_text().replace("medpix_patient_66", "N/A"))
    built = build(tmp_path, source)
    assert {row[2] for row in examples(built)["test"].values()} == {"", "Patient 180"}
    (note,) = built.info.metadata["notes"]
    assert note.startswith(
        "2 of 5 images name no patient in the column patient id of NonCOVID-CT-MetaInfo.csv ('N/A')"
    )


def test_the_published_layout_gives_the_published_split(tmp_path, source):
    found = examples(build(tmp_path, source))
    assert {split: len(rows) for split, rows in found.items()} == EXPECTED
    assert set(found["train"]) == {
        "CT_COVID/2020.01.24.919183-p27-132.png",
        "CT_COVID/2020.02.10.20021584-p6-52_0.png",
        "CT_NonCOVID/0.jpg",
        "CT_NonCOVID/1_0.jpg",
    }
    for rows in found.values():
        for key, (encoded, label, patient) in rows.items():
            assert encoded == (source / "Images-processed" / key).read_bytes()
            assert label == (1 if key.startswith("CT_COVID/") else 0)
            assert patient.startswith("Patient" if label else ("crawled", "medpix"))
    assert found["test"]["CT_NonCOVID/112.png"][2] == found["test"]["CT_NonCOVID/1029.png"][2]
    assert build(tmp_path, source).info.features["label"].names == ["negative", "positive"]


@pytest.mark.parametrize("prefix", ["CT_{}/", ""])
@pytest.mark.parametrize("at_top", [True, False])
def test_the_official_zips_give_what_the_folders_give(tmp_path, source, prefix, at_top):
    expected = examples(build(tmp_path / "folders", source))
    for suffix in FOLDERS:
        folder = source / "Images-processed" / f"CT_{suffix}"
        target = source if at_top else source / "Images-processed"
        zip_folder(folder, target / f"CT_{suffix}.zip", prefix.format(suffix))
    assert examples(build(tmp_path / "zips", source)) == expected


@pytest.mark.parametrize("layout", ["nested", "folders at top", "all flat", "zip beside folder"])
def test_other_ways_to_unpack_give_the_same(tmp_path, source, layout):
    expected = examples(build(tmp_path / "published", source))
    images = source / "Images-processed"
    if layout == "nested":
        (tmp_path / "outer").mkdir()
        shutil.move(source, tmp_path / "outer" / "COVID-CT-master")
        source = tmp_path / "outer"
    for suffix in FOLDERS:
        folder = f"CT_{suffix}"
        if layout == "folders at top":
            shutil.move(images / folder, source / folder)
        elif layout == "all flat":
            for path in [*(images / folder).iterdir(), *(source / "Data-split" / suffix).iterdir()]:
                shutil.move(path, source / path.name)
            (images / folder).rmdir()
        elif layout == "zip beside folder":
            copy = shutil.copytree(images / folder, images / "copy")
            zip_folder(copy, images / f"{folder}.zip", f"{folder}/")
    assert examples(build(tmp_path / "other", source)) == expected


def refuse(tmp_path: Path, source: Path, message: str, config: str = "official") -> None:
    with pytest.raises(DataError, match=message) as info:
        build(tmp_path, source, config)
    assert "\n" not in str(info.value)
    assert not list((tmp_path / "data").rglob("*.array_record*"))


def test_a_missing_image_of_the_split_is_an_error_that_names_it(tmp_path, source):
    (source / "Images-processed/CT_COVID/2020.02.10.20021584-p6-52_10.png").unlink()
    refuse(
        tmp_path,
        source,
        r"valCT_COVID\.txt, line 1: the image '2020\.02\.10\.20021584-p6-52_10\.png' of the split",
    )


@pytest.mark.parametrize("kept", [0, 60])
def test_a_truncated_or_empty_image_is_an_error_that_names_it(tmp_path, source, kept):
    path = source / "Images-processed/CT_NonCOVID/112.png"
    path.write_bytes(path.read_bytes()[:kept])
    refuse(tmp_path, source, r"CT_NonCOVID/112\.png is (empty|cut short or damaged)")


def test_a_split_of_another_size_is_refused(tmp_path, source):
    path = source / "Data-split/COVID/trainCT_COVID.txt"
    path.write_text(path.read_text().splitlines()[0])
    message = r"lists 3 / 2 / 3 images \(train / val / test\) where the published split has 4"
    refuse(tmp_path, source, message)


def test_an_image_listed_twice_is_refused(tmp_path, source):
    path = source / "Data-split/COVID/testCT_COVID.txt"
    path.write_text("2020.01.24.919183-p27-132.png\n")
    refuse(tmp_path, source, r"testCT_COVID\.txt, line 1: .* is listed before, in .*trainCT_COVID")


def test_an_image_without_a_patient_is_refused(tmp_path, source):
    path = source / "NonCOVID-CT-MetaInfo.csv"
    path.write_text(path.read_text().replace("112.png", "113.png"))
    refuse(tmp_path, source, r"'112\.png' has no row in NonCOVID-CT-MetaInfo\.csv")


def test_an_image_of_two_patients_is_refused(tmp_path, source):
    path = source / "NonCOVID-CT-MetaInfo.csv"
    path.write_text(path.read_text() + "112.png,medpix_patient_1\n")
    refuse(tmp_path, source, r"MetaInfo\.csv, row 7: '112\.png' belongs to 'medpix_patient_1' here")


def test_two_different_images_of_one_name_are_refused(tmp_path, source):
    path = source / "copy/CT_NonCOVID/112.png"
    path.parent.mkdir(parents=True)
    path.write_bytes(image("other"))
    refuse(tmp_path, source, r"'112\.png' is there twice with different content")


@pytest.mark.parametrize("name", ["valCT_NonCOVID.txt", "COVID-CT-MetaInfo.csv"])
def test_a_missing_list_or_table_is_refused_with_what_to_get(tmp_path, source, name):
    next(source.rglob(name)).unlink()
    refuse(tmp_path, source, rf"has no {name} .*https://github\.com/UCSD-AI4H/COVID-CT")


@pytest.fixture
def csv_source(tmp_path):
    root = tmp_path / "manual" / "covid_ct"
    for split in EXPECTED:
        rows = ",filename,label\r\n"
        for number, label in enumerate(["negative", "positive"]):
            path = root / "images" / f"{split} ({number}).png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(image(path.name))
            rows += f"{number},images/{path.name},{label}\r\n"
        (root / f"{split}.csv").write_bytes(("\ufeff" + rows).encode())
    return root


@pytest.mark.parametrize("prefix", ["", "covid19_"])
def test_the_published_tasks_tables_are_read(tmp_path, csv_source, prefix):
    for split in EXPECTED:
        (csv_source / f"{split}.csv").rename(csv_source / f"{prefix}{split}.csv")
    found = examples(build(tmp_path, csv_source, "covid19_csv"))
    for split, rows in found.items():
        assert set(rows) == {f"images/{split} (0).png", f"images/{split} (1).png"}
        for key, (encoded, label, patient) in rows.items():
            assert encoded == (csv_source / key).read_bytes()
            assert label == int(key[-6])
            assert patient == ""


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("filename", "file", r"val\.csv has no column 'filename'"),
        ("positive", "COVID", r"val\.csv, row 3: the label 'COVID' is unknown; use negative"),
        ("(1)", "(0)", r"val\.csv, row 3: .* is listed before, in val\.csv, row 2"),
        ("images/val (1)", "images/train (1)", r"is listed before, in train\.csv, row 3"),
        ("(1)", "(2)", r"row 3: the image 'images/val \(2\)\.png' is not in the folder of .*val"),
        ("images/val (1)", "../val (1)", r"row 3: .* leaves the table's folder"),
    ],
)
def test_a_bad_table_of_the_task_is_refused(tmp_path, csv_source, old, new, message):
    path = csv_source / "val.csv"
    path.write_bytes(path.read_bytes().replace(old.encode(), new.encode()))
    refuse(tmp_path, csv_source, message, "covid19_csv")


def test_a_missing_table_of_the_task_is_refused(tmp_path, csv_source):
    (csv_source / "test.csv").unlink()
    refuse(tmp_path, csv_source, r"has no test\.csv; put train\.csv", "covid19_csv")


def test_the_tags_are_ones_that_tfds_knows():
    known = tfds.core.dataset_metadata.valid_tags()
    assert set(Builder.get_metadata().tags) <= set(known)
