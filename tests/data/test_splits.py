"""Laws of splits: published tables row for row, and a stand-in that no patient crosses."""

from pathlib import Path, PurePosixPath

import numpy as np
import pytest

from radimagenet_jax.data.problems import Problems
from radimagenet_jax.data.source_files import SourceFile, list_files
from radimagenet_jax.data.splits import (
    SPLITS,
    by_path,
    check_counts,
    find_image,
    find_tables,
    read_tables,
    stand_in,
)
from radimagenet_jax.errors import DataError

LABELS = ("benign", "malignant")


def table(folder: Path, name: str, content: str | bytes) -> SourceFile:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return SourceFile(PurePosixPath(name), name, path)


def read(folder: Path, **contents: str | bytes):
    tables = {split: table(folder, f"{split}.csv", each) for split, each in contents.items()}
    problems = Problems("the folder")
    return read_tables(tables, LABELS, problems), problems


@pytest.mark.parametrize("path_column", ["filename", "img_dir", "imgpath", "dir"])
@pytest.mark.parametrize("label_column", ["label", "acl_label"])
def test_every_published_spelling_of_the_columns_is_read(tmp_path, path_column, label_column):
    content = f"{path_column},{label_column}\nimages/a.png,benign\nimages/b.png,malignant\n"
    listed, problems = read(tmp_path, train=content)
    assert [(row.key, row.label) for row in listed["train"]] == [
        ("images/a.png", "benign"),
        ("images/b.png", "malignant"),
    ]
    assert problems.count == 0


def test_of_two_columns_of_paths_the_first_of_the_given_names_is_read(tmp_path):
    content = ",imgpath,pid,label,filename\n0,a,1,benign,images/a\n1,b,2,malignant,images/b\n"
    listed, _ = read(tmp_path, train=content)
    assert [row.key for row in listed["train"]] == ["images/a", "images/b"]
    assert [row.row["pid"] for row in listed["train"]] == ["1", "2"]


def test_byte_order_mark_windows_line_ends_index_and_backslashes_change_nothing(tmp_path):
    content = "\ufeff,filename,label\r\n0,images\\benign (1).png,benign\r\n1,./b.png,malignant\r\n"
    listed, problems = read(tmp_path, train=content)
    assert [row.key for row in listed["train"]] == ["images/benign (1).png", "b.png"]
    assert problems.count == 0


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        ("/etc/a.png,benign", r"val\.csv, row 4: the filename '/etc/a\.png' leaves"),
        ("../a.png,benign", r"row 4: the filename '\.\./a\.png' leaves the table's folder"),
        ("x/..\\../a.png,benign", r"row 4: the filename .* leaves"),
        ("C:\\a.png,benign", r"row 4: the filename 'C:\\a\.png' leaves"),
        ("\\\\host\\share\\a.png,benign", r"row 4: the filename .* leaves"),
        (".,benign", r"row 4: the filename '\.' leaves"),
        ("c.png,normal", r"row 4: the label 'normal' is unknown; use benign or malignant"),
        ("images//a.png,benign", r"row 4: 'images/a\.png' is listed before, in val\.csv, row 2"),
        ("t.png,benign", r"row 4: 't\.png' is listed before, in train\.csv, row 2"),
        ("c.png,", r"row 4: the column 'label' is empty"),
        ("c.png", r"row 4: has 1 fields where the header has 2"),
    ],
)
def test_a_bad_row_is_one_sentence_with_file_and_row_and_the_others_are_read(
    tmp_path, row, sentence
):
    good = "images/a.png,benign\nimages/b.png,malignant\n"
    listed, problems = read(
        tmp_path,
        train="filename,label\nt.png,benign\nu.png,malignant\n",
        val=f"filename,label\n{good}{row}\n",
    )
    assert [each.key for each in listed["val"]] == ["images/a.png", "images/b.png"]
    with pytest.raises(DataError, match=sentence) as info:
        problems.check()
    assert "\n" not in str(info.value)


def test_all_bad_rows_of_all_tables_are_told_at_once(tmp_path):
    bad = "filename,label\n/a,benign\nb,normal\nc,benign\nc,malignant\n"
    _, problems = read(tmp_path, train=bad, val="file,label\na,benign\n", test="")
    assert problems.count == 5
    with pytest.raises(DataError, match=r"has 5 problems:\n  train\.csv, row 2.*\n.*\n.*\n  val"):
        problems.check()


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("file,label\na,benign\n", r"has no column 'filename' or 'img_dir' or .*has 'file', 'la"),
        ("filename,class\na,benign\n", r"has no column 'label' or 'acl_label'"),
        ("filename,filename,label\na,b,benign\n", r"has 2 columns named 'filename'"),
        ("", r"train\.csv has no rows"),
        ("filename,label\n", r"train\.csv has no rows"),
        (b"filename,label\n\xff,benign\n", r"train\.csv, line 2: is not UTF-8"),
        ("filename,label\na,benign\nb,benign\n", r"train\.csv has only rows of the class 'benign'"),
    ],
)
def test_a_table_of_no_use_is_one_sentence(tmp_path, content, sentence):
    _, problems = read(tmp_path, train=content)
    with pytest.raises(DataError, match=sentence):
        problems.check()


def test_some_tables_of_a_fold_without_the_others_are_refused_and_none_are_fine(tmp_path):
    names = {split: f"{split}_fold1.csv" for split in SPLITS}
    assert find_tables(tmp_path, list_files(tmp_path), names) is None
    (tmp_path / "splits").mkdir()
    (tmp_path / "splits/val_fold1.csv").write_text("filename,label\n")
    sentence = r"has val_fold1\.csv but no train_fold1\.csv and no test_fold1\.csv"
    with pytest.raises(DataError, match=sentence):
        find_tables(tmp_path, list_files(tmp_path), names)


def test_a_table_that_is_there_twice_and_differs_is_refused(tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        for split in SPLITS:
            (tmp_path / folder / f"{split}.csv").write_text(f"{folder if split == 'val' else ''}")
    names = {split: f"{split}.csv" for split in SPLITS}
    with pytest.raises(DataError, match=r"'val\.csv' is there twice with different content"):
        find_tables(tmp_path, list_files(tmp_path), names)


def test_an_image_is_found_beside_its_table_or_missed_by_file_and_row(tmp_path):
    (tmp_path / "a b.png").write_bytes(b"")
    listed, _ = read(tmp_path, train="filename,label\na b.png,benign\nc.png,malignant\n")
    files = by_path(list_files(tmp_path))
    assert find_image(listed["train"][0], files).location == tmp_path / "a b.png"
    with pytest.raises(DataError, match=r"train\.csv, row 3: the image 'c\.png' is not in the fol"):
        find_image(listed["train"][1], files)


def test_a_table_with_fewer_rows_than_published_is_told(tmp_path):
    listed, problems = read(tmp_path, train="filename,label\na,benign\nb,malignant\n")
    check_counts(listed, {"train": 2}, problems)
    assert problems.count == 0
    check_counts(listed, {"train": 3}, problems)
    assert problems.sentences == [
        "train.csv has 2 rows where the published table has 3; download it again."
    ]


@pytest.mark.parametrize(
    ("folder", "names", "labels", "counts"),
    [
        ("breast", "breast_{}_fold1.csv", LABELS, [561, 63, 156]),
        ("thyroid", "thyroid_{}_fold1.csv", LABELS, [247, 30, 72]),
        ("acl", "{}_fold1.csv", ("no", "yes"), [725, 88, 208]),
    ],
)
def test_the_published_lists_have_the_published_counts(shared_data, folder, names, labels, counts):
    files = list_files(shared_data / "published_splits" / folder)
    tables = find_tables(shared_data, files, {split: names.format(split) for split in SPLITS})
    problems = Problems(folder)
    listed = read_tables(tables, labels, problems)
    problems.check()
    assert [len(listed[split]) for split in SPLITS] == counts


def patients(seed: int, count: int = 120) -> tuple[list[str], list[str]]:
    """Labels and patients of a few hundred images, of 1 to 9 images a patient; 30 % positive."""
    rng = np.random.default_rng(seed)
    labels, groups = [], []
    for patient in range(count):
        label = "yes" if rng.random() < 0.3 else "no"
        for _ in range(rng.integers(1, 10)):
            labels.append(label)
            groups.append(f"patient {patient}")
    return labels, groups


@pytest.mark.parametrize("seed", range(3))
def test_every_image_is_tested_in_one_fold_and_no_patient_is_in_two_splits(seed):
    labels, groups = patients(seed)
    tested = []
    for fold in range(1, 6):
        splits = stand_in(labels, groups, fold)
        assert sorted(i for indices in splits.values() for i in indices) == list(range(len(labels)))
        of = {split: {groups[i] for i in indices} for split, indices in splits.items()}
        assert not of["train"] & of["val"]
        assert not of["train"] & of["test"]
        assert not of["val"] & of["test"]
        tested += splits["test"]
    assert sorted(tested) == list(range(len(labels)))


def test_the_splits_have_the_published_shares_and_the_classes_of_the_whole():
    labels, groups = patients(0)
    whole = labels.count("yes") / len(labels)
    for fold in range(1, 6):
        splits = stand_in(labels, groups, fold)
        shares = {split: len(indices) / len(labels) for split, indices in splits.items()}
        # One patient has up to nine of about 600 images, 1.5 %.
        assert shares == pytest.approx({"train": 0.72, "val": 0.08, "test": 0.2}, abs=0.02)
        for indices in splits.values():
            positive = sum(labels[i] == "yes" for i in indices) / len(indices)
            assert positive == pytest.approx(whole, abs=0.05)


def test_the_split_does_not_depend_on_the_order_of_the_images():
    labels, groups = patients(1)
    order = np.random.default_rng(0).permutation(len(labels))
    for fold in (1, 4):
        splits = stand_in(labels, groups, fold)
        shuffled = stand_in([labels[i] for i in order], [groups[i] for i in order], fold)
        for split, indices in splits.items():
            assert {groups[i] for i in indices} == {groups[order[i]] for i in shuffled[split]}
            assert indices == sorted(indices)


def test_the_split_is_the_same_on_every_machine_and_in_every_version():
    groups = [f"patient {i}" for i in range(30) for _ in range(1 + i % 4)]
    labels = ["yes" if int(group.split()[1]) % 3 == 0 else "no" for group in groups]
    splits = stand_in(labels, groups, 1)
    # A change of these is another split for everybody: raise the builders' versions.
    assert sorted({int(groups[i].split()[1]) for i in splits["test"]}) == [2, 8, 11, 12, 15, 17]
    assert sorted({int(groups[i].split()[1]) for i in splits["val"]}) == [10, 27, 28]


@pytest.mark.parametrize(
    ("labels", "fold", "sentence"),
    [
        ("ab" * 10, 0, r"there is no fold 0; choose one of 1 to 5"),
        ("ab" * 10, 6, r"there is no fold 6; choose one of 1 to 5"),
        ("a" * 10, 1, r"all images are of one class \(a\)"),
        ("", 1, r"all images are of one class \(there are none\)"),
        ("a" * 10 + "b" * 4, 1, r"the class 'b' has 4 patients .* fewer than the 5 folds"),
    ],
)
def test_what_cannot_be_divided_is_one_sentence(labels, fold, sentence):
    with pytest.raises(DataError, match=sentence):
        stand_in(list(labels), [str(i) for i in range(len(labels))], fold)


def test_patients_with_both_classes_are_divided_so_that_every_split_has_both():
    labels, groups = [], []
    for patient in range(5):
        labels += ["a"] * 3 + ["b"]
        groups += [str(patient)] * 4
    for fold in range(1, 6):
        splits = stand_in(labels, groups, fold)
        assert all({labels[i] for i in indices} == {"a", "b"} for indices in splits.values())


def test_an_image_of_unknown_patient_must_have_a_group_of_its_own():
    with pytest.raises(ValueError, match="no group"):
        stand_in(["a", "b"] * 10, [""] * 20, 1)
