"""Anybody's own images as a TensorFlow Datasets builder: a folder, and a CSV that names them."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import tensorflow_datasets as tfds

from radimagenet_jax.data.fold_builder import FoldConfig, lopsided, stand_in_examples
from radimagenet_jax.data.image_builder import Example, ImageBuilder
from radimagenet_jax.data.image_table import (
    COLUMNS,
    ImageTable,
    NamedImage,
    label_of,
    patients_of,
)
from radimagenet_jax.data.images import decode
from radimagenet_jax.data.masks import NO_MASK, encode_mask, mask_feature, read_mask
from radimagenet_jax.data.own_images import readable_image
from radimagenet_jax.data.problems import Problems
from radimagenet_jax.data.source_files import SourceFile, list_files
from radimagenet_jax.data.splits import FOLDS, SPLITS, fold_of
from radimagenet_jax.data.tables import iterate_csv
from radimagenet_jax.errors import DataError

TABLE = "labels.csv"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
_FOLD = re.compile(r"(.+)_fold(\d+)")


@dataclass(kw_only=True)
class Config(FoldConfig):
    """One folder of images; its fold 0 is the table's own split, or fold 1 without one.

    Attributes:
      folder: Its name, in `<data_dir>/downloads/manual/image_csv/`.
      class_names: The labels of its table, in alphabetical order.
    """

    folder: str
    class_names: tuple[str, ...] = ()


def _read(image: NamedImage) -> Mapping[str, Any]:
    """Returns the features `image` and `mask`."""
    try:
        encoded = readable_image(
            image.file.read(), name=image.file.shown, window=image.window, frame=image.frame
        )
        if image.mask is None:
            return {"image": encoded, "mask": NO_MASK}
        shape = decode(encoded, name=image.file.shown).shape
        mask = read_mask(image.mask.read(), name=image.mask.shown, shape=(shape[0], shape[1]))
        return {"image": encoded, "mask": encode_mask(mask)}
    except DataError as error:
        raise image.row.error(str(error)) from error


class Builder(ImageBuilder):
    """A folder of images with a CSV; see README.md beside this file."""

    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS: ClassVar[list[Config]] = []
    TERMS = "your own data: its owners' and patients' consent decides what it may be used for."
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        "put your images there, in a folder with a name of your choice, beside a labels.csv with "
        "the columns filename,label and, where you know them, patient,split,mask; then name it "
        "image_csv/<folder>"
    )
    # The user's table decides, whatever the configuration is called.
    HOMEPAGE = ""

    @classmethod
    def config_of_folder(cls, name: str, data_dir: Path) -> Config:
        """Returns the configuration for one of the user's folders.

        The classes are those of the prepared data set where there is one, whether or not the
        source still exists; else those of the folder's table.

        Args:
          name: `<folder>` or `<folder>_fold<n>`; the whole name is a folder's first.
          data_dir: The TFDS data directory.

        Raises:
          DataError: If there is no such folder, or no table in it that can be read.
        """
        manual = data_dir / "downloads" / "manual" / "image_csv"
        if not _NAME.fullmatch(name):
            there = sorted(path.name for path in manual.glob("*") if path.is_dir())
            known = f"; there are {', '.join(there)}" if there else ""
            raise DataError(
                f"'image_csv/{name}' does not name your data: write image_csv/<folder>, where "
                f"<folder> is in {manual} and has letters, digits, - and _ only{known}."
            )
        folder, fold = name, 0
        match = _FOLD.fullmatch(name)
        if match and not (manual / name).is_dir():
            folder, fold = match[1], int(match[2])
            if not 1 <= fold <= FOLDS:
                raise DataError(
                    f"'image_csv/{name}': there is no fold {fold}; choose one of 1 to {FOLDS}."
                )
        prepared = data_dir / "image_csv" / name / str(cls.VERSION) / "label.labels.txt"
        if prepared.is_file():
            classes = prepared.read_text(encoding="utf-8").splitlines()
        else:
            classes = _class_names(manual / folder)
        return Config(
            name=name,
            folder=folder,
            fold=fold,
            class_names=tuple(classes),
            description=f"The images of the folder {folder}.",
        )

    def class_names(self) -> Sequence[str]:
        return self.builder_config.class_names

    def extra_features(self) -> dict[str, Any]:
        return {"mask": mask_feature()}

    def find_examples(self, root: Path, problems: Problems) -> dict[str, list[Example]]:
        config = self.builder_config
        folder = root / config.folder
        problems.source = folder
        files = list_files(folder)
        table = _find_table(folder, files)
        images = ImageTable(table, files, COLUMNS)
        header = images.header
        wanted: list[NamedImage] = []
        for row in images.rows(problems):
            with problems.collecting():
                wanted.append(images.named(row, with_split="split" in header))
        _check_labels(table, wanted, problems)
        if "split" in header:
            if config.fold:
                problems.add(
                    f"{table.shown} has a column split, which leaves no fold {config.fold} to "
                    "choose; leave out the fold, or remove the column."
                )
            _check_splits(table, wanted, problems)
        # The rest would only repeat what follows from a row that was left out.
        problems.check()
        self._keep_windows(wanted)
        patients, groups, notes = patients_of(wanted, are_stated="patient" in header)
        self.notes += notes
        examples = [
            Example(one.key, one.label, partial(_read, one), patient=patients[one.key])
            for one in wanted
        ]
        if "split" in header:
            splits: dict[str, list[Example]] = {split: [] for split in SPLITS}
            for one, example in zip(wanted, examples, strict=True):
                splits[one.split].append(example)
            return splits
        fold = config.fold or 1
        self.notes.append(
            f"{table.name} has no column split: "
            f"{fold_of(fold, 'patient' if any(patients.values()) else 'image')}, stands in for it."
        )
        try:
            divided = stand_in_examples(examples, fold, groups=groups)
        except DataError as error:
            raise DataError(f"{table.shown}: {error}") from error
        self.notes += lopsided(divided, groups)
        return divided

    def _keep_windows(self, images: Sequence[NamedImage]) -> None:
        """Keeps the table's windows with the data, so that new images can be shown through them."""
        windows = {(one.window.center, one.window.width) for one in images if one.window}
        self.info.metadata["windows"] = sorted(map(list, windows))


def _class_names(folder: Path) -> list[str]:
    """Returns the labels of a folder's table; rows that are bad are told when it is prepared."""
    if not folder.is_dir():
        others = sorted(path.name for path in folder.parent.glob("*") if path.is_dir())
        there = f" (there are {', '.join(others)})" if others else ""
        raise DataError(
            f"the data set 'image_csv/{folder.name}' is not in {folder}{there}: put your images "
            f"there beside a {TABLE} with the columns filename,label and, where you know them, "
            "patient,split,mask; a link to a folder elsewhere will do."
        )
    table = _find_table(folder, _tables(folder))
    rows = iterate_csv(table, COLUMNS, Problems(folder))
    labels = sorted({label_of(row) for row in rows})
    if not labels:
        raise DataError(
            f"{table.shown} has no row with as many fields as its header, a filename and a label; "
            "mend its rows."
        )
    return labels


def _tables(folder: Path) -> list[SourceFile]:
    return [
        SourceFile.at(path)
        for path in sorted(folder.iterdir())
        if path.suffix.lower() == ".csv" and not path.name.startswith(".")
    ]


def _find_table(folder: Path, files: Sequence[SourceFile]) -> SourceFile:
    tables = [
        file for file in files if len(file.path.parts) == 1 and file.path.suffix.lower() == ".csv"
    ]
    named = [file for file in tables if file.name == TABLE]
    if named:
        return named[0]
    if len(tables) == 1:
        return tables[0]
    if tables:
        raise DataError(
            f"{folder} has {len(tables)} CSV files ({', '.join(file.name for file in tables)}); "
            f"call the one with filename and label {TABLE}."
        )
    raise DataError(
        f"{folder} has no {TABLE}; write one with a line filename,label and a line for each image, "
        "such as images/1.png,benign."
    )


def _check_labels(table: SourceFile, wanted: Sequence[NamedImage], problems: Problems) -> None:
    labels = sorted({one.label for one in wanted})
    # A row that was left out may be the one of another class.
    if len(labels) == 1 and not problems.count:
        problems.add(
            f"{table.shown} has only rows of the class '{labels[0]}', so nothing can be learnt or "
            "measured; add images of another class."
        )
    spelled: dict[str, str] = {}
    for label in labels:
        other = spelled.setdefault(label.lower(), label)
        if other != label:
            problems.add(
                f"{table.shown} has the labels '{other}' and '{label}', which differ only in upper "
                "and lower case; spell them alike."
            )


def _check_splits(table: SourceFile, wanted: Sequence[NamedImage], problems: Problems) -> None:
    if problems.count:  # rows that were left out may be the ones that seem to be missing
        return
    counts = Counter((one.split, one.label) for one in wanted)
    labels = sorted({one.label for one in wanted})
    for split in SPLITS:
        missing = [label for label in labels if not counts[split, label]]
        # Rare classes of many may be missing where nothing is learnt; the figures say so.
        everything = len(missing) == len(labels)
        if everything or (missing and (split == "train" or len(labels) == 2)):
            what = "any class" if everything else f"the class '{missing[0]}'"
            problems.add(
                f"{table.shown} has no row of {what} in the split {split}; add some, or remove the "
                "column split to have the images divided for you."
            )
