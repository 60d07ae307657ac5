"""MRNet (Bien et al. 2018) as a TensorFlow Datasets builder that needs no TensorFlow."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import cv2
import numpy as np
import tensorflow_datasets as tfds

from radimagenet_jax.data.image_builder import Example, ImageBuilder
from radimagenet_jax.data.problems import Problems
from radimagenet_jax.data.source_files import (
    SourceFile,
    list_files,
    one_of_equals,
    read_lines,
)
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
class Config(tfds.core.BuilderConfig):
    """One fold of one task, by the published lists of slices or by whole exams."""

    task: str = "acl"
    fold: int = 1
    exams: bool = False


class Builder(ImageBuilder):
    """Knee MR with tears of the ACL or a meniscus; see README.md beside this file."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES: ClassVar[dict[str, str]] = {"1.0.0": "First version."}
    BUILDER_CONFIGS: ClassVar[list[Config]] = [
        Config(
            name=f"{task}{'_exams' if exams else ''}_fold{fold}",
            task=task,
            fold=fold,
            exams=exams,
            description=f"Fold {fold} of the {task} task, "
            + ("every sagittal slice of every exam." if exams else "the published slices."),
        )
        for exams in (False, True)
        for task in TASKS
        for fold in range(1, FOLDS + 1)
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

    def class_names(self) -> Sequence[str]:
        """See `ImageBuilder`."""
        return TASKS[self.builder_config.task].labels

    def extra_features(self) -> dict[str, Any]:
        """See `ImageBuilder`."""
        return {"slice": tfds.features.Scalar(np.int32, doc="Place in the volume, from 0.")}

    def find_examples(self, root: Path, problems: Problems) -> dict[str, list[Example]]:
        """See `ImageBuilder`."""
        config = self.builder_config
        task = TASKS[config.task]
        files = list_files(root)
        volumes = _Volumes(root, files, problems)
        if not volumes.files:
            raise DataError(
                f"{root} has no volume train/{PLANE}/<exam>.npy; "
                f"{self.MANUAL_DOWNLOAD_INSTRUCTIONS}."
            )
        exam_labels = _exam_labels(files, config.task, problems)
        tables = None
        if not config.exams:
            names = {split: task.table.format(split=split, fold=config.fold) for split in SPLITS}
            tables = find_tables(root, files, names)
        if tables:
            listed = read_tables(tables, task.labels, problems)
            check_counts(listed, task.published_rows.get(config.fold, {}), problems)
            return self._published(listed, volumes, exam_labels, problems)
        return self._by_exam(root, volumes, exam_labels, problems)

    def _published(
        self,
        listed: Mapping[str, Sequence[Listed]],
        volumes: "_Volumes",
        exam_labels: Mapping[str, str],
        problems: Problems,
    ) -> dict[str, list[Example]]:
        splits: dict[str, list[Example]] = {split: [] for split in SPLITS}
        contradicted: set[str] = set()
        for split, rows in listed.items():
            for row in rows:
                with problems.collecting():
                    match = _SLICE.fullmatch(row.path.name)
                    if match is None:
                        raise row.row.error(
                            f"'{row.key}' is not named <exam>_<plane>_<slice>.png; download the "
                            "table again."
                        )
                    exam, plane, index = match[1], match[2], int(match[3])
                    if (plane, exam) not in volumes.files:
                        raise row.row.error(
                            f"the exam {exam} has no volume {plane}/{exam}.npy below "
                            f"{volumes.root}; download MRNet-v1.0 again."
                        )
                    volume = volumes.get(plane, exam)
                    if volume is None:
                        continue  # its own sentence is noted already
                    if index >= volume.slices:
                        raise row.row.error(
                            f"the exam {exam} has {volume.slices} slices, 0 to "
                            f"{volume.slices - 1}, and none {index}; download the table again."
                        )
                    if exam_labels.get(exam, row.label) != row.label:
                        contradicted.add(exam)
                    splits[split].append(_example(volume, exam, plane, index, row.label))
        if contradicted:
            self.notes.append(
                f"the published lists label slices of {len(contradicted)} exams other than the "
                "owners' tables label the exam, and are followed."
            )
        return splits

    def _by_exam(
        self,
        root: Path,
        volumes: "_Volumes",
        exam_labels: Mapping[str, str],
        problems: Problems,
    ) -> dict[str, list[Example]]:
        config = self.builder_config
        if not exam_labels:
            raise DataError(
                f"{root} has neither train-{config.task}.csv nor valid-{config.task}.csv, which "
                "say which exams have a tear; download MRNet-v1.0 again."
            )
        chosen = None if config.exams else TASKS[config.task].central_slices
        examples: list[Example] = []
        for plane, exam in volumes.files:
            if plane != PLANE:
                continue
            with problems.collecting():
                if exam not in exam_labels:
                    raise DataError(
                        f"the exam {exam} has a volume below {root} and no row in train-"
                        f"{config.task}.csv or valid-{config.task}.csv; download the tables again."
                    )
                volume = volumes.get(plane, exam)
                if volume is not None:
                    examples += [
                        _example(volume, exam, plane, index, exam_labels[exam])
                        for index in _central(volume.slices, chosen)
                    ]
        for exam in exam_labels:
            if (PLANE, exam) not in volumes.files:
                problems.add(
                    f"the exam {exam} is labelled and has no volume {PLANE}/{exam}.npy below "
                    f"{root}; download MRNet-v1.0 again."
                )
        problems.check()
        if config.exams:
            self.notes.append(
                f"every {PLANE} slice has the label of its exam; fold {config.fold} of a "
                f"deterministic {FOLDS}-fold split by exam, stratified by class."
            )
        else:
            what = f"the {chosen} central" if chosen else "all"
            self.notes.append(
                f"{stand_in_note(config.fold, 'exam')[:-1]}, with {what} {PLANE} slices of each "
                "exam, each with the exam's label."
            )
        return stand_in_examples(examples, config.fold)


class _Volumes:
    """The volumes of a source by plane and exam, each checked once."""

    def __init__(self, root: Path, files: Sequence[SourceFile], problems: Problems) -> None:
        self.root = root
        self.files: dict[tuple[str, str], list[SourceFile]] = {}
        self._problems = problems
        self._opened: dict[tuple[str, str], Volume | None] = {}
        for file in files:
            exam = file.path.stem
            if file.path.suffix.lower() == ".npy" and _EXAM.fullmatch(exam):
                self.files.setdefault((file.path.parent.name, exam), []).append(file)

    def get(self, plane: str, exam: str) -> Volume | None:
        """Returns a volume, None where it is bad; the first time, what is wrong is noted."""
        key = plane, exam
        if key not in self._opened:
            self._opened[key] = None
            with self._problems.collecting():
                self._opened[key] = open_volume(one_of_equals(self.files[key], f"{exam}.npy"))
        return self._opened[key]


def _exam_labels(files: Sequence[SourceFile], task: str, problems: Problems) -> dict[str, str]:
    """Returns the class of each exam by the owners' tables, which have no header."""
    labels: dict[str, str] = {}
    for name in (f"train-{task}.csv", f"valid-{task}.csv"):
        if found := [file for file in files if file.name == name]:
            table = one_of_equals(found, name)
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
        done, encoded = cv2.imencode(".png", read_slice(volume, index))
        if not done:
            raise ValueError(f"slice {index} of {volume.file.shown} cannot be a PNG")
        return {"image": encoded.tobytes(), "slice": index}

    return read
