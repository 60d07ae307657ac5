"""The RSNA Intracranial Hemorrhage challenge as a TensorFlow Datasets builder, no TensorFlow."""

import functools
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import tensorflow_datasets as tfds

from radimagenet_jax.data.dicom import Header, Window, decode_dicom, header_of, pseudonym
from radimagenet_jax.data.fold_builder import Downloads, FoldBuilder, FoldConfig, Undivided
from radimagenet_jax.data.image_builder import Example
from radimagenet_jax.data.images import encode_png
from radimagenet_jax.data.patients import known_patients
from radimagenet_jax.data.problems import Problems
from radimagenet_jax.data.rsna import Challenge, find_challenge
from radimagenet_jax.data.source_files import SourceFile, one_of_equals
from radimagenet_jax.data.tables import iterate_csv
from radimagenet_jax.errors import DataError

CLASS_NAMES = ("no", "yes")
LABEL_TABLE = "stage_2_train.csv"
ANY = "any"
SUBTYPES = ("epidural", "intraparenchymal", "intraventricular", "subarachnoid", "subdural")
# Centre and width in Hounsfield units, as head CT is usually read.
BRAIN, SUBDURAL, BONE = Window(40, 80), Window(80, 200), Window(600, 2800)
WINDOWS = {
    "brain": (BRAIN,),
    "subdural": (SUBDURAL,),
    "bone": (BONE,),
    "stack": (BRAIN, SUBDURAL, BONE),
}
# The challenge's PatientIDs are pseudonyms already; the salt unlinks ours from them.
PATIENT_SALT = "rsna_hemorrhage"
# All that comes before the pixels.
_HEADER_BYTES = 2**16


@dataclass(kw_only=True)
class Config(FoldConfig):
    """Windows, and a fold by patient.

    Attributes:
      unwrap: Make negative again what slices of some scanners store wrapped around at 12 bits.
    """

    windows: tuple[Window, ...]
    unwrap: bool = False


def _configs() -> list[Config]:
    configs = []
    for name, windows in WINDOWS.items():
        shown = " and ".join(f"{window.center:g}/{window.width:g}" for window in windows)
        description = f"Window {shown}, fold {{fold}} of five, by patient."
        configs.append(Config(name=name, description=description.format(fold=1), windows=windows))
        # The brain window is what everybody means who names a fold only.
        prefix = "" if name == "brain" else f"{name}_"
        configs += Config.folds(description, prefix=prefix, windows=windows)
        again = f"{description} Values that wrapped around at 12 bits are made negative again."
        own = f"{name}_unwrapped"
        fields: dict[str, Any] = {"windows": windows, "unwrap": True}
        configs.append(Config(name=own, description=again.format(fold=1), **fields))
        configs += Config.folds(again, prefix=f"{own}_", **fields)
    return configs


class Builder(FoldBuilder[Challenge]):
    """Head CT slices with and without hemorrhage; see README.md beside this file."""

    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS: ClassVar[list[Config]] = _configs()
    TERMS = (
        "the challenge's rules: non-commercial research and education; cite Flanders et al. 2020."
    )
    HOMEPAGE = "https://www.kaggle.com/c/rsna-intracranial-hemorrhage-detection"
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        f"accept the rules of {HOMEPAGE}, download stage_2_train and {LABEL_TABLE} and put them "
        "there, packed or unpacked"
    )

    def class_names(self) -> Sequence[str]:
        return CLASS_NAMES

    def extra_features(self) -> dict[str, Any]:
        return {
            "subtypes": tfds.features.Tensor(
                shape=(len(SUBTYPES),),
                dtype=np.uint8,
                doc=f"1 where present: {', '.join(SUBTYPES)}.",
            )
        }

    def find_source(self, downloads: Downloads) -> Challenge:
        return find_challenge(
            downloads, table=LABEL_TABLE, images="stage_2_train", hidden="stage_2_test"
        )

    def undivided(self, source: Challenge, downloads: Downloads) -> Undivided:
        labels = _labels(source.table, downloads.problems)
        chosen: dict[str, SourceFile] = {}
        for image in labels:
            with downloads.problems.collecting():
                if image not in source.images:
                    raise DataError(
                        f"the image '{image}.dcm' of {source.table.shown} is not there; download "
                        "or unpack stage_2_train again."
                    )
                chosen[image] = one_of_equals(source.images[image], f"{image}.dcm")
        downloads.problems.check()
        headers = _headers(chosen)
        patients = self._patients(headers)
        self._note_wrapped(headers)
        return Undivided(
            [
                Example(
                    f"{image}.dcm",
                    CLASS_NAMES[labels[image][ANY]],
                    _reader(file, labels[image], self.builder_config),
                    patient=patients[image],
                )
                for image, file in chosen.items()
            ]
        )

    def _patients(self, headers: Mapping[str, Header | None]) -> dict[str, str]:
        """Returns each image's pseudonym: the owners' table names no patients."""
        named = {image: header.patient for image, header in headers.items() if header}
        known, notes = known_patients(named, source="PatientID (0010,0020)", are_stated=False)
        self.notes += notes
        return {
            image: pseudonym(known[image], PATIENT_SALT) if known.get(image) else ""
            for image in headers
        }

    def _note_wrapped(self, headers: Mapping[str, Header | None]) -> None:
        count = sum(header.may_wrap for header in headers.values() if header)
        if not count:
            return
        done = (
            "are made negative again"
            if self.builder_config.unwrap
            else "are shown as they are stored: air is white. A configuration whose name has "
            "'unwrapped' makes them negative again"
        )
        self.notes.append(
            f"{count:,} of {len(headers):,} slices store 12 bits without a sign or an intercept; "
            f"where values wrapped around there, negative ones {done}."
        )


def _labels(table: SourceFile, problems: Problems) -> dict[str, dict[str, int]]:
    """Returns 0 or 1 for 'any' and each subtype, by image, from the owners' long table.

    The owners list a few images twice with equal labels, which is accepted.
    """
    labels: dict[str, dict[str, int]] = {}
    for row in iterate_csv(table, ["ID", "Label"], problems):
        with problems.collecting():
            image, _, kind = row["ID"].rpartition("_")
            if not image or kind not in (ANY, *SUBTYPES):
                raise row.error(
                    f"the ID '{row['ID']}' does not end in _{ANY} or a subtype "
                    f"({', '.join(SUBTYPES)}); download the table again."
                )
            if row["Label"] not in ("0", "1"):
                raise row.error(f"the Label '{row['Label']}' is unknown; it is 0 or 1.")
            value = int(row["Label"])
            if labels.setdefault(image, {}).setdefault(kind, value) != value:
                raise row.error(
                    f"'{row['ID']}' has another Label in a row before; download the table again."
                )
    for image, own in labels.items():
        with problems.collecting():
            missing = [kind for kind in (ANY, *SUBTYPES) if kind not in own]
            if missing:
                raise DataError(
                    f"{table.shown} has no row '{image}_{missing[0]}'; download it again."
                )
            if own[ANY] != max(own[kind] for kind in SUBTYPES):
                raise DataError(
                    f"{table.shown}: '{image}_{ANY}' is {own[ANY]}, which its subtypes "
                    "contradict; download it again."
                )
    return labels


def _headers(chosen: Mapping[str, SourceFile]) -> dict[str, Header | None]:
    """Returns each image's header, None where it cannot be read: the image is told of later."""
    header = functools.partial(header_of, beginning=_HEADER_BYTES)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return dict(zip(chosen, pool.map(header, chosen.values()), strict=True))


def _reader(
    file: SourceFile, labels: Mapping[str, int], config: Config
) -> Callable[[], dict[str, Any]]:
    def read() -> dict[str, Any]:
        image = decode_dicom(
            file.read(), name=file.shown, windows=config.windows, unwrap=config.unwrap
        )
        return {
            "image": encode_png(image),
            "subtypes": np.array([labels[kind] for kind in SUBTYPES], np.uint8),
        }

    return read
