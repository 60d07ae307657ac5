"""Names and rows of a study's files, for whoever writes and whoever reads them."""

import csv
import re
from collections.abc import Mapping
from pathlib import Path

from radimagenet_jax.errors import DataError

TABLE = "study.csv"
COLUMNS = (
    *("dataset", "model", "init", "structure", "learning_rate", "fold", "seed"),
    *("auroc_val", "auroc_test", "best_epoch", "seconds"),
    *("preprocessing", "views", "status", "reason"),
)
_DEFAULT_PREPROCESSING = "published"


def run_id(row: Mapping[str, object]) -> str:
    """The name of a run's files.

    Args:
      row: With the columns of study.csv, as text or values. 'run' is taken as it is if it is
        there; preprocessing and views are named only where they differ from the published way.
    """
    if row.get("run"):
        return str(row["run"])
    name = "{dataset}-{model}-{init}-{structure}".format(**row)
    name += f"-lr{float(str(row['learning_rate'])):g}-fold{row['fold']}-seed{row['seed']}"
    preprocessing = row.get("preprocessing") or _DEFAULT_PREPROCESSING
    if preprocessing != _DEFAULT_PREPROCESSING:
        name += f"-{preprocessing}"
    if str(row.get("views") or "0") != "0":
        name += f"-views{row['views']}"
    # A structure may be a regular expression; a path separator in it would leave the folder.
    return re.sub(r"[^A-Za-z0-9_.+-]+", "_", name)


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
    missing = [name for name in COLUMNS if name not in present]
    if missing:
        raise DataError(f"{path} lacks the columns {', '.join(missing)}; make it again.")
    for number, row in enumerate(rows, start=1):
        if None in row or None in row.values():
            raise DataError(f"{path}, row {number}: the file was cut off or edited; make it again.")
    return rows
