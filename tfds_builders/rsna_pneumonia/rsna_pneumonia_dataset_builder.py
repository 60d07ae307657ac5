"""The RSNA Pneumonia Detection Challenge as a TensorFlow Datasets builder without TensorFlow."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import tensorflow_datasets as tfds

from radimagenet_jax.data.dicom import decode_dicom
from radimagenet_jax.data.fold_builder import Downloads, FoldBuilder, FoldConfig, Tables, Undivided
from radimagenet_jax.data.image_builder import Example
from radimagenet_jax.data.images import encode_grey
from radimagenet_jax.data.problems import Problems
from radimagenet_jax.data.rsna import find_challenge
from radimagenet_jax.data.source_files import SourceFile, one_of_equals
from radimagenet_jax.data.splits import Listed
from radimagenet_jax.data.tables import Row, iterate_csv
from radimagenet_jax.errors import DataError

CLASS_NAMES = ("no", "yes")
LABEL_TABLE = "stage_2_train_labels.csv"
BOX_COLUMNS = ("x", "y", "width", "height")
PUBLISHED_ROWS = {"train": 20_412, "val": 2_269, "test": 4_003}


@dataclass(frozen=True)
class _Labelled:
    """The examples of the owners' table by patient, and the split tables' rows about them."""

    examples: dict[str, Example]
    rows: dict[str, Row] = field(default_factory=dict)


class Builder(FoldBuilder[_Labelled]):
    """Chest radiographs with and without pneumonia; see README.md beside this file."""

    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS: ClassVar[list[FoldConfig]] = FoldConfig.published_and_folds()
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
        return CLASS_NAMES

    def extra_features(self) -> dict[str, Any]:
        return {
            "boxes": tfds.features.Tensor(
                shape=(None, 4),
                dtype=np.float32,
                doc="Opacities as x, y, width, height in pixels of the image, from its top left.",
            )
        }

    def published_tables(self) -> Tables | None:
        if self.builder_config.fold:
            return None
        return Tables("{split}.csv", PUBLISHED_ROWS, folder="splits")

    def find_source(self, downloads: Downloads) -> _Labelled:
        challenge = find_challenge(
            downloads,
            table=LABEL_TABLE,
            images="stage_2_train_images",
            hidden="stage_2_test_images",
        )
        return _Labelled(_examples(challenge.table, challenge.images, downloads.problems))

    def published_example(self, row: Listed, source: _Labelled, downloads: Downloads) -> Example:
        patient = row.path.stem
        if patient not in source.examples:
            raise row.row.error(
                f"'{row.key}' has no row in {LABEL_TABLE}; download that table again."
            )
        if source.rows.setdefault(patient, row.row) is not row.row:
            raise row.row.error(f"'{patient}' is listed before; remove one row.")
        example = source.examples[patient]
        if example.label != row.label:
            raise row.row.error(
                f"'{row.key}' is labelled '{row.label}' and in {LABEL_TABLE} '{example.label}'; "
                "download both again."
            )
        return example

    def undivided(self, source: _Labelled, downloads: Downloads) -> Undivided:
        return Undivided(list(source.examples.values()))


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
