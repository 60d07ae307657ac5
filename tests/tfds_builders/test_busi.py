"""Laws of the BUSI builder, on small images in the owners' layout and on the real ones."""

import shutil
import zipfile
from collections import Counter

import numpy as np
import pytest
import tensorflow_datasets as tfds

from radimagenet_jax.data.registry import with_fold
from radimagenet_jax.errors import DataError
from tests.tfds_builders.building import build, counts, encoded, examples, notes, pixels
from tfds_builders.busi import busi_dataset_builder
from tfds_builders.busi.busi_dataset_builder import Builder

RNG = np.random.default_rng(0)
COUNTS = {"benign": 12, "malignant": 9, "normal": 8}
# Name, label, split: 'normal' is labelled benign, as in the published tables.
ROWS = [
    ("benign (1)", "benign", "train"),
    ("malignant (1)", "malignant", "train"),
    ("normal (1)", "benign", "train"),
    ("benign (2)", "benign", "val"),
    ("malignant (2)", "malignant", "val"),
    ("normal (2)", "benign", "test"),
    ("malignant (3)", "malignant", "test"),
]


def mask(*boxes: tuple[int, int]) -> np.ndarray:
    """A mask of 9 x 11 pixels with 2 x 2 lesions at these places."""
    found = np.zeros((9, 11), bool)
    for row, column in boxes:
        found[row : row + 2, column : column + 2] = True
    return found


@pytest.fixture
def source(tmp_path, monkeypatch):
    monkeypatch.setattr(busi_dataset_builder, "CLASS_COUNTS", COUNTS)
    monkeypatch.setattr(
        busi_dataset_builder, "PUBLISHED_ROWS", {1: {"train": 3, "val": 2, "test": 2}}
    )
    root = tmp_path / "manual" / "busi"
    for kind, count in COUNTS.items():
        folder = root / "Dataset_BUSI_with_GT" / kind
        folder.mkdir(parents=True)
        for number in range(1, count + 1):
            name = f"{kind} ({number})"
            image = RNG.integers(0, 256, (9, 11, 3), dtype=np.uint8)
            (folder / f"{name}.png").write_bytes(encoded(image))
            (folder / f"{name}_mask.png").write_bytes(encoded(mask((1, 1))))
    folder = root / "Dataset_BUSI_with_GT"
    (folder / "benign/benign (2)_mask_1.png").write_bytes(encoded(mask((6, 8))))
    (folder / "malignant/malignant (2)_mask.png").unlink()
    # The owners have masks of both kinds, of one bit and of three channels.
    grey = np.repeat(mask((3, 3))[..., None], 3, axis=-1).astype(np.uint8) * 255
    (folder / "malignant/malignant (3)_mask.png").write_bytes(encoded(grey))
    return root


@pytest.fixture
def tables(source):
    folder = source / "splits"
    folder.mkdir()
    for split in ("train", "val", "test"):
        rows = [f"images/{name}.png,{label}\r\n" for name, label, where in ROWS if where == split]
        (folder / f"breast_{split}_fold1.csv").write_text(
            "\ufefffilename,label\r\n" + "".join(rows)
        )
    return folder


def test_the_published_tables_are_used_row_for_row(tmp_path, source, tables):
    builder = build(Builder, tmp_path, source, "fold1")
    found = examples(builder)
    for name, label, split in ROWS:
        kind = name.split()[0]
        example = found[split][f"{kind}/{name}.png"]
        path = source / "Dataset_BUSI_with_GT" / kind / f"{name}.png"
        assert example["label"] == label
        assert example["image"] == path.read_bytes()
        assert example["patient"] == ""
    assert sum(counts(found).values()) == len(ROWS)
    assert notes(builder) == []


def test_masks_are_merged_and_may_be_missing(tmp_path, source, tables):
    found = examples(build(Builder, tmp_path, source, "fold1"))
    expected = {
        ("val", "benign/benign (2).png"): mask((1, 1), (6, 8)),
        ("test", "malignant/malignant (3).png"): mask((3, 3)),
    }
    for (split, key), merged in expected.items():
        np.testing.assert_array_equal(pixels(found[split][key]["mask"]), merged * 255)
    assert found["val"]["malignant/malignant (2).png"]["mask"] == b""


def test_normal_is_a_class_of_its_own_where_asked_for(tmp_path, source, tables):
    builder = build(Builder, tmp_path, source, with_fold("busi/three_classes", 1).split("/")[1])
    assert builder.info.features["label"].names == ["benign", "malignant", "normal"]
    found = examples(builder)
    assert {key: each["label"] for rows in found.values() for key, each in rows.items()} == {
        f"{name.split()[0]}/{name}.png": name.split()[0] for name, _, _ in ROWS
    }


def test_without_tables_a_stratified_split_of_all_images_stands_in_and_says_so(tmp_path, source):
    copy = source / "Dataset_BUSI_with_GT/benign"
    shutil.copyfile(copy / "benign (12).png", source / "Dataset_BUSI_with_GT/malignant/x")
    # One picture under two names and labels, as benign (433) and malignant (145) are.
    shutil.move(
        source / "Dataset_BUSI_with_GT/malignant/x",
        source / "Dataset_BUSI_with_GT/malignant/malignant (9).png",
    )
    tested: list[str] = []
    for fold in range(1, 6):
        builder = build(Builder, tmp_path, source, f"three_classes_fold{fold}")
        found = examples(builder)
        assert sum(counts(found).values()) == sum(COUNTS.values())
        twins = {"benign/benign (12).png", "malignant/malignant (9).png"}
        assert sum(bool(twins & set(rows)) for rows in found.values()) == 1
        tested += found["test"]
        (note,) = notes(builder)
        assert f"fold {fold} of a deterministic 5-fold split by image" in note
    assert len(tested) == len(set(tested)) == sum(COUNTS.values())


@pytest.mark.parametrize("layout", ["zip", "flat"])
def test_other_ways_to_unpack_give_the_same(tmp_path, source, tables, layout):
    expected = examples(build(Builder, tmp_path / "published", source, "fold1"))
    folder = source / "Dataset_BUSI_with_GT"
    if layout == "zip":
        with zipfile.ZipFile(source / "archive.zip", "w") as archive:
            for path in sorted(folder.rglob("*.png")):
                archive.write(path, path.relative_to(source))
        shutil.rmtree(folder)
    else:
        (source / "images").mkdir()
        for path in sorted(folder.rglob("*.png")):
            shutil.move(path, source / "images" / path.name)
    found = examples(build(Builder, tmp_path / "other", source, "fold1"))
    assert found == expected


def refuse(tmp_path, source, message, config="fold1"):
    with pytest.raises(DataError, match=message) as info:
        build(Builder, tmp_path, source, config)
    assert not list((tmp_path / "data").rglob("*.array_record*"))
    return str(info.value)


def test_what_is_wrong_with_rows_and_images_is_told_together(tmp_path, source, tables):
    folder = source / "Dataset_BUSI_with_GT"
    (folder / "benign/benign (2).png").unlink()
    path = tables / "breast_test_fold1.csv"
    path.write_text(path.read_text() + "images/benign (5).png,malignant\n/images/b.png,benign\n")
    text = refuse(tmp_path, source, r"has 3 problems:")
    assert "breast_val_fold1.csv, row 2: the image 'benign (2).png' is not below" in text
    assert "breast_test_fold1.csv, row 4: 'benign (5).png' is labelled 'malignant'" in text
    assert "breast_test_fold1.csv, row 5: the filename '/images/b.png' leaves" in text


def test_a_truncated_table_is_refused(tmp_path, source, tables):
    path = tables / "breast_train_fold1.csv"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
    refuse(tmp_path, source, r"breast_train_fold1\.csv has 2 rows where the published table has 3")


def test_truncated_images_and_masks_are_told_by_name(tmp_path, source, tables):
    folder = source / "Dataset_BUSI_with_GT"
    for name in ("malignant/malignant (1).png", "benign/benign (1)_mask.png"):
        (folder / name).write_bytes((folder / name).read_bytes()[:60])
    text = refuse(tmp_path, source, "has 2 problems")
    assert "malignant (1).png is cut short or damaged" in text
    assert "benign (1)_mask.png is cut short or damaged" in text


def test_a_mask_of_another_size_is_refused(tmp_path, source, tables):
    path = source / "Dataset_BUSI_with_GT/benign/benign (1)_mask.png"
    path.write_bytes(encoded(np.zeros((4, 5), np.uint8)))
    refuse(tmp_path, source, r"benign \(1\)_mask\.png has 5 x 4 pixels where its image has 11 x 9")


def test_an_incomplete_download_is_refused_where_no_table_says_what_there_is(tmp_path, source):
    (source / "Dataset_BUSI_with_GT/normal/normal (1).png").unlink()
    (source / "Dataset_BUSI_with_GT/normal/normal (1)_mask.png").unlink()
    message = r"has 12 / 9 / 7 images \(benign / malignant / normal\) where BUSI has 12 / 9 / 8"
    refuse(tmp_path, source, message)


def test_the_real_images_give_the_published_fold(tmp_path, shared_data):
    root = tmp_path / "manual" / "busi"
    root.mkdir(parents=True)
    (root / "Dataset_BUSI_with_GT").symlink_to(shared_data / "Dataset_BUSI_with_GT")
    (root / "splits").symlink_to(shared_data / "published_splits/breast/dataframe")
    found = examples(build(Builder, tmp_path, root, "fold1"))
    assert counts(found) == {"train": 561, "val": 63, "test": 156}
    kinds = Counter(key.split("/")[0] for rows in found.values() for key in rows)
    assert kinds == {"benign": 437, "malignant": 210, "normal": 133}
    malignant = Counter(each["label"] for rows in found.values() for each in rows.values())
    assert malignant == {"benign": 570, "malignant": 210}
    message = r"has breast_test_fold2\.csv but no breast_train_fold2\.csv and no breast_val_fold2"
    with pytest.raises(DataError, match=message):
        build(Builder, tmp_path, root, "fold2")


def test_the_tags_are_ones_that_tfds_knows():
    known = tfds.core.dataset_metadata.valid_tags()
    assert set(Builder.get_metadata().tags) <= set(known)
