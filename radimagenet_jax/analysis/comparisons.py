"""What a study says: mean and SD over its settings, and paired differences of initialisations."""

import itertools
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from radimagenet_jax.analysis import delong, predictions, study_files

Row = Mapping[str, str]

# What a setting is, beside the initialisation and the fold.
_SETTING = ("model", "structure", "learning_rate", "seed", "preprocessing", "views")
TEST = "DeLong's paired test, clustered by patient (Obuchowski 1997), Holm's correction"


@dataclass(frozen=True)
class Summary:
    """An initialisation on a task, as the published table has it.

    Attributes:
      dataset: The task's data set.
      init: The initialisation.
      settings: Number of settings.
      runs: Number of runs, over all folds.
      mean: Of the settings' AUROC, each the mean of its folds on their test images.
      sd: Of the same, None for one setting.
      low: The lowest.
      high: The highest.
      values: One AUROC a setting.
    """

    dataset: str
    init: str
    settings: int
    runs: int
    mean: float
    sd: float | None
    low: float
    high: float
    values: tuple[float, ...]


@dataclass(frozen=True)
class Comparison:
    """Two initialisations in one setting, on the same test images of all folds.

    Attributes:
      dataset: The task's data set.
      setting: Model, structure, learning rate, seed, preprocessing and views, by name.
      first: An initialisation.
      second: The other.
      images: Test images that were compared.
      aurocs: Of both, over the pooled images.
      difference: The first's AUROC minus the second's, with its 95 % interval and p-value.
      corrected: The p-value after Holm's correction over all comparisons of the task.
    """

    dataset: str
    setting: Mapping[str, str]
    first: str
    second: str
    images: int
    aurocs: tuple[float, float]
    difference: delong.Difference
    corrected: float


def summaries(rows: Sequence[Row]) -> list[Summary]:
    """Returns the published table: mean and sample SD of AUROC over the settings."""
    settings: dict[tuple[str, str], dict[tuple[str, ...], list[float]]] = {}
    for row in _finished(rows):
        own = settings.setdefault((row["dataset"], row["init"]), {})
        own.setdefault(_setting(row), []).append(float(row["auroc_test"]))
    found = []
    for (dataset, init), own in settings.items():
        values = tuple(statistics.fmean(folds) for folds in own.values())
        found.append(
            Summary(
                dataset,
                init,
                len(values),
                sum(map(len, own.values())),
                statistics.fmean(values),
                statistics.stdev(values) if len(values) > 1 else None,
                min(values),
                max(values),
                values,
            )
        )
    return found


def compare(workdir: Path, rows: Sequence[Row], positive: str) -> list[Comparison]:
    """Compares each two initialisations in each setting that both have finished.

    Args:
      workdir: The study's, with its predictions.
      rows: Of study.csv.
      positive: The class whose AUROC is meant; '' for the last.

    Returns:
      The comparisons; a setting is left out where two patients of each class are not there.

    Raises:
      DataError: If a file of predictions is missing or damaged.
    """
    groups: dict[tuple[str, tuple[str, ...]], dict[str, list[Row]]] = {}
    for row in _finished(rows):
        inits = groups.setdefault((row["dataset"], _setting(row)), {})
        inits.setdefault(row["init"], []).append(row)
    found: list[Comparison] = []
    for (dataset, setting), inits in groups.items():
        scored = {init: _pooled(workdir, own, positive) for init, own in inits.items()}
        for first, second in itertools.combinations(scored, 2):
            common = sorted(scored[first].keys() & scored[second].keys())
            pairs = [(scored[first][key], scored[second][key]) for key in common]
            is_positive = np.array([one[0] for one, _ in pairs], bool)
            patients = [one[1] for one, _ in pairs]
            scores = np.array([[one[2] for one, _ in pairs], [other[2] for _, other in pairs]])
            try:
                areas = delong.areas(scores, is_positive, patients)
            except ValueError:
                continue  # too few of a class, which the page counts as not compared
            found.append(
                Comparison(
                    dataset,
                    dict(zip(_SETTING, setting, strict=True)),
                    first,
                    second,
                    len(common),
                    (float(areas.auroc[0]), float(areas.auroc[1])),
                    delong.difference(areas),
                    1.0,
                )
            )
    return list(_corrected(found))


def holm(p_values: Sequence[float]) -> list[float]:
    """Corrects p-values for their number (Holm 1979), so that any of them may be read.

    Returns:
      The corrected values in the same order, at most 1.
    """
    order = np.argsort(p_values, kind="stable")
    left = len(p_values) - np.arange(len(p_values))
    stepped = np.maximum.accumulate(np.asarray(p_values, float)[order] * left)
    corrected = np.empty(len(p_values))
    corrected[order] = np.minimum(stepped, 1)
    return corrected.tolist()


def _corrected(found: Sequence[Comparison]) -> Iterator[Comparison]:
    for dataset in dict.fromkeys(one.dataset for one in found):
        own = [one for one in found if one.dataset == dataset]
        for one, value in zip(own, holm([o.difference.p_value for o in own]), strict=True):
            yield Comparison(**{**vars(one), "corrected": value})


def _finished(rows: Sequence[Row]) -> Iterator[Row]:
    return (row for row in rows if row["status"] == "ok" and row["auroc_test"])


def _setting(row: Row) -> tuple[str, ...]:
    return tuple(row[name] for name in _SETTING)


def _pooled(
    workdir: Path, rows: Sequence[Row], positive: str
) -> dict[tuple[str, str], tuple[bool, str, float]]:
    """Label, patient and score of each test image, by its fold and key."""
    found = {}
    for row in rows:
        run = study_files.run_id(row)
        scored = predictions.read(study_files.predictions_path(workdir, run, "test"))
        index = scored.class_names.index(positive) if positive else len(scored.class_names) - 1
        for key, patient, label, score in zip(
            scored.keys, scored.patients, scored.labels, scored.scores[:, index], strict=True
        ):
            found[row["fold"], key] = (bool(label == index), patient, float(score))
    return found
