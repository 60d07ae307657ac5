"""What scores of labelled images are worth: evaluation.json and report.html, as of a test split."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from radimagenet_jax import models
from radimagenet_jax.data.inputs import Entry, Found
from radimagenet_jax.errors import DataError, cut
from radimagenet_jax.files import write_json
from radimagenet_jax.prediction import sinks
from radimagenet_jax.prediction.predictor import Predictor
from radimagenet_jax.reports import predictions, report
from radimagenet_jax.reports.provenance import Provenance
from radimagenet_jax.statistics import groups, metrics, operating_points
from radimagenet_jax.statistics.scores import Predictions
from radimagenet_jax.wording import some

EVALUATION = "evaluation.json"


def fixed_points(
    run: Path, class_names: Sequence[str], positive: int
) -> list[operating_points.OperatingPoint]:
    """Returns the operating points of a run's validation scores; of those of files none.

    Args:
      run: The working directory.
      class_names: Of its network.
      positive: Index of the positive class of two.

    Raises:
      DataError: If predictions_val.csv is damaged.
    """
    path = run / "predictions_val.csv"
    if len(class_names) != 2 or not path.is_file():
        return []
    scored = predictions.read(path)
    if scored.class_names != tuple(class_names):
        return []
    return operating_points.fix(scored.scores[:, positive], scored.labels == positive)


def fixed_threshold(run: Path, class_names: Sequence[str], positive: int) -> float | None:
    """Returns Youden's threshold among the points of `fixed_points`, None if there is none."""
    points = fixed_points(run, class_names, positive)
    return next((one.threshold for one in points if one.name == operating_points.YOUDEN), None)


def check_labels(found: Found, class_names: Sequence[str]) -> None:
    """Refuses labels that the network has no class for, before anything is scored.

    Raises:
      DataError: If there is one.
    """
    unknown: dict[str, int] = {}
    for entry in found.entries:
        if entry.label and entry.label not in class_names and entry.row is not None:
            unknown.setdefault(entry.label, entry.row.number)
    if unknown:
        shown = some([*unknown.items()], 5, lambda of: f"'{cut(of[0])}' (row {of[1]})")
        raise DataError(
            f"{found.table} has labels that the network does not know: {shown}; its classes "
            f"are {', '.join(class_names[:12])}: mend the labels, or remove the column to score "
            "without them."
        )


def write(
    output: Path,
    table: Path,
    network: Predictor,
    found: Found,
    failed: int,
    *,
    images: Callable[[Sequence[Entry]], Mapping[str, NDArray[np.uint8]]],
    provenance: Provenance,
) -> dict[str, Any] | None:
    """Evaluates what was scored.

    Args:
      output: Where evaluation.json and report.html go.
      table: The scores, as `sinks.Scores` writes them of a table with labels.
      network: Of the scores.
      found: The images.
      failed: How many could not be read.
      images: Reads the images that the page shows.
      provenance: For the page.

    Returns:
      The content of evaluation.json; None, and nothing is written, where no image has a label.

    Raises:
      DataError: If the files cannot be written.
    """
    scored, unlabelled = _labelled(table, network.class_names)
    if not scored.keys:
        return None
    positive = network.positive
    figures = metrics.evaluate(scored.scores, scored.labels, scored.patients, positive)
    figures |= groups.grouped(scored.scores, scored.labels, scored.class_names)
    if len(network.class_names) == 2:
        figures["operating_points"] = operating_points.evaluate(
            scored.scores, scored.labels, scored.patients, positive, network.points
        )
    figures["notes"] += found.notes
    new_data: report.NewData = {
        "network": network.name,
        "inputs": str(found.table),
        "scored": len(scored.keys) + unlabelled,
        "failed": failed,
        "unlabelled": unlabelled,
    }
    result = {
        "positive": network.class_names[positive],
        "test": figures,
        **new_data,
        "provenance": provenance,
    }
    shown = set(report.select_examples(scored))
    thumbnails = images([entry for entry in found.entries if entry.key in shown])
    title = models.architecture(network.contract.architecture).title
    report.write_report(
        output,
        config={"dataset": {"name": Path(str(found.table)).name}, "model": title},
        result={"test": figures},
        history=[],
        evaluated=report.Evaluated({"test": scored}, thumbnails, positive),
        provenance=provenance,
        new_data=new_data,
    )
    write_json(output / EVALUATION, result, indent=2)
    return result


def remove(output: Path) -> None:
    """Removes an earlier evaluation, whose scores are replaced by others."""
    if (output / EVALUATION).is_file():
        for name in (report.REPORT, EVALUATION):
            (output / name).unlink(missing_ok=True)


def _labelled(path: Path, class_names: Sequence[str]) -> tuple[Predictions, int]:
    """Returns the scores of the images that have a label, and how many have none."""
    names, texts, scores = predictions.read_table(path, sinks.LABELLED)
    rows = [row for row, (_, _, label, _) in enumerate(texts) if label]
    labels = np.array([class_names.index(texts[row][2]) for row in rows], np.int64)
    keys = tuple(texts[row][0] for row in rows)
    patients = tuple(texts[row][3] for row in rows)
    return Predictions(names, keys, patients, labels, scores[rows]), len(texts) - len(rows)
