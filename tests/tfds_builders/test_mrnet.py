"""Laws of the MRNet builder, on volumes in the owners' layout and the published lists."""

import csv
import pickle
import re
import zipfile

import numpy as np
import pytest
import tensorflow_datasets as tfds
from numpy.lib import format as npy

from radimagenet_jax.errors import DataError
from tests.tfds_builders.building import build, counts, examples, notes, pixels
from tfds_builders.mrnet import mrnet_dataset_builder
from tfds_builders.mrnet.mrnet_dataset_builder import TASKS, Builder

SLICES = 5
# 12 exams of the owners' training part, 8 of the validation part; every third has a tear.
EXAMS = [f"{number:04}" for number in [*range(12), *range(1130, 1138)]]


def tear(exam: str) -> int:
    return int(EXAMS.index(exam) % 3 == 0)


def volume(exam: str) -> np.ndarray:
    """Slices whose first pixels are the exam's place and the slice's number."""
    pixels = np.zeros((SLICES, 256, 256), np.uint8)
    pixels[:, 0, 0] = EXAMS.index(exam)
    pixels[:, 0, 1] = range(SLICES)
    return pixels


ROWS = {
    "train": [("0000", 1), ("0000", 2), ("0001", 0), ("0003", 4)],
    "val": [("0002", 2), ("1131", 2), ("0006", 3)],
    "test": [("1130", 0), ("1133", 4), ("0004", 1)],
}


@pytest.fixture
def source(tmp_path, monkeypatch):
    for task in TASKS.values():
        monkeypatch.setitem(task.published_rows, 1, {"train": 4, "val": 3, "test": 3})
    root = tmp_path / "manual" / "mrnet"
    for exam in EXAMS:
        folder = root / "MRNet-v1.0" / ("train" if exam < "1130" else "valid") / "sagittal"
        folder.mkdir(parents=True, exist_ok=True)
        np.save(folder / f"{exam}.npy", volume(exam))
    for task in TASKS:
        for part, chosen in (("train", EXAMS[:12]), ("valid", EXAMS[12:])):
            rows = "".join(f"{exam},{tear(exam)}\r\n" for exam in chosen)
            (root / "MRNet-v1.0" / f"{part}-{task}.csv").write_text(rows)
    return root


@pytest.fixture
def tables(source):
    folder = source / "splits"
    folder.mkdir()
    for task, columns in (("acl", "filename,acl_label"), ("meniscus", "img_dir,label")):
        for split, rows in ROWS.items():
            lines = [columns]
            for exam, index in rows:
                label = TASKS[task].labels[tear(exam)]
                lines.append(f"images/{exam}_sagittal_{index}.000000.png,{label}")
            name = TASKS[task].table.format(split=split, fold=1)
            (folder / name).write_text("\n".join(lines))
    return folder


@pytest.mark.parametrize("task", ["acl", "meniscus"])
def test_the_published_slices_are_cut_from_the_volumes_row_for_row(tmp_path, source, tables, task):
    builder = build(Builder, tmp_path, source, f"{task}_fold1")
    found = examples(builder)
    for split, rows in ROWS.items():
        assert set(found[split]) == {f"{exam}_sagittal_{index}" for exam, index in rows}
        for exam, index in rows:
            each = found[split][f"{exam}_sagittal_{index}"]
            np.testing.assert_array_equal(pixels(each["image"]), volume(exam)[index])
            assert each["label"] == TASKS[task].labels[tear(exam)]
            assert each["patient"] == exam
            assert each["slice"] == index
    assert notes(builder) == []


def test_lists_that_contradict_the_owners_tables_are_followed_and_noted(tmp_path, source, tables):
    path = source / "MRNet-v1.0/train-acl.csv"
    path.write_text(path.read_text().replace("0001,0", "0001,1"))
    builder = build(Builder, tmp_path, source, "acl_fold1")
    assert examples(builder)["train"]["0001_sagittal_0"]["label"] == "no"
    (note,) = notes(builder)
    assert "label slices of 1 exams other than the owners' tables" in note


@pytest.mark.parametrize(
    ("config", "slices", "note"),
    [
        ("acl", [1, 2, 3], "with the 3 central sagittal slices of each exam"),
        ("meniscus", range(SLICES), "with all sagittal slices of each exam"),
        ("acl_exams", range(SLICES), "every sagittal slice has the label of its exam"),
    ],
)
def test_without_lists_slices_of_every_exam_are_divided_by_exam(
    tmp_path, source, config, slices, note
):
    tested: list[str] = []
    for fold in range(1, 6):
        builder = build(Builder, tmp_path, source, f"{config}_fold{fold}")
        found = examples(builder)
        exams = [{each["patient"] for each in rows.values()} for rows in found.values()]
        assert sum(map(len, exams)) == len(set.union(*exams)) == len(EXAMS)
        tested += found["test"]
        assert note in notes(builder)[0]
        assert f"fold {fold} of a deterministic 5-fold split by exam" in notes(builder)[0]
    assert sorted(tested) == sorted(f"{exam}_sagittal_{i}" for exam in EXAMS for i in slices)


def test_whole_exams_do_not_look_at_the_lists(tmp_path, source, tables):
    found = examples(build(Builder, tmp_path, source, "meniscus_exams_fold2"))
    assert sum(counts(found).values()) == len(EXAMS) * SLICES


def test_the_zip_gives_what_the_folder_gives(tmp_path, source, tables):
    with zipfile.ZipFile(source / "MRNet-v1.0.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted((source / "MRNet-v1.0").rglob("*.npy")):
            # Empty slices compress as no real ones do.
            noise = np.random.default_rng(0).integers(0, 256, volume("0000").shape, np.uint8)
            noise[:, 0] = np.load(path)[:, 0]
            np.save(path, noise)
            archive.write(path, path.relative_to(source))
    expected = examples(build(Builder, tmp_path / "noise", source, "acl_fold1"))
    for path in sorted((source / "MRNet-v1.0").rglob("*.npy")):
        path.unlink()
    assert examples(build(Builder, tmp_path / "zip", source, "acl_fold1")) == expected


def refuse(tmp_path, source, message, config="acl_fold1"):
    with pytest.raises(DataError, match=message) as info:
        build(Builder, tmp_path, source, config)
    assert not list((tmp_path / "data").rglob("*.array_record*"))
    return str(info.value)


class Payload:
    """Pickled, it makes a folder when it is loaded."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        import os

        return os.mkdir, (str(self.path),)


def test_a_volume_of_objects_is_refused_and_never_unpickled(tmp_path, source, tables):
    trap = tmp_path / "trap"
    np.save(source / "MRNet-v1.0/train/sagittal/0001.npy", np.array([Payload(trap)]))
    refuse(tmp_path, source, r"0001\.npy holds values of type object where MRNet has 8-bit")
    (source / "MRNet-v1.0/train/sagittal/0001.npy").write_bytes(pickle.dumps(Payload(trap)))
    refuse(tmp_path, source, r"0001\.npy is not an npy file that can be read")
    assert not trap.exists()


@pytest.mark.parametrize(
    ("pixels", "sentence"),
    [
        (np.zeros((256, 256, 5), np.uint8), r"has the shape \(256, 256, 5\) where MRNet has"),
        (np.zeros((256, 256), np.uint8), r"has the shape \(256, 256\) where"),
        (np.zeros((0, 256, 256), np.uint8), r"has the shape \(0, 256, 256\) where"),
        (np.asfortranarray(volume("0001")), r"in Fortran order where MRNet has"),
        (np.zeros((5, 256, 256), np.float32), r"holds values of type float32"),
        (np.full((5, 256, 256), 300, np.int16), r"slice 0: has values from 300 to 300 where"),
        (np.full((5, 256, 256), -1, np.int8), r"slice 0: has values from -1 to -1 where"),
    ],
)
def test_a_volume_of_another_type_or_shape_is_refused(tmp_path, source, tables, pixels, sentence):
    np.save(source / "MRNet-v1.0/train/sagittal/0001.npy", pixels)
    refuse(tmp_path, source, rf"0001\.npy.* {sentence}")


@pytest.mark.parametrize("kept", [0, 5, 60, 200, 5 * 256 * 256])
def test_a_truncated_volume_is_refused(tmp_path, source, tables, kept):
    path = source / "MRNet-v1.0/train/sagittal/0001.npy"
    path.write_bytes(path.read_bytes()[:kept])
    refuse(tmp_path, source, r"0001\.npy (is not an npy file|has \d+,?\d* bytes where its header)")


def test_a_header_that_announces_the_impossible_is_refused_without_the_memory(
    tmp_path, source, tables
):
    path = source / "MRNet-v1.0/train/sagittal/0001.npy"
    with path.open("wb") as stream:
        header = {"descr": "|u1", "fortran_order": False, "shape": (10**12, 256, 256)}
        npy.write_array_header_1_0(stream, header)
    refuse(tmp_path, source, r"header announces 65,536,000,000,000,128, so it is cut short")


def test_what_is_wrong_with_rows_is_told_together(tmp_path, source, tables):
    (source / "MRNet-v1.0/valid/sagittal/1131.npy").unlink()
    path = tables / "test_fold1.csv"
    extra = ["0004_sagittal_5.000000.png", "0004_sagittal.png", "0004_coronal_1.000000.png"]
    path.write_text(path.read_text() + "".join(f"\nimages/{name},no" for name in extra))
    text = refuse(tmp_path, source, "has 5 problems")
    assert "test_fold1.csv has 6 rows where the published table has 3" in text
    assert "val_fold1.csv, row 3: the exam 1131 has no volume sagittal/1131.npy below" in text
    assert "test_fold1.csv, row 5: the exam 0004 has 5 slices, 0 to 4, and none 5" in text
    assert "test_fold1.csv, row 6: 'images/0004_sagittal.png' is not named <exam>" in text
    assert "test_fold1.csv, row 7: the exam 0004 has no volume coronal/0004.npy" in text


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("0001,0", "0001,2", r"train-acl\.csv, row 2: '0001,2' is not <exam>,<0 or 1>"),
        ("0001,0", "0000,0", r"train-acl\.csv, row 2: the exam 0000 is labelled before"),
        ("0001,0", "0077,0", r"exam 0077 is labelled and has no volume|0001 has a volume"),
    ],
)
def test_a_bad_table_of_exams_is_refused(tmp_path, source, old, new, sentence):
    path = source / "MRNet-v1.0/train-acl.csv"
    path.write_text(path.read_text().replace(old, new))
    refuse(tmp_path, source, sentence, "acl_exams_fold1")


def test_nothing_there_is_told_with_what_to_get(tmp_path, source):
    for path in source.rglob("*acl.csv"):
        path.unlink()
    refuse(tmp_path, source, r"has neither train-acl\.csv nor valid-acl\.csv", "acl_exams_fold1")
    for path in source.rglob("*.npy"):
        path.unlink()
    refuse(tmp_path, source, r"has no volume train/sagittal/<exam>\.npy; sign the agreement at")


def sparse_volumes(root, names):
    """A volume of zeros for each exam that image names mention, which takes no room on disk."""
    folder = root / "train/sagittal"
    folder.mkdir(parents=True)
    for exam in {re.match(r"images/(\d{4})_", name)[1] for name in names}:
        npy.open_memmap(folder / f"{exam}.npy", "w+", np.uint8, (40, 256, 256))


def listed(path):
    with path.open(newline="") as stream:
        return [row[0] for row in list(csv.reader(stream))[1:]]


def test_the_published_acl_lists_give_their_counts(tmp_path, shared_data):
    lists = shared_data / "published_splits/acl/dataframe"
    root = tmp_path / "manual" / "mrnet"
    sparse_volumes(root, [name for path in lists.glob("*_fold1.csv") for name in listed(path)])
    (root / "splits").symlink_to(lists)
    found = examples(build(Builder, tmp_path, root, "acl_fold1"))
    assert counts(found) == {"train": 725, "val": 88, "test": 208}
    exams = [{each["patient"] for each in rows.values()} for rows in found.values()]
    assert sum(map(len, exams)) == len(set.union(*exams)) == 498


def test_the_published_meniscus_lists_give_their_counts(tmp_path, shared_data):
    lists = shared_data / "published_splits/meniscus/dataframe"
    root = tmp_path / "manual" / "mrnet"
    (root / "splits").mkdir(parents=True)
    names = []
    for split in ("val", "test"):
        path = lists / f"meniscus_{split}_fold1.csv"
        (root / "splits" / path.name).symlink_to(path)
        names += listed(path)
    # The training list is not among the shared ones: two slices of exams that are in neither.
    train = ["images/1248_sagittal_3.000000.png", "images/1249_sagittal_0.000000.png"]
    (root / "splits/meniscus_train_fold1.csv").write_text(
        f"img_dir,label\n{train[0]},n\n{train[1]},p\n"
    )
    sparse_volumes(root, [*names, *train])
    found = examples(build(Builder, tmp_path, root, "meniscus_fold1"))
    assert counts(found) == {"train": 2, "val": 340, "test": 856}


def test_the_published_counts_are_those_of_the_lists():
    assert mrnet_dataset_builder.TASKS["acl"].published_rows == {
        1: {"train": 725, "val": 88, "test": 208}
    }


def test_the_tags_are_ones_that_tfds_knows():
    known = tfds.core.dataset_metadata.valid_tags()
    assert set(Builder.get_metadata().tags) <= set(known)
