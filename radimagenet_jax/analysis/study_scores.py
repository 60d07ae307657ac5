"""The test scores of a study's runs, pooled over the folds of a setting."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from radimagenet_jax.analysis import predictions, study_files
from radimagenet_jax.errors import DataError

Row = Mapping[str, str]

# What a run is beside its fold: the columns that name a setting and what it began from.
IDENTITY = (
    *("dataset", "model", "init", "structure", "learning_rate"),
    *("seed", "preprocessing", "views"),
)


@dataclass(frozen=True)
class Pooled:
    """A setting's out-of-fold test scores, one after the other.

    Attributes:
      images: N pairs of fold and key; each image once in a fold.
      positive: (N,) bool, the label.
      patients: N names, '' where not known.
      scores: (N,) float64 in [0, 1], of the positive class.
    """

    images: tuple[tuple[str, str], ...]
    positive: NDArray[np.bool_]
    patients: tuple[str, ...]
    scores: NDArray[np.float64]

    def at(self, images: Sequence[tuple[str, str]]) -> "Pooled":
        """The same for some of the images, in the order given."""
        place = {image: number for number, image in enumerate(self.images)}
        chosen = [place[image] for image in images]
        return Pooled(
            tuple(images),
            self.positive[chosen],
            tuple(self.patients[k] for k in chosen),
            self.scores[chosen],
        )


def finished(rows: Sequence[Row]) -> list[Row]:
    """The runs that ended with a test AUROC."""
    return [row for row in rows if row["status"] == "ok" and row["auroc_test"]]


def identity(row: Row) -> tuple[str, ...]:
    """The values of `IDENTITY`."""
    return tuple(row[name] for name in IDENTITY)


def pool(
    workdir: Path, rows: Sequence[Row], positives: Mapping[str, str]
) -> dict[tuple[str, ...], Pooled]:
    """Reads the test scores of all runs that ended, also of folds without an AUROC of their own.

    Args:
      workdir: The study's, with its predictions.
      rows: Of study.csv.
      positives: The class whose AUROC is meant, by data set; '' for the last class.

    Returns:
      The scores by `identity`, in the order of the rows.

    Raises:
      DataError: If a file of predictions is missing or damaged, or lacks the class.
    """
    groups: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        if row["status"] != "ok":
            continue
        groups.setdefault(identity(row), []).append(row)
    return {name: _pooled(workdir, own, positives) for name, own in groups.items()}


def _pooled(workdir: Path, rows: Sequence[Row], positives: Mapping[str, str]) -> Pooled:
    images: list[tuple[str, str]] = []
    patients: list[str] = []
    labels, scores = [], []
    for row in rows:
        path = study_files.predictions_path(workdir, study_files.run_id(row), "test")
        scored = predictions.read(path)
        wanted = positives.get(row["dataset"], "") or scored.class_names[-1]
        if wanted not in scored.class_names:
            raise DataError(
                f"{path} has the classes {', '.join(scored.class_names)}, not {wanted!r}, whose "
                "AUROC study.json asks for; run the study's command again."
            )
        index = scored.class_names.index(wanted)
        images += [(row["fold"], key) for key in scored.keys]
        patients += scored.patients
        labels.append(scored.labels == index)
        scores.append(np.asarray(scored.scores[:, index], np.float64))
    return Pooled(tuple(images), np.concatenate(labels), tuple(patients), np.concatenate(scores))
