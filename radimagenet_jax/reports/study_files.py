"""A study's files, for whoever writes and whoever reads them: names, columns, rows, scores."""

import csv
import hashlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import NoneType

import numpy as np

from radimagenet_jax import own_files
from radimagenet_jax.data.positive import positive_by_name
from radimagenet_jax.errors import DataError, cut
from radimagenet_jax.files import replacing
from radimagenet_jax.reports import predictions
from radimagenet_jax.statistics.pooled import Pooled, Row, identity

TABLE = "study.csv"
_SIZES = ("parameters", "published_parameters", "image_size")
# What the files of a run, a group and a run's epochs hold.
RUN: Mapping[str, own_files.Form] = {
    **dict.fromkeys(("dataset", "model", "init", "structure"), str),
    "learning_rate": own_files.NUMBER,
    **dict.fromkeys(("fold", "seed"), int),
    **dict.fromkeys(("auroc_val", "auroc_test", "best_epoch"), own_files.NUMBER_OR_NONE),
    "seconds": own_files.NUMBER,
    "preprocessing": str,
    "views": int,
    **dict.fromkeys(("status", "reason", "run"), str),
}
# Of the table: what is kept of a run, in that order.
COLUMNS = tuple(RUN)
GROUP: Mapping[str, own_files.Form] = {
    "group": str,
    "shared_trunk": bool,
    "seconds": own_files.NUMBER,
    "runs": [str],
    "warnings?": [str],
    # Earlier versions did not keep the following.
    **dict.fromkeys(("epochs?", "batch_size?", "image_size?"), int),
    "positive?": str,
    "made_by?": {"made": str, "command": str, "smoke": bool, "versions": dict, "device": str},
    "weights?": (dict, NoneType),
    "weights_remarks?": [str],
    "network?": {"title": str, "is_shallow": bool, **dict.fromkeys(_SIZES, int)},
    "images?": {"name": str, "terms": str, "fingerprints": dict, "sizes": dict},
    **dict.fromkeys(("features_file?", "features_sha256?"), str),
}
HISTORY: Mapping[str, own_files.Form] = {
    "epochs": [
        {"epoch": int, **dict.fromkeys(("train_loss", "val_loss"), own_files.NUMBER_OR_NONE)}
    ]
}
# A table that somebody put together may lack it; see `run_id`.
_OPTIONAL = "run"
_AGAIN = "make it again with the study's command"
# What a number in the table is read as, and the most that it can be; the least is 0.
_MOST: Mapping[str, tuple[Callable[[str], float], float]] = {
    "learning_rate": (float, 1e9),
    "fold": (int, 1e9),
    "seed": (int, 2**32),
    "views": (int, 1e9),
    "auroc_val": (float, 1),
    "auroc_test": (float, 1),
    "best_epoch": (int, 1e9),
    "seconds": (float, 1e12),
}
_MAY_BE_EMPTY = ("views", "auroc_val", "auroc_test", "best_epoch", "seconds")
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
    # A table of runs from elsewhere has no names of ours; its files can be called so by hand.
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
    except (csv.Error, UnicodeDecodeError) as error:
        raise DataError(f"{path} is not a whole CSV file ({error}); {_AGAIN}.") from error
    missing = [name for name in COLUMNS if name not in present and name != _OPTIONAL]
    if missing:
        raise DataError(f"{path} lacks the columns {', '.join(missing)}; {_AGAIN}.")
    names: set[tuple[str, ...]] = set()
    for number, row in enumerate(rows, start=1):
        if None in row or None in row.values():
            raise DataError(f"{path}, row {number}: the file was cut off or edited; {_AGAIN}.")
        row |= {name: own_files.unguarded(text) for name, text in row.items()}
        problem = _problem(row)
        name = (*identity(row), row["fold"])
        if problem is None and name in names:
            problem = "the run is there twice"
        if problem:
            raise DataError(f"{path}, row {number}: {problem}; {_AGAIN}.")
        names.add(name)
    return rows


def write_table(path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, object]]) -> None:
    """Writes a table, such as `read_rows` reads; no spreadsheet runs a cell of it.

    Args:
      path: The file.
      columns: Their names, in order.
      rows: Of these columns each.

    Raises:
      DataError: If the file cannot be written.
    """
    with replacing(path) as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        for row in rows:
            writer.writerow({name: own_files.guarded(value) for name, value in row.items()})


def _problem(row: Mapping[str, str]) -> str | None:
    """What a row of study.csv has that none of ours can have, as a part of a sentence."""
    for column, (kind, most) in _MOST.items():
        text = row[column]
        try:
            # No value is that of a run which failed, or of a table without the column's use.
            is_right = (text == "" and column in _MAY_BE_EMPTY) or 0 <= kind(text) <= most
        except ValueError:
            is_right = False
        if not is_right:
            return f"{column} is {cut(repr(text), 60)}"
    if row["status"] not in ("ok", "failed"):
        return f"status is {cut(repr(row['status']), 60)}, not 'ok' or 'failed'"
    # A name with a path in it would leave the folder.
    if not set(row.get(_OPTIONAL, "")).isdisjoint("/\0"):
        return f"run is {cut(repr(row[_OPTIONAL]), 60)}, which cannot be a file's name"
    return None


def pool(
    workdir: Path, rows: Sequence[Row], positives: Mapping[str, str]
) -> dict[tuple[str, ...], Pooled]:
    """Reads the test scores of all runs that ended, also of folds without an AUROC of their own.

    Args:
      workdir: The study's, with its predictions.
      rows: Of study.csv.
      positives: The class whose AUROC is meant, by data set; '' for `positive_by_name`.

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
    labels, scores, wanted = [], [], ""
    for row in rows:
        path = predictions_path(workdir, run_id(row), "test")
        try:
            scored = predictions.read(path)
        except DataError as error:
            raise DataError(
                f"{error} To have it computed again, remove the file in groups/ that names the "
                "run, and start the study's command."
            ) from error
        wanted = positives.get(row["dataset"], "")
        wanted = wanted or scored.class_names[positive_by_name(scored.class_names)]
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
    return Pooled(
        tuple(images), np.concatenate(labels), tuple(patients), np.concatenate(scores), wanted
    )
