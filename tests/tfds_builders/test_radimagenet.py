"""Laws of the RadImageNet builder, on small images in the layout of the release."""

import importlib.util
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds

from radimagenet_jax.data import registry
from radimagenet_jax.data.images import decode
from radimagenet_jax.data.preparation import prepare
from radimagenet_jax.errors import ConfigError, DataError
from tests.radimagenet_source import png, write_source, write_table
from tfds_builders.radimagenet.radimagenet_dataset_builder import Builder, class_names

FEW = (
    "CT-abd-normal",
    "CT-lung-Nodule",
    "MR-knee-normal",
    "MR-mriabd-liver_disease_",
    "MR-shoulder-ca++_tendinosis",
    "US-usthyroid-thyroid",
)
MANUAL = "downloads/manual/radimagenet"


@pytest.fixture(scope="session")
def whole(tmp_path_factory):
    """All 165 classes, prepared."""
    data_dir = tmp_path_factory.mktemp("radimagenet")
    rows = write_source(data_dir / MANUAL, 1500, 16)
    return data_dir, rows, prepare("radimagenet", data_dir)


@pytest.fixture
def source(tmp_path):
    """A few classes; returns the data directory, the source's folder and its rows."""
    root = tmp_path / MANUAL
    return tmp_path, root, write_source(root, 60, 12, classes=FEW)


def records(built: tfds.core.DatasetBuilder, split: str) -> list[dict]:
    return list(built.as_data_source(split, decoders={"image": tfds.decode.SkipDecoding()}))


def test_there_are_165_classes_in_the_documented_order():
    names = class_names()
    assert len(names) == len(set(names)) == 165
    assert list(names) == sorted(names)
    assert names[0] == "CT-abd-abnormal_entire_organ"
    assert names[-1] == "US-usthyroid-thyroid_nodule"
    # Only 112 findings: modality and anatomy belong into the name.
    assert len({name.split("-", 2)[2] for name in names}) == 112
    assert len({tuple(name.split("-", 2)[:2]) for name in names}) == 11


def test_the_classes_are_those_of_the_release(shared_data):
    listed = json.loads((shared_data.parent / "design" / "labels165.json").read_text())
    assert {name.replace("_", "-", 2) for name in listed} == set(class_names())


def test_every_row_of_the_tables_becomes_one_record_of_its_split(whole):
    data_dir, rows, built = whole
    for split, expected in rows.items():
        found = {example["key"].decode(): example for example in records(built, split)}
        assert found.keys() == {path for path, _ in expected}
        for path, label in expected[::20]:
            example = found[path]
            modality = path.split("/")[1]
            name = built.info.features["label"].int2str(int(example["label"]))
            assert name == f"{modality}-{label}"
            stored = decode(example["image"], name=path)
            released = decode((data_dir / MANUAL / path).read_bytes(), name=path)
            np.testing.assert_array_equal(stored, released)
            assert len(example["image"]) < (data_dir / MANUAL / path).stat().st_size
            assert built.info.features["modality"].int2str(int(example["modality"])) == modality
            anatomy = built.info.features["anatomy"].int2str(int(example["anatomy"]))
            assert anatomy == label.partition("-")[0]
            assert example["patient"] == b""


def test_records_are_in_the_order_that_tfds_gives_them_in_memory(source, tmp_path):
    from tensorflow_datasets.core import shuffle

    data_dir, _, _ = source
    ours = [one["key"] for one in records(prepare("radimagenet", data_dir), "train")]
    theirs = shuffle.Shuffler(tmp_path, "train")
    for key in sorted(ours):
        theirs.add(key, key)
    assert ours == [key for _, key in theirs]


@pytest.mark.parametrize("spelling", ["abd", "mriabd"])
def test_both_spellings_of_the_mr_abdomen_are_one_class(tmp_path, spelling):
    root = tmp_path / MANUAL
    rows = write_source(root, 20, 12, classes=["MR-mriabd-normal", "CT-abd-normal"])
    shutil.move(root / "radiology_ai/MR/abd", root / "radiology_ai/MR" / f"x{spelling}")
    shutil.move(root / "radiology_ai/MR" / f"x{spelling}", root / "radiology_ai/MR" / spelling)
    for split, listed in rows.items():
        renamed = [
            (path.replace("MR/abd", f"MR/{spelling}"), label.replace("mriabd", spelling))
            for path, label in listed
        ]
        write_table(root, split, renamed)
    built = prepare("radimagenet", tmp_path)
    names = built.info.features["label"]
    found = {names.int2str(int(one["label"])) for one in records(built, "train")}
    assert found == {"MR-mriabd-normal", "CT-abd-normal"}


def test_the_tables_may_lie_one_folder_deeper(source):
    data_dir, root, rows = source
    shutil.move(root, data_dir / "moved")
    shutil.move(data_dir / "moved", root / "RadImageNet")
    assert prepare("radimagenet", data_dir).info.splits["val"].num_examples == len(rows["val"])


def overwrite(root: Path, path: str, content: bytes) -> None:
    (root / path).write_bytes(content)


def test_clean_leaves_out_repeated_files_and_empty_images(source):
    data_dir, root, rows = source
    (test_path, _), (val_path, _) = rows["test"][0], rows["val"][0]
    train = [path for path, _ in rows["train"]]
    twin = png(np.arange(144, dtype=np.uint8).reshape(12, 12))
    for path in (train[0], train[1], val_path):
        overwrite(root, path, twin)
    overwrite(root, train[2], (root / test_path).read_bytes())
    overwrite(root, train[3], png(np.zeros((12, 12), np.uint8)))
    overwrite(root, train[4], png(np.full((12, 12), 90, np.uint8), colour=False))
    built = prepare("radimagenet/clean", data_dir)
    left = {split: {one["key"].decode() for one in records(built, split)} for split in rows}
    assert left["train"] == set(train[5:])
    assert left["val"] == {path for path, _ in rows["val"]}
    assert left["test"] == {path for path, _ in rows["test"]}
    (note,) = built.info.metadata["notes"]
    assert note.startswith("3 files that repeat another byte for byte were left out")
    assert "3 from train, 0 from val, 0 from test" in note
    everything = prepare("radimagenet", data_dir)
    assert everything.info.splits["train"].num_examples == len(train)


def test_of_repeats_within_a_split_the_first_row_stays(source):
    data_dir, root, rows = source
    first, second = rows["train"][1][0], rows["train"][4][0]
    overwrite(root, second, (root / first).read_bytes())
    kept = {one["key"].decode() for one in records(prepare("radimagenet/clean", data_dir), "train")}
    assert first in kept
    assert second not in kept


def edit(root: Path, old: str, new: str, split: str = "val") -> None:
    path = root / f"RadiologyAI_{split}.csv"
    path.write_bytes(path.read_bytes().replace(old.encode(), new.encode(), 1))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("filename", "file", r"_val\.csv has no column 'filename'"),
        ("radiology_ai/", "/radiology_ai/", r"row \d+: the filename '/radio.*' leaves"),
        ("radiology_ai/", "radiology_ai/../", r"row \d+: the filename '.*\.\..*' leaves"),
        ("radiology_ai/", "images/", r"row \d+: the filename 'images/.* is not of the released"),
        ("ca++_tendinosis\r", "tendinosis\r", r"row \d+: the label 'shoulder-tendinosis' of a MR"),
        ("000000", "900000", r"_val\.csv, row \d+: there is no file .*900000\.png"),
        ("lung/Nodule/lung", "lung/Gone/lung", r"lung/Gone cannot be listed .*has 1 images in it"),
    ],
)
def test_a_bad_table_is_refused_by_row(source, old, new, message):
    data_dir, root, _ = source
    old = old.replace("000000", next(iter(_numbers(root))))
    edit(root, old, new)
    with pytest.raises(DataError, match=message):
        prepare("radimagenet", data_dir)
    assert not (data_dir / "radimagenet").exists()


def _numbers(root: Path) -> list[str]:
    text = (root / "RadiologyAI_val.csv").read_text().splitlines()[1]
    return [text.partition(".png")[0][-6:]]


def test_a_row_that_is_in_two_tables_is_refused_with_both(source):
    data_dir, root, rows = source
    write_table(root, "val", [*rows["val"], rows["train"][0]])
    line = len(rows["val"]) + 2
    message = rf"_val\.csv, row {line}: '.*' is listed before, in RadiologyAI_train\.csv, row 2"
    with pytest.raises(DataError, match=message):
        prepare("radimagenet", data_dir)


def test_a_byte_order_mark_and_any_line_ends_are_read(source):
    data_dir, root, rows = source
    for split, ends in zip(rows, ("\n", "\r", "\r\n"), strict=True):
        path = root / f"RadiologyAI_{split}.csv"
        path.write_text("\ufeff" + ends.join(path.read_text().splitlines()), newline="")
    built = prepare("radimagenet", data_dir)
    assert {s: i.num_examples for s, i in built.info.splits.items()} == {
        split: len(listed) for split, listed in rows.items()
    }


def test_all_bad_rows_and_images_are_told_at_once(source):
    data_dir, root, rows = source
    for path in (rows["train"][0][0], rows["test"][0][0]):
        overwrite(root, path, (root / path).read_bytes()[:60])
    with pytest.raises(DataError, match=r"has 2 problems:\n.*damaged.*\n.*damaged"):
        prepare("radimagenet", data_dir)


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("RadiologyAI_train.csv", r"has no RadiologyAI_train\.csv; request access at https"),
        ("RadiologyAI_test.csv", r"has no RadiologyAI_test\.csv; request access"),
        ("radiology_ai", r"has no folder radiology_ai; request access"),
    ],
)
def test_a_missing_part_is_told_with_where_to_get_it(source, missing, message):
    data_dir, root, _ = source
    (root / missing).rename(data_dir / "elsewhere")
    with pytest.raises(DataError, match=message):
        prepare("radimagenet", data_dir)


def test_nothing_at_all_is_one_message_with_source_terms_and_place(tmp_path):
    message = r"'radimagenet' is not in .*downloads.*radimagenet: request access.*agreement"
    with pytest.raises(DataError, match=message):
        prepare("radimagenet", tmp_path)


def test_the_tags_are_ones_that_tfds_knows():
    assert set(Builder.get_metadata().tags) <= set(tfds.core.dataset_metadata.valid_tags())


def test_the_registry_finds_the_data_set_and_its_configurations(tmp_path):
    assert "radimagenet" in registry.names()
    assert registry.summary("radimagenet").startswith("RadImageNet: 1.35 million")
    with pytest.raises(DataError, match="published, clean"):
        registry.builder("radimagenet/other", tmp_path)


has_beam = importlib.util.find_spec("apache_beam") is not None


@pytest.mark.skipif(has_beam, reason="Apache Beam is installed")
def test_beam_that_is_not_installed_is_told_with_its_extra(source):
    with pytest.raises(ConfigError, match=r"pip install 'radimagenet-jax\[beam\]'"):
        prepare("radimagenet", source[0], beam_runner="DirectRunner")


@pytest.mark.slow
@pytest.mark.skipif(not has_beam, reason="needs the extra 'beam'")
@pytest.mark.parametrize("config", ["published", "clean"])
def test_beam_builds_the_same_records_in_the_same_order(source, config):
    data_dir, root, rows = source
    overwrite(root, rows["train"][1][0], (root / rows["train"][0][0]).read_bytes())
    ours = prepare(f"radimagenet/{config}", data_dir)
    shutil.copytree(root, data_dir / "again" / MANUAL)
    theirs = prepare(f"radimagenet/{config}", data_dir / "again", beam_runner="DirectRunner")
    for split in rows:
        for one, other in zip(records(ours, split), records(theirs, split), strict=True):
            assert one == other


@pytest.mark.slow
@pytest.mark.skipif(not has_beam, reason="needs the extra 'beam'")
def test_beam_tells_a_damaged_image_in_one_sentence(source):
    data_dir, root, rows = source
    path = rows["val"][0][0]
    overwrite(root, path, (root / path).read_bytes()[:60])
    with pytest.raises(DataError, match=rf"{path} is cut short or damaged"):
        prepare("radimagenet", data_dir, beam_runner="DirectRunner")
