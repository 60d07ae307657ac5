"""Phantom CT slices as a TensorFlow Datasets builder: no download, made from a seed."""

from collections.abc import Iterator
from typing import Any, ClassVar

import tensorflow_datasets as tfds

from radimagenet_jax.data.images import encode_png
from radimagenet_jax.data.local_builder import LocalBuilder
from tfds_builders.phantom.patients import SLICES, draw_split

CLASS_NAMES = ("normal", "lesion")
# Patients a split; each has SLICES pictures.
PATIENTS = {"train": 252, "val": 54, "test": 75}


class Builder(LocalBuilder):
    """CT-like slices of chest, abdomen and head; see README.md beside this file."""

    VERSION = tfds.core.Version("1.0.0")
    TERMS = "Phantom slices are drawn by this project from a seed and are free of any terms."
    # Images a split, by configuration; '' is the only one.
    EXPECTED: ClassVar[dict[str, dict[str, int]]] = {
        "": {split: patients * SLICES for split, patients in PATIENTS.items()}
    }

    def _info(self) -> tfds.core.DatasetInfo:
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(
                        shape=(None, None, 1), encoding_format="png", doc="8-bit grey, 128 x 128."
                    ),
                    "label": tfds.features.ClassLabel(names=CLASS_NAMES),
                    "key": tfds.features.Text(doc="<patient>/<slice>, unique and stable."),
                    "patient": tfds.features.Text(doc="<split>-<anatomy>-<number>."),
                }
            ),
            supervised_keys=("image", "label"),
            license=self.TERMS,
        )

    def _split_generators(
        self, dl_manager: tfds.download.DownloadManager
    ) -> dict[str, Iterator[tuple[str, dict[str, Any]]]]:
        del dl_manager  # nothing is downloaded
        return {split: self.counted(self._generate_examples(split)) for split in PATIENTS}

    def _generate_examples(self, split: str) -> Iterator[tuple[str, dict[str, Any]]]:
        for drawn in draw_split(split, PATIENTS[split]):
            yield (
                drawn.key,
                {
                    "image": encode_png(drawn.pixels),
                    "label": CLASS_NAMES[int(drawn.has_lesion)],
                    "key": drawn.key,
                    "patient": drawn.patient,
                },
            )
