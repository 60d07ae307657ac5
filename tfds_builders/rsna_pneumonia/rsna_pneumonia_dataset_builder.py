"""The RSNA Pneumonia Detection Challenge as a TensorFlow Datasets builder without TensorFlow."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar

import numpy as np
import tensorflow_datasets as tfds

from radimagenet_jax.data.dicom import decode_dicom
from radimagenet_jax.data.image_builder import Example, ImageBuilder
from radimagenet_jax.data.images import encode_grey
from radimagenet_jax.data.problems import Problems
from radimagenet_jax.data.rsna import table_and_images
from radimagenet_jax.data.source_files import (
    Row,
    SourceFile,
    iterate_csv,
    list_files,
    one_of_equals,
)
from radimagenet_jax.data.splits import (
    FOLDS,
    SPLITS,
    check_counts,
    find_tables,
    fold_of,
    read_tables,
    stand_in_examples,
    stand_in_note,
)
from radimagenet_jax.errors import DataError

CLASS_NAMES = ("no", "yes")
LABEL_TABLE = "stage_2_train_labels.csv"
BOX_COLUMNS = ("x", "y", "width", "height")
PUBLISHED_ROWS = {"train": 20_412, "val": 2_269, "test": 4_003}
TABLES = {split: f"{split}.csv" for split in SPLITS}


@dataclass(kw_only=True)
class Config(tfds.core.BuilderConfig):
    """The published split (fold 0), or one fold by patient."""

    fold: int = 0


class Builder(ImageBuilder):
    """Chest radiographs with and without pneumonia; see README.md beside this file."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES: ClassVar[dict[str, str]] = {"1.0.0": "First version."}
    BUILDER_CONFIGS: ClassVar[list[Config]] = [
        Config(name="published", description="The published split, or fold 1 in its place."),
        *(
            Config(name=f"fold{fold}", fold=fold, description=f"Fold {fold} of five, by patient.")
            for fold in range(1, FOLDS + 1)
        ),
    ]
    TERMS = (
        "the challenge's rules: non-commercial research and education; cite Shih et al. 2019 and "
        "Wang et al. 2017."
    )
    HOMEPAGE = "https://www.kaggle.com/c/rsna-pneumonia-detection-challenge"
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        f"accept the rules of {HOMEPAGE}, download stage_2_train_images and {LABEL_TABLE} and put "
        "them there, packed or unpacked, and the published train.csv, val.csv and test.csv, if you "
        "have them, into the folder splits beside them"
    )

    def class_names(self) -> Sequence[str]:
        """See `ImageBuilder`."""
        return CLASS_NAMES

    def extra_features(self) -> dict[str, Any]:
        """See `ImageBuilder`."""
        return {
            "boxes": tfds.features.Tensor(
                shape=(None, 4),
                dtype=np.float32,
                doc="Opacities as x, y, width, height in pixels of the image, from its top left.",
            )
        }

    def find_examples(self, root: Path, problems: Problems) -> dict[str, list[Example]]:
        """See `ImageBuilder`."""
        table, images = table_and_images(
            root,
            LABEL_TABLE,
            "stage_2_train_images",
            "stage_2_test_images",
            self.MANUAL_DOWNLOAD_INSTRUCTIONS,
        )
        examples = _examples(table, images, problems)
        fold = self.builder_config.fold
        in_splits = [file for file in list_files(root) if "splits" in file.path.parts]
        tables = None if fold else find_tables(root, in_splits, TABLES)
        if tables:
            return _published(tables, examples, problems)
        problems.check()
        if fold:
            self.notes.append(f"{fold_of(fold, 'patient')}.")
        else:
            self.notes.append(stand_in_note(1, "patient"))
        return stand_in_examples(list(examples.values()), fold or 1)


def _examples(
    table: SourceFile, images: Mapping[str, Sequence[SourceFile]], problems: Problems
) -> dict[str, Example]:
    """Returns the examples of the owners' table, which has a row for each box, by patient."""
    targets: dict[str, str] = {}
    boxes: dict[str, list[tuple[float, ...]]] = {}
    files: dict[str, SourceFile] = {}
    for row in iterate_csv(table, ["patientId", "Target"], problems):
        with problems.collecting():
            patient, target = row["patientId"], row["Target"]
            if target not in ("0", "1"):
                raise row.error(f"the Target '{target}' is unknown; it is 0 or 1.")
            if targets.setdefault(patient, target) != target:
                raise row.error(
                    f"'{patient}' has the Target {target} here and {targets[patient]} before; "
                    "download the table again."
                )
            if target == "0" and patient in boxes:
                raise row.error(f"'{patient}' is listed before, without a box; remove one row.")
            own = boxes.setdefault(patient, [])
            if target == "1":
                own.append(_box(row))
            if patient not in files:
                if patient not in images:
                    raise row.error(
                        f"the image '{patient}.dcm' is not there; download or unpack "
                        "stage_2_train_images again."
                    )
                files[patient] = one_of_equals(images[patient], f"{patient}.dcm")
    return {
        patient: Example(
            f"{patient}.dcm",
            CLASS_NAMES[int(targets[patient])],
            _reader(file, boxes[patient]),
            patient=patient,
        )
        for patient, file in files.items()
    }


def _box(row: Row) -> tuple[float, ...]:
    try:
        box = tuple(float(row.values.get(column, "")) for column in BOX_COLUMNS)
    except ValueError as error:
        raise row.error(
            "has Target 1 without a box of four numbers x, y, width, height; download the table "
            "again."
        ) from error
    if not all(0 <= value < float("inf") for value in box) or not (box[2] and box[3]):
        raise row.error("has a box without an area; download the table again.")
    return box


def _reader(file: SourceFile, boxes: Sequence[tuple[float, ...]]) -> Callable[[], dict[str, Any]]:
    def read() -> dict[str, Any]:
        image = decode_dicom(file.read(), name=file.shown)
        if image.shape[-1] != 1:
            raise DataError(f"{file.shown} is a colour image; download it again.")
        height, width = image.shape[:2]
        for x, y, w, h in boxes:
            if x + w > width or y + h > height:
                raise DataError(
                    f"{file.shown} has {width} x {height} pixels, and a box in {LABEL_TABLE} that "
                    "leaves it; download both again."
                )
        return {"image": encode_grey(image), "boxes": np.array(boxes, np.float32).reshape(-1, 4)}

    return read


def _published(
    tables: Mapping[str, SourceFile], examples: Mapping[str, Example], problems: Problems
) -> dict[str, list[Example]]:
    listed = read_tables(tables, CLASS_NAMES, problems)
    check_counts(listed, PUBLISHED_ROWS, problems)
    splits: dict[str, list[Example]] = {split: [] for split in SPLITS}
    before: dict[str, Row] = {}
    for split, rows in listed.items():
        for row in rows:
            with problems.collecting():
                patient = PurePosixPath(row.path).stem
                if patient not in examples:
                    raise row.row.error(
                        f"'{row.key}' has no row in {LABEL_TABLE}; download that table again."
                    )
                if before.setdefault(patient, row.row) is not row.row:
                    raise row.row.error(f"'{patient}' is listed before; remove one row.")
                if examples[patient].label != row.label:
                    raise row.row.error(
                        f"'{row.key}' is labelled '{row.label}' and in {LABEL_TABLE} "
                        f"'{examples[patient].label}'; download both again."
                    )
                splits[split].append(examples[patient])
    return splits
