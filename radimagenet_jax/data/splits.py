"""Which image is in which split: published tables row for row, or a stand-in by patient.

The published system describes its splits by CSV files, one for each split and fold, whose path
column goes by several names. Where a user does not have them, a deterministic split stands in:
grouped by patient, stratified by class, and a function of nothing but the patients and their
labels.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath

import numpy as np

from radimagenet_jax.data.problems import Problems
from radimagenet_jax.data.source_files import SourceFile, grouped, one_of_equals
from radimagenet_jax.data.tables import Row, iterate_csv
from radimagenet_jax.errors import DataError

SPLITS = ("train", "val", "test")
FOLDS = 5
# The published folds keep a tenth of what is not tested for validation: 561 / 63 / 156 images.
VALIDATION_PARTS = 10
# How the published tables spell the column of paths, and the one of labels.
PATH_COLUMNS = ("filename", "img_dir", "imgpath", "dir")
LABEL_COLUMNS = ("label", "acl_label")


@dataclass(frozen=True)
class Listed:
    """An image that a split table lists.

    Attributes:
      row: The table's row, for further columns and for messages (`row.error`).
      path: The image's path, relative, with forward slashes.
      label: One of the labels that were asked for.
    """

    row: Row
    path: PurePosixPath
    label: str

    @property
    def key(self) -> str:
        """The path as text, which is unique in all tables of a data set."""
        return str(self.path)


def find_tables(
    root: Path, files: Sequence[SourceFile], names: Mapping[str, str]
) -> dict[str, SourceFile] | None:
    """Finds the tables of one fold by their published names.

    Args:
      root: The data set's folder, for messages.
      files: Where to look: `list_files(root / 'splits')`, or any other choice of files.
      names: Each split's file name, such as 'breast_train_fold1.csv' for 'train'.

    Returns:
      Each split's table, None where there is not a single one of them.

    Raises:
      DataError: If some are there and some are not, or one is there twice and differs.
    """
    found = {split: [file for file in files if file.name == name] for split, name in names.items()}
    missing = [names[split] for split in names if not found[split]]
    if len(missing) == len(names):
        return None
    if missing:
        there = [name for name in names.values() if name not in missing]
        raise DataError(
            f"{root} has {' and '.join(there)} but no {' and no '.join(missing)}; put all tables "
            "of the fold there, or none of them for the stand-in split."
        )
    return {split: one_of_equals(found[split], name) for split, name in names.items()}


def read_tables(
    tables: Mapping[str, SourceFile],
    labels: Sequence[str],
    problems: Problems,
) -> dict[str, list[Listed]]:
    """Reads split tables row for row.

    Byte-order marks, Windows line ends, an unnamed index column and any further columns are fine.

    Args:
      tables: Each split's CSV file.
      labels: The labels that rows may have.
      problems: Takes every row that cannot be used, with the file and the row: an unknown label,
        an absolute path or one that leaves the table's folder, an image listed before, in the same
        table or another; and every table that cannot be read or whose rows all have one label.

    Returns:
      Each split's good rows, in the table's order.
    """
    listed: dict[str, list[Listed]] = {}
    before: dict[str, Row] = {}
    for split, table in tables.items():
        listed[split] = []
        known_problems = problems.count
        with problems.collecting():
            path_column, label_column = _columns(table)
            for row in iterate_csv(table, [path_column, label_column], problems):
                with problems.collecting():
                    one = Listed(row, relative_path(row, path_column), row[label_column])
                    if one.label not in labels:
                        raise row.error(
                            f"the label '{one.label}' is unknown; use {' or '.join(labels)}."
                        )
                    first = before.setdefault(one.key, row)
                    if first is not row:
                        raise row.error(
                            f"'{one.key}' is listed before, in {first.file.name}, row "
                            f"{first.number}; remove one of the two."
                        )
                    listed[split].append(one)
            if problems.count == known_problems and len({one.label for one in listed[split]}) < 2:
                raise DataError(
                    f"{table.shown} has only rows of the class '{listed[split][0].label}', so "
                    "nothing can be learnt or measured there; add rows of the others."
                )
    return listed


def check_counts(
    listed: Mapping[str, Sequence[Listed]], published: Mapping[str, int], problems: Problems
) -> None:
    """Notes a split whose tables do not have the published number of rows.

    Args:
      listed: What `read_tables` returned; when it found problems, those come first.
      published: Rows of the published tables, for the splits for which they are known.
      problems: Takes what differs.
    """
    if problems.count:
        return
    for split, count in published.items():
        rows = listed[split]
        if len(rows) != count:
            problems.add(
                f"{rows[0].row.file.shown} has {len(rows):,} rows where the published table has "
                f"{count:,}; download it again."
            )


def relative_path(row: Row, column: str) -> PurePosixPath:
    r"""Returns a row's path with forward slashes, which stays below the folder it starts from.

    Raises:
      DataError: If it is absolute, on any operating system, or contains '..'.
    """
    text = row[column]
    path = PurePosixPath(text.replace("\\", "/"))
    if PureWindowsPath(text).anchor or ".." in path.parts or "\0" in text or not path.parts:
        raise row.error(
            f"the {column} '{text}' leaves the table's folder; make it relative, without '..'."
        )
    return path


def find_image(listed: Listed, files: Mapping[PurePosixPath, Sequence[SourceFile]]) -> SourceFile:
    """Returns the file that a table's row names, by its path from the table's folder.

    Args:
      listed: The row.
      files: All files of the source by path, see `by_path`.

    Raises:
      DataError: If there is no such file, or there are two that differ.
    """
    table = listed.row.file
    if found := files.get(table.path.parent / listed.path):
        return one_of_equals(found, listed.key)
    raise listed.row.error(
        f"the image '{listed.key}' is not in the folder of {table.shown}; put it there or remove "
        "the row."
    )


def by_path(files: Sequence[SourceFile]) -> dict[PurePosixPath, list[SourceFile]]:
    """Returns files by path; a folder and its zip may hold the same path."""
    return grouped(files, lambda file: file.path)


def stand_in(labels: Sequence[str], groups: Sequence[str], fold: int) -> dict[str, list[int]]:
    """Divides images into train, val and test, by group and stratified by label.

    The groups are dealt into `FOLDS` parts (see `_deal`), and part `fold` is the test split. The
    other groups are dealt into ten parts in the same way, and the first of them is the validation
    split: 72 / 8 / 20 percent, as in the published folds. So every image is tested in exactly
    one fold, no group is ever in two splits, and the result depends on nothing but the groups'
    names and how many images of each class they have: not on the images' order, on a random
    seed, or on a library's version.

    Args:
      labels: The class of each image.
      groups: The patient of each image; where unknown, a name of the image's own.
      fold: From 1.

    Returns:
      Ascending indices of the images in each of 'train', 'val' and 'test'.

    Raises:
      DataError: If there is no such fold, only one class, a class with fewer groups than folds,
        or groups so uneven that a split would be without one of the classes.
    """
    if not 1 <= fold <= FOLDS:
        raise DataError(f"there is no fold {fold}; choose one of 1 to {FOLDS}.")
    if "" in groups:
        raise ValueError("an image has no group; give one of unknown patient its own name.")
    y, x = np.asarray(labels), np.asarray(groups)
    _check_classes(y, x)
    in_test = _deal(y, x, FOLDS) == fold - 1
    test, rest = np.flatnonzero(in_test), np.flatnonzero(~in_test)
    parts = min(VALIDATION_PARTS, min(_groups_per_class(y[rest], x[rest]).values()))
    if parts < 2:
        raise _uneven(fold)
    val = rest[_deal(y[rest], x[rest], parts) == 0]
    splits = {"train": np.setdiff1d(rest, val), "val": val, "test": test}
    for indices in splits.values():
        if len(np.unique(y[indices])) < len(np.unique(y)):
            raise _uneven(fold)
    return {split: [int(i) for i in splits[split]] for split in SPLITS}


def fold_of(fold: int, unit: str) -> str:
    """Returns what a fold of the stand-in split is called in a note.

    Args:
      fold: From 1.
      unit: What is never in two splits: 'patient', 'exam', 'image'.
    """
    return f"fold {fold} of a deterministic {FOLDS}-fold split by {unit}, stratified by class"


def _columns(table: SourceFile) -> tuple[str, str]:
    header = list(next(iterate_csv(table, ())).values)

    def choose(names: Sequence[str]) -> str:
        for name in names:
            if name in header:
                return name
        raise DataError(
            f"{table.shown} has no column {' or '.join(repr(name) for name in names)} (its header "
            f"has {', '.join(repr(name) for name in header)}); give the first line the published "
            "names, separated by commas."
        )

    return choose(PATH_COLUMNS), choose(LABEL_COLUMNS)


def _deal(y: np.ndarray, groups: np.ndarray, parts: int) -> np.ndarray:
    """Deals groups into parts of about equal size and about equal shares of each class.

    The groups go one by one, the largest first, to the part where the sum of squares of the parts'
    shares of each class grows least; groups of a size go in the order of a hash of their names,
    which has nothing to do with how patients are numbered. scikit-learn's StratifiedGroupKFold
    does the like, but takes a second for 600 patients (44 s for the 26,000 of a chest radiograph
    set) and may give another result in its next version.

    Returns:
      (N,) int, each image's part.
    """
    classes, labels = np.unique(y, return_inverse=True)
    names, members = np.unique(groups, return_inverse=True)
    # How many images of each class a group has, and a part has so far.
    own = np.zeros((len(names), len(classes)), np.int64)
    np.add.at(own, (members, labels), 1)
    dealt = np.zeros((parts, len(classes)), np.int64)
    totals = own.sum(axis=0)
    # Of a share's square, the part that matters is the product of what is there and what comes;
    # in integers, since rounding differs between machines.
    weights = np.rint(1000.0 * (totals.max() / totals) ** 2).astype(np.int64)
    digests = [hashlib.sha256(str(name).encode()).digest() for name in names]
    order = sorted(range(len(names)), key=lambda i: (-own[i].sum(), digests[i]))
    part_of = np.empty(len(names), np.intp)
    for group in order:
        growth = (dealt * (own[group] * weights)).sum(axis=1)
        sizes = dealt.sum(axis=1)
        part = int(np.lexsort((sizes, growth))[0])
        dealt[part] += own[group]
        part_of[group] = part
    return part_of[members]


def _groups_per_class(y: np.ndarray, groups: np.ndarray) -> dict[str, int]:
    return {str(label): len(np.unique(groups[y == label])) for label in np.unique(y)}


def _check_classes(y: np.ndarray, groups: np.ndarray) -> None:
    counts = _groups_per_class(y, groups)
    if len(counts) < 2:
        raise DataError(
            f"all images are of one class ({', '.join(counts) or 'there are none'}), so nothing "
            "can be learnt or measured; add images of the others."
        )
    for label, count in counts.items():
        if count < FOLDS:
            raise DataError(
                f"the class '{label}' has {count} patients (or other groups that stay together), "
                f"fewer than the {FOLDS} folds; add some, or give the split yourself."
            )


def _uneven(fold: int) -> DataError:
    return DataError(
        f"fold {fold} cannot be divided so that train, val and test each have every class without "
        "a patient in two of them; add patients, or give the split yourself."
    )
