"""DDTI (Pedraza et al. 2015) as a TensorFlow Datasets builder that needs no TensorFlow."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import tensorflow_datasets as tfds

from radimagenet_jax.data.image_builder import Example, ImageBuilder
from radimagenet_jax.data.images import check_image
from radimagenet_jax.data.masks import (
    NO_MASK,
    encode_mask,
    fill_outlines,
    mask_feature,
    read_mask,
)
from radimagenet_jax.data.problems import Problems
from radimagenet_jax.data.source_files import SourceFile, list_files, one_of_equals
from radimagenet_jax.data.splits import (
    FOLDS,
    SPLITS,
    Listed,
    check_counts,
    find_tables,
    read_tables,
    stand_in_examples,
    stand_in_note,
)
from radimagenet_jax.errors import DataError
from tfds_builders.ddti.case_files import Case, Outline, read_case

CLASS_NAMES = ("benign", "malignant")
_STEM = re.compile(r"(\d+)_(\d+)")
_CASE_FILE = re.compile(r"(\d+)\.xml", re.IGNORECASE)
# The owners' whole images are JPEG; the crops of nodules are PNG with masks in GIF.
WHOLE_SUFFIXES = (".jpg", ".jpeg")
CROP_SUFFIXES = (".png",)
MASK_SUFFIXES = (".gif",)
# Rows of the published tables, by fold, as far as they are known.
PUBLISHED_ROWS = {1: {"train": 247, "val": 30, "test": 72}}
# Names in a note; more would bury the others.
NAMED = 10


@dataclass(kw_only=True)
class Config(tfds.core.BuilderConfig):
    """One fold of whole images, or of crops around the nodules."""

    fold: int = 1
    crops: bool = False


@dataclass
class _Source:
    """What lies in the data set's folder, by '<case>_<image>' or by case."""

    images: dict[str, list[SourceFile]]
    masks: dict[str, list[SourceFile]]
    cases: dict[str, Case]


class Builder(ImageBuilder):
    """Thyroid ultrasound, benign or malignant; see README.md beside this file."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES: ClassVar[dict[str, str]] = {"1.0.0": "First version."}
    BUILDER_CONFIGS: ClassVar[list[Config]] = [
        *(
            Config(name=f"fold{fold}", fold=fold, description=f"Fold {fold} of the whole images.")
            for fold in range(1, FOLDS + 1)
        ),
        *(
            Config(
                name=f"crops_fold{fold}",
                fold=fold,
                crops=True,
                description=f"Fold {fold} of crops around the nodules; rows without one left out.",
            )
            for fold in range(1, FOLDS + 1)
        ),
    ]
    TERMS = "DDTI is open access: cite Pedraza et al. 2015 (https://doi.org/10.1117/12.2073532)."
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        "download the DDTI thyroid database (thyroid.zip from http://cimalab.intec.co/"
        "applications/thyroid/, or its copy on Kaggle) and put its JPEG and XML files there, in "
        "any folder or as the zip, and the published tables thyroid_{train,val,test}_fold<k>.csv, "
        "if you have them, into the folder splits beside them"
    )
    HOMEPAGE = "https://doi.org/10.1117/12.2073532"

    def class_names(self) -> Sequence[str]:
        """See `ImageBuilder`."""
        return CLASS_NAMES

    def extra_features(self) -> dict[str, Any]:
        """See `ImageBuilder`."""
        return {"mask": mask_feature()}

    def find_examples(self, root: Path, problems: Problems) -> dict[str, list[Example]]:
        """See `ImageBuilder`."""
        config = self.builder_config
        files = list_files(root)
        source = _source(files, problems, crops=config.crops)
        if not source.images:
            kind = "PNG crop" if config.crops else "JPEG"
            raise DataError(
                f"{root} has no {kind} named '<case>_<image>' in any folder; "
                f"{self.MANUAL_DOWNLOAD_INSTRUCTIONS}."
            )
        tables = find_tables(root, files, _table_names(config.fold))
        if tables:
            listed = read_tables(tables, CLASS_NAMES, problems)
            check_counts(listed, PUBLISHED_ROWS.get(config.fold, {}), problems)
            splits = self._published(root, listed, source, problems)
        else:
            labels = self._labels(root, files, source, problems)
            splits = self._stand_in(labels, source)
        self._note_outlines(source, splits)
        return splits

    def _published(
        self,
        root: Path,
        listed: Mapping[str, Sequence[Listed]],
        source: _Source,
        problems: Problems,
    ) -> dict[str, list[Example]]:
        splits: dict[str, list[Example]] = {split: [] for split in SPLITS}
        missing: list[str] = []
        contradicted: list[str] = []
        for split, rows in listed.items():
            for row in rows:
                with problems.collecting():
                    stem = row.path.stem
                    match = _STEM.fullmatch(stem)
                    if match is None:
                        raise row.row.error(
                            f"'{row.key}' is not named <case>_<image>; download the table again."
                        )
                    if stem not in source.images:
                        if self.builder_config.crops:
                            missing.append(stem)
                            continue
                        raise row.row.error(
                            f"the image '{row.path.name}' is not below {root}; download or unpack "
                            "DDTI again."
                        )
                    case = source.cases.get(match[1])
                    if case and case.label not in ("", row.label):
                        contradicted.append(stem)
                    splits[split].append(self._example(stem, row.label, source))
        if missing:
            self.notes.append(
                f"{len(missing)} rows of the published tables are left out, for which there is no "
                f"crop: {_some(missing)}."
            )
        if contradicted:
            self.notes.append(
                f"the published tables label {len(contradicted)} images other than their TI-RADS "
                f"category does, and are followed: {_some(contradicted)}."
            )
        return splits

    def _labels(
        self, root: Path, files: Sequence[SourceFile], source: _Source, problems: Problems
    ) -> dict[str, str]:
        """The label of each image by its stem, where no table of this fold says it."""
        if source.cases:
            cases = {stem: source.cases.get(stem.partition("_")[0]) for stem in source.images}
            return {stem: case.label for stem, case in cases.items() if case and case.label}
        for other in range(1, FOLDS + 1):
            tables = find_tables(root, files, _table_names(other))
            if not tables:
                continue
            listed = read_tables(tables, CLASS_NAMES, problems)
            self.notes.append(f"the labels are those of the published tables of fold {other}.")
            return {row.path.stem: row.label for rows in listed.values() for row in rows}
        names = ", ".join(_table_names(self.builder_config.fold).values())
        raise DataError(
            f"{root} says nowhere which images are benign: it has neither the owners' XML "
            f"files (<case>.xml) nor {names}; put either there."
        )

    def _stand_in(self, labels: Mapping[str, str], source: _Source) -> dict[str, list[Example]]:
        examples: list[Example] = []
        unlabelled: list[str] = []
        for stem in source.images:
            if stem in labels:
                examples.append(self._example(stem, labels[stem], source))
            else:
                unlabelled.append(stem)
        if unlabelled:
            self.notes.append(
                f"{len(unlabelled)} images are left out, whose case has no TI-RADS category: "
                f"{_some(unlabelled)}."
                if source.cases
                else f"{len(unlabelled)} images are left out, which no published table labels: "
                f"{_some(unlabelled)}."
            )
        fold = self.builder_config.fold
        self.notes.append(stand_in_note(fold, "case"))
        return stand_in_examples(examples, fold)

    def _example(self, stem: str, label: str, source: _Source) -> Example:
        file = one_of_equals(source.images[stem], stem)
        if self.builder_config.crops:
            masks = source.masks.get(stem)
            read = _read_crop(file, one_of_equals(masks, stem) if masks else None)
        else:
            read = _read_whole(file, _outlines(source, stem))
        return Example(file.name, label, read, patient=stem.partition("_")[0])

    def _note_outlines(self, source: _Source, splits: Mapping[str, Sequence[Example]]) -> None:
        if self.builder_config.crops:
            return
        used = {Path(example.key).stem for examples in splits.values() for example in examples}
        without = sorted(stem for stem in used if not _outlines(source, stem))
        if source.cases and without:
            self.notes.append(
                f"{len(without)} images have no nodule outline that can be read, and no mask: "
                f"{_some(without)}."
            )


def _table_names(fold: int) -> dict[str, str]:
    return {split: f"thyroid_{split}_fold{fold}.csv" for split in SPLITS}


def _source(files: Sequence[SourceFile], problems: Problems, *, crops: bool) -> _Source:
    suffixes = CROP_SUFFIXES if crops else WHOLE_SUFFIXES
    source = _Source({}, {}, {})
    case_files: dict[str, list[SourceFile]] = {}
    for file in files:
        suffix = file.path.suffix.lower()
        if _STEM.fullmatch(file.path.stem):
            if suffix in suffixes:
                source.images.setdefault(file.path.stem, []).append(file)
            elif suffix in MASK_SUFFIXES:
                source.masks.setdefault(file.path.stem, []).append(file)
        elif match := _CASE_FILE.fullmatch(file.name):
            case_files.setdefault(match[1], []).append(file)
    for number, copies in case_files.items():
        with problems.collecting():
            source.cases[number] = read_case(one_of_equals(copies, f"{number}.xml"))
    return source


def _outlines(source: _Source, stem: str) -> list[Outline]:
    number, _, image = stem.partition("_")
    case = source.cases.get(number)
    # Half of an image's nodules would be a wrong mask, none is an unknown one.
    if case is None or int(image) in case.unreadable:
        return []
    return case.outlines.get(int(image), [])


def _read_whole(file: SourceFile, outlines: Sequence[Outline]) -> Callable[[], dict[str, bytes]]:
    def read() -> dict[str, bytes]:
        encoded = file.read()
        height, width = check_image(encoded, name=file.shown).shape[:2]
        if not outlines:
            return {"image": encoded, "mask": NO_MASK}
        return {"image": encoded, "mask": encode_mask(fill_outlines(outlines, (height, width)))}

    return read


def _read_crop(file: SourceFile, mask: SourceFile | None) -> Callable[[], dict[str, bytes]]:
    def read() -> dict[str, bytes]:
        encoded = file.read()
        height, width = check_image(encoded, name=file.shown).shape[:2]
        if mask is None:
            return {"image": encoded, "mask": NO_MASK}
        lesion = read_mask(mask.read(), name=mask.shown, shape=(height, width))
        return {"image": encoded, "mask": encode_mask(lesion)}

    return read


def _some(names: Sequence[str]) -> str:
    more = len(names) - NAMED
    return ", ".join(names[:NAMED]) + (f" and {more} more" if more > 0 else "")
