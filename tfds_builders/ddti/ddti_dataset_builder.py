"""DDTI (Pedraza et al. 2015) as a TensorFlow Datasets builder that needs no TensorFlow."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import tensorflow_datasets as tfds

from radimagenet_jax.data.fold_builder import Downloads, FoldBuilder, FoldConfig, Tables, Undivided
from radimagenet_jax.data.image_builder import Example
from radimagenet_jax.data.images import check_image
from radimagenet_jax.data.masks import NO_MASK, encode_mask, fill_outlines, mask_feature, masked
from radimagenet_jax.data.source_files import SourceFile, grouped, one_of_equals
from radimagenet_jax.data.splits import FOLDS, Listed, read_tables
from radimagenet_jax.errors import DataError
from radimagenet_jax.wording import counted, some
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
class Config(FoldConfig):
    """One fold of whole images, or of crops around the nodules."""

    crops: bool = False


@dataclass
class _Source:
    """What lies in the data set's folder, by '<case>_<image>' or by case.

    Attributes:
      images: Whole images, or crops.
      masks: Those of crops.
      cases: The owners' XML files.
      missing: Images that a published table lists and that are not there.
      contradicted: Images of which a published table and the XML file say different things.
    """

    images: dict[str, list[SourceFile]]
    masks: dict[str, list[SourceFile]]
    cases: dict[str, Case]
    missing: list[str] = field(default_factory=list)
    contradicted: list[str] = field(default_factory=list)


class Builder(FoldBuilder[_Source]):
    """Thyroid ultrasound, benign or malignant; see README.md beside this file."""

    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS: ClassVar[list[Config]] = [
        *Config.folds("Fold {fold} of the whole images."),
        *Config.folds(
            "Fold {fold} of crops around the nodules; rows without one left out.",
            prefix="crops_",
            crops=True,
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
    UNIT = "case"

    def class_names(self) -> Sequence[str]:
        return CLASS_NAMES

    def extra_features(self) -> dict[str, Any]:
        return {"mask": mask_feature()}

    def published_tables(self) -> Tables:
        return _tables(self.builder_config.fold)

    def find_source(self, downloads: Downloads) -> _Source:
        source = _source(downloads, crops=self.builder_config.crops)
        if not source.images:
            kind = "PNG crop" if self.builder_config.crops else "JPEG"
            raise downloads.missing(f"{kind} named '<case>_<image>' in any folder")
        return source

    def published_example(
        self, row: Listed, source: _Source, downloads: Downloads
    ) -> Example | None:
        stem = row.path.stem
        match = _STEM.fullmatch(stem)
        if match is None:
            raise row.row.error(
                f"'{row.key}' is not named <case>_<image>; download the table again."
            )
        if stem not in source.images:
            if self.builder_config.crops:
                source.missing.append(stem)
                return None
            raise row.row.error(
                f"the image '{row.path.name}' is not below {downloads.root}; download or unpack "
                "DDTI again."
            )
        case = source.cases.get(match[1])
        if case and case.label not in ("", row.label):
            source.contradicted.append(stem)
        return self._example(stem, row.label, source)

    def undivided(self, source: _Source, downloads: Downloads) -> Undivided:
        labels = self._labels(source, downloads)
        unlabelled = [stem for stem in source.images if stem not in labels]
        if unlabelled:
            why = (
                "whose case has no TI-RADS category"
                if source.cases
                else "which no published table labels"
            )
            are = counted(len(unlabelled), "image is", "images are")
            self.notes.append(f"{are} left out, {why}: {some(unlabelled, NAMED)}.")
        return Undivided(
            [self._example(stem, labels[stem], source) for stem in source.images if stem in labels]
        )

    def remarks(self, source: _Source, splits: Mapping[str, Sequence[Example]]) -> list[str]:
        found: list[str] = []
        if missing := source.missing:
            found.append(
                f"{len(missing)} rows of the published tables are left out, for which there is no "
                f"crop: {some(missing, NAMED)}."
            )
        if contradicted := source.contradicted:
            found.append(
                f"the published tables label {len(contradicted)} images other than their TI-RADS "
                f"category does, and are followed: {some(contradicted, NAMED)}."
            )
        if not self.builder_config.crops:
            used = {Path(example.key).stem for examples in splits.values() for example in examples}
            without = sorted(stem for stem in used if not _outlines(source, stem))
            if source.cases and without:
                found.append(
                    f"{len(without)} images have no nodule outline that can be read, and no mask: "
                    f"{some(without, NAMED)}."
                )
        return found

    def _labels(self, source: _Source, downloads: Downloads) -> dict[str, str]:
        """The label of each image by its stem, where no table of this fold says it."""
        if source.cases:
            cases = {stem: source.cases.get(stem.partition("_")[0]) for stem in source.images}
            return {stem: case.label for stem, case in cases.items() if case and case.label}
        for other in range(1, FOLDS + 1):
            if tables := _tables(other).find(downloads):
                listed = read_tables(tables, CLASS_NAMES, downloads.problems)
                self.notes.append(f"the labels are those of the published tables of fold {other}.")
                return {row.path.stem: row.label for rows in listed.values() for row in rows}
        names = ", ".join(_tables(self.builder_config.fold).names().values())
        raise DataError(
            f"{downloads.root} says nowhere which images are benign: it has neither the owners' "
            f"XML files (<case>.xml) nor {names}; put either there."
        )

    def _example(self, stem: str, label: str, source: _Source) -> Example:
        file = one_of_equals(source.images[stem], stem)
        if self.builder_config.crops:
            masks = source.masks.get(stem)
            read = masked(file, [one_of_equals(masks, stem)] if masks else [])
        else:
            read = _read_whole(file, _outlines(source, stem))
        return Example(file.name, label, read, patient=stem.partition("_")[0])


def _tables(fold: int) -> Tables:
    return Tables(f"thyroid_{{split}}_fold{fold}.csv", PUBLISHED_ROWS.get(fold, {}))


def _source(downloads: Downloads, *, crops: bool) -> _Source:
    def image(suffixes: Sequence[str]) -> Callable[[SourceFile], str | None]:
        def stem(file: SourceFile) -> str | None:
            stem = file.path.stem
            return stem if file.path.suffix.lower() in suffixes and _STEM.fullmatch(stem) else None

        return stem

    def case_number(file: SourceFile) -> str | None:
        match = _CASE_FILE.fullmatch(file.name)
        return match[1] if match else None

    files = downloads.files
    images = grouped(files, image(CROP_SUFFIXES if crops else WHOLE_SUFFIXES))
    source = _Source(images, grouped(files, image(MASK_SUFFIXES)), {})
    for number, copies in grouped(files, case_number).items():
        with downloads.problems.collecting():
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
