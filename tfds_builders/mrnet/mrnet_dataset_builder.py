"""MRNet (Bien et al. 2018) as a TensorFlow Datasets builder that needs no TensorFlow."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import tensorflow_datasets as tfds

from radimagenet_jax.data.fold_builder import Downloads, FoldBuilder, FoldConfig, Tables, Undivided
from radimagenet_jax.data.image_builder import Example
from radimagenet_jax.data.images import encode_png
from radimagenet_jax.data.problems import Problems
from radimagenet_jax.data.source_files import SourceFile, grouped, named, one_of_equals
from radimagenet_jax.data.splits import Listed
from radimagenet_jax.data.tables import read_lines
from radimagenet_jax.errors import DataError
from tfds_builders.mrnet.volumes import Volume, open_volume, read_slice

# An image of the published lists: '1046_sagittal_10.000000.png' is slice 10 of exam 1046.
_SLICE = re.compile(r"(\d{4})_(axial|coronal|sagittal)_(\d+)(?:\.0+)?\.(?:png|jpg)")
_EXAM = re.compile(r"\d{4}")
_LABEL_LINE = re.compile(r"(\d{4})\s*,\s*([01])")
PLANE = "sagittal"


@dataclass(frozen=True)
class _Task:
    """What the published tables and the owners call one task.

    Attributes:
      labels: Class names, without and with a tear.
      table: The published tables' name.
      published_rows: Their rows, by fold, as far as they are known.
      central_slices: Slices about the middle of a volume that stand in for the published choice,
        None for all.
    """

    labels: tuple[str, str]
    table: str
    published_rows: dict[int, dict[str, int]]
    central_slices: int | None


TASKS = {
    # The ligament is in the middle of the knee, the menisci are on both sides of it.
    "acl": _Task(
        ("no", "yes"),
        "{split}_fold{fold}.csv",
        {1: {"train": 725, "val": 88, "test": 208}},
        central_slices=3,
    ),
    "meniscus": _Task(
        ("n", "p"),
        "meniscus_{split}_fold{fold}.csv",
        {1: {"val": 340, "test": 856}},
        central_slices=None,
    ),
}


@dataclass(kw_only=True)
class Config(FoldConfig):
    """One fold of one task, by the published lists of slices or by whole exams."""

    task: str = "acl"
    exams: bool = False


class _Source:
    """The volumes of a source by plane and exam, each checked once, and the exams' labels.

    Attributes:
      files: The volumes' files.
      labels: The class of each exam, by the owners' tables.
      contradicted: Exams that a published list labels otherwise.
    """

    def __init__(self, downloads: Downloads, task: str) -> None:
        self.files = grouped(downloads.files, _plane_and_exam)
        if not self.files:
            raise downloads.missing(f"volume train/{PLANE}/<exam>.npy")
        self.labels = _exam_labels(downloads.files, task, downloads.problems)
        self.contradicted: set[str] = set()
        self._problems = downloads.problems
        self._opened: dict[tuple[str, str], Volume | None] = {}

    def volume(self, plane: str, exam: str) -> Volume | None:
        """Returns a volume, None where it is bad; the first time, what is wrong is noted."""
        key = plane, exam
        if key not in self._opened:
            self._opened[key] = None
            with self._problems.collecting():
                self._opened[key] = open_volume(one_of_equals(self.files[key], f"{exam}.npy"))
        return self._opened[key]


def _plane_and_exam(file: SourceFile) -> tuple[str, str] | None:
    exam = file.path.stem
    is_volume = file.path.suffix.lower() == ".npy" and _EXAM.fullmatch(exam)
    return (file.path.parent.name, exam) if is_volume else None


class Builder(FoldBuilder[_Source]):
    """Knee MR with tears of the ACL or a meniscus; see README.md beside this file."""

    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS: ClassVar[list[Config]] = [
        config
        for exams in (False, True)
        for task in TASKS
        for config in Config.folds(
            f"Fold {{fold}} of the {task} task, "
            + ("every sagittal slice of every exam." if exams else "the published slices."),
            prefix=f"{task}{'_exams' if exams else ''}_",
            task=task,
            exams=exams,
        )
    ]
    TERMS = (
        "MRNet is for non-commercial research under the Stanford University data use agreement; "
        "it may not be passed on (https://stanfordmlgroup.github.io/competitions/mrnet/)."
    )
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        "sign the agreement at https://stanfordmlgroup.github.io/competitions/mrnet/, download "
        "MRNet-v1.0 and put its folders train and valid and its tables ({train,valid}-{acl,"
        "meniscus}.csv) there, and the published lists of slices ({train,val,test}_fold<k>.csv for "
        "acl, meniscus_{train,val,test}_fold<k>.csv), if you have them, into the folder splits "
        "beside them"
    )
    HOMEPAGE = "https://stanfordmlgroup.github.io/competitions/mrnet/"
    UNIT = "exam"

    def class_names(self) -> Sequence[str]:
        return TASKS[self.builder_config.task].labels

    def extra_features(self) -> dict[str, Any]:
        return {"slice": tfds.features.Scalar(np.int32, doc="Place in the volume, from 0.")}

    def published_tables(self) -> Tables | None:
        if self.builder_config.exams:
            return None
        task, fold = TASKS[self.builder_config.task], self.builder_config.fold
        return Tables(
            task.table.format(split="{split}", fold=fold), task.published_rows.get(fold, {})
        )

    def find_source(self, downloads: Downloads) -> _Source:
        return _Source(downloads, self.builder_config.task)

    def published_example(
        self, row: Listed, source: _Source, downloads: Downloads
    ) -> Example | None:
        match = _SLICE.fullmatch(row.path.name)
        if match is None:
            raise row.row.error(
                f"'{row.key}' is not named <exam>_<plane>_<slice>.png; download the table again."
            )
        exam, plane, index = match[1], match[2], int(match[3])
        if (plane, exam) not in source.files:
            raise row.row.error(
                f"the exam {exam} has no volume {plane}/{exam}.npy below {downloads.root}; "
                "download MRNet-v1.0 again."
            )
        volume = source.volume(plane, exam)
        if volume is None:
            return None  # its own sentence is noted already
        if index >= volume.slices:
            raise row.row.error(
                f"the exam {exam} has {volume.slices} slices, 0 to {volume.slices - 1}, and none "
                f"{index}; download the table again."
            )
        if source.labels.get(exam, row.label) != row.label:
            source.contradicted.add(exam)
        return _example(volume, exam, plane, index, row.label)

    def remarks(self, source: _Source, splits: Mapping[str, Sequence[Example]]) -> list[str]:
        if not source.contradicted:
            return []
        return [
            f"the published lists label slices of {len(source.contradicted)} exams other than the "
            "owners' tables label the exam, and are followed."
        ]

    def undivided(self, source: _Source, downloads: Downloads) -> Undivided:
        config = self.builder_config
        if not source.labels:
            raise DataError(
                f"{downloads.root} has neither train-{config.task}.csv nor valid-{config.task}"
                ".csv, which say which exams have a tear; download MRNet-v1.0 again."
            )
        chosen = None if config.exams else TASKS[config.task].central_slices
        examples: list[Example] = []
        for plane, exam in source.files:
            if plane != PLANE:
                continue
            with downloads.problems.collecting():
                if exam not in source.labels:
                    raise DataError(
                        f"the exam {exam} has a volume below {downloads.root} and no row in train-"
                        f"{config.task}.csv or valid-{config.task}.csv; download the tables again."
                    )
                volume = source.volume(plane, exam)
                if volume is not None:
                    examples += [
                        _example(volume, exam, plane, index, source.labels[exam])
                        for index in _central(volume.slices, chosen)
                    ]
        for exam in source.labels:
            if (PLANE, exam) not in source.files:
                downloads.problems.add(
                    f"the exam {exam} is labelled and has no volume {PLANE}/{exam}.npy below "
                    f"{downloads.root}; download MRNet-v1.0 again."
                )
        if config.exams:
            note = f"every {PLANE} slice has the label of its exam; {{split}}."
        else:
            what = f"the {chosen} central" if chosen else "all"
            note = (
                f"{{split}}, with {what} {PLANE} slices of each exam, each with the exam's label."
            )
        return Undivided(examples, note=note)


def _exam_labels(files: Sequence[SourceFile], task: str, problems: Problems) -> dict[str, str]:
    """Returns the class of each exam by the owners' tables, which have no header."""
    labels: dict[str, str] = {}
    for name in (f"train-{task}.csv", f"valid-{task}.csv"):
        if table := named(files, name):
            for number, line in read_lines(table):
                with problems.collecting():
                    match = _LABEL_LINE.fullmatch(line)
                    if match is None:
                        raise DataError(
                            f"{table.shown}, row {number}: '{line}' is not <exam>,<0 or 1>, such "
                            "as '0000,1'; download it again."
                        )
                    if match[1] in labels:
                        raise DataError(
                            f"{table.shown}, row {number}: the exam {match[1]} is labelled "
                            "before; download the tables again."
                        )
                    labels[match[1]] = TASKS[task].labels[int(match[2])]
    return labels


def _central(slices: int, chosen: int | None) -> range:
    """Returns the indices of the central slices of a volume, of all where none are chosen."""
    if chosen is None or chosen >= slices:
        return range(slices)
    first = (slices - chosen) // 2
    return range(first, first + chosen)


def _example(volume: Volume, exam: str, plane: str, index: int, label: str) -> Example:
    key = f"{exam}_{plane}_{index}"
    return Example(key, label, _read(volume, index), patient=exam)


def _read(volume: Volume, index: int) -> Callable[[], dict[str, Any]]:
    def read() -> dict[str, Any]:
        return {"image": encode_png(read_slice(volume, index)), "slice": index}

    return read
