"""A study's files, for whoever writes and whoever reads them: names, columns, rows, scores."""

import csv
import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from radimagenet_jax.errors import DataError
from radimagenet_jax.reports import predictions
from radimagenet_jax.statistics.pooled import Pooled, Row, identity

TABLE = "study.csv"
COLUMNS = (
    *("dataset", "model", "init", "structure", "learning_rate", "fold", "seed"),
    *("auroc_val", "auroc_test", "best_epoch", "seconds"),
    *("preprocessing", "views", "status", "reason", "run"),
)
# A table that somebody put together may lack it; see `run_id`.
_OPTIONAL = "run"
_DEFAULT_PREPROCESSING = "published"


def trunk_name(row: Mapping[str, object]) -> str:
    """The name of what runs have in common that can share frozen layers.

    Args:
      row: With the columns of study.csv up to 'structure', 'preprocessing' and 'views', as text
        or values.
    """
    views = f"-views{row['views']}" if str(row["views"]) != "0" else ""
    parts = ("dataset", "model", "init", "structure", "preprocessing")
    texts = {**row, "structure": _slug(str(row["structure"]))}
    return "-".join(str(texts[part]) for part in parts) + views


def run_name(row: Mapping[str, object]) -> str:
    """The name of a run and its files: the column 'run' of study.csv, unique in a study.

    Args:
      row: As of `trunk_name`, with 'learning_rate', 'fold' and 'seed'.
    """
    return f"{trunk_name(row)}-{_member(row)}"


def run_id(row: Mapping[str, object]) -> str:
    """The name of the files of a row of study.csv.

    Args:
      row: With the columns of study.csv, as text or values. 'run' is taken as it is if it is
        there. In a table that somebody put together without it, preprocessing and views are
        named last, and only where they differ from the published way.
    """
    if row.get("run"):
        return str(row["run"])
    name = "{dataset}-{model}-{init}-{structure}-".format(**row) + _member(row)
    preprocessing = row.get("preprocessing") or _DEFAULT_PREPROCESSING
    if preprocessing != _DEFAULT_PREPROCESSING:
        name += f"-{preprocessing}"
    if str(row.get("views") or "0") != "0":
        name += f"-views{row['views']}"
    # A structure may be a regular expression; a path separator in it would leave the folder.
    return re.sub(r"[^A-Za-z0-9_.+-]+", "_", name)


def _member(row: Mapping[str, object]) -> str:
    return f"lr{float(str(row['learning_rate'])):g}-fold{row['fold']}-seed{row['seed']}"


def _slug(structure: str) -> str:
    """A structure as a part of a file name; what cannot stand in one is told apart by a hash."""
    plain = re.sub(r"[^A-Za-z0-9_]+", "_", structure)[:40]
    if plain == structure:
        return plain
    return f"{plain}_{hashlib.sha256(structure.encode()).hexdigest()[:8]}"


def predictions_path(workdir: Path, run: str, split: str) -> Path:
    """Where the scores of a run are; split is 'val' or 'test'."""
    return workdir / "predictions" / f"{run}_{split}.csv"


def history_path(workdir: Path, run: str) -> Path:
    """Where a run's figures of each epoch are."""
    return workdir / "histories" / f"{run}.json"


def read_rows(workdir: Path) -> list[dict[str, str]]:
    """Reads study.csv, a dictionary a run.

    Raises:
      DataError: If the file is missing, lacks a column, or has a row of another length.
    """
    path = workdir / TABLE
    try:
        with open(path, encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            present = reader.fieldnames or ()
            rows = list(reader)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from error
    except csv.Error as error:
        raise DataError(f"{path} is not a whole CSV file ({error}); make it again.") from error
    missing = [name for name in COLUMNS if name not in present and name != _OPTIONAL]
    if missing:
        raise DataError(f"{path} lacks the columns {', '.join(missing)}; make it again.")
    for number, row in enumerate(rows, start=1):
        if None in row or None in row.values():
            raise DataError(f"{path}, row {number}: the file was cut off or edited; make it again.")
    return rows


def pool(
    workdir: Path, rows: Sequence[Row], positives: Mapping[str, str]
) -> dict[tuple[str, ...], Pooled]:
    """Reads the test scores of all runs that ended, also of folds without an AUROC of their own.

    Args:
      workdir: The study's, with its predictions.
      rows: Of study.csv.
      positives: The class whose AUROC is meant, by data set; '' for the last class.

    Returns:
      The scores by `pooled.identity`, in the order of the rows.

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
        path = predictions_path(workdir, run_id(row), "test")
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
