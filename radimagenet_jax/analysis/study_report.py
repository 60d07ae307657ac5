"""report.html and comparisons.csv of a study, from its files alone."""

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from radimagenet_jax.analysis import comparisons, study_files, svg
from radimagenet_jax.analysis.comparisons import Comparison, Summary
from radimagenet_jax.analysis.pages import environment
from radimagenet_jax.errors import DataError
from radimagenet_jax.files import replacing

_COLUMNS = (
    *("dataset", "model", "structure", "learning_rate", "seed", "preprocessing", "views"),
    *("first", "second", "images", "auroc_first", "auroc_second", "difference"),
    *("low", "high", "p", "p_holm"),
)


def write(workdir: Path) -> Path:
    """Writes both files and returns the page's path; works on a study that is not complete.

    Args:
      workdir: With study.csv, study.json, predictions/ and groups/.

    Raises:
      DataError: If one of these files is missing or damaged.
    """
    rows = study_files.read_rows(workdir)
    config = _read_json(workdir / "study.json")
    groups = [_read_json(path) for path in sorted(workdir.glob("groups/*.json"))]
    found = comparisons.compare(workdir, rows, config["dataset"]["positive"])
    table = comparisons.summaries(rows)
    _write_table(workdir / "comparisons.csv", found)
    with svg.drawing():
        boxes = _boxes(table)
        forest = _forest(found)
    page = (
        environment()
        .get_template("study.html")
        .render(
            title=", ".join(dict.fromkeys(row["dataset"] for row in rows)) or workdir.name,
            rows=rows,
            failed=[row for row in rows if row["status"] != "ok"],
            summaries=table,
            comparisons=found,
            test=comparisons.TEST,
            boxes=boxes,
            forest=forest,
            groups=groups,
            warnings=_warnings(rows, groups),
            methods=_methods(config, rows, bool(found)),
        )
    )
    path = workdir / "report.html"
    with replacing(path, errors="replace") as file:
        file.write(page)
    return path


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise DataError(
            f"{path} cannot be read ({error}); run the study's command again."
        ) from error


def _write_table(path: Path, found: Sequence[Comparison]) -> None:
    with replacing(path, newline="") as file:
        writer = csv.DictWriter(file, _COLUMNS, lineterminator="\n")
        writer.writeheader()
        for one in found:
            writer.writerow(
                {
                    "dataset": one.dataset,
                    **one.setting,
                    "first": one.first,
                    "second": one.second,
                    "images": one.images,
                    "auroc_first": one.aurocs[0],
                    "auroc_second": one.aurocs[1],
                    "difference": one.difference.value,
                    "low": one.difference.low,
                    "high": one.difference.high,
                    "p": one.difference.p_value,
                    "p_holm": one.corrected,
                }
            )


def _boxes(table: Sequence[Summary]) -> str | None:
    """Box plots of the settings' AUROC, each setting a point."""
    if not table:
        return None
    figure = Figure(figsize=(7.2, 0.9 + 0.5 * len(table)), layout="constrained")
    axes = figure.subplots()
    places = range(len(table), 0, -1)
    axes.boxplot(
        [list(one.values) for one in table],
        positions=list(places),
        orientation="horizontal",
        widths=0.5,
        showfliers=False,
        medianprops={"color": svg.PRIMARY, "linewidth": 2},
        boxprops={"color": svg.MUTED},
        whiskerprops={"color": svg.MUTED},
        capprops={"color": svg.MUTED},
    )
    for place, one in zip(places, table, strict=True):
        axes.plot(one.values, [place] * len(one.values), "o", color=svg.PRIMARY, alpha=0.4, ms=4)
    axes.set_yticks(list(places), [f"{one.dataset} · {one.init}" for one in table], fontsize=9)
    axes.set_xlabel("AUROC of a setting, mean of its folds")
    return svg.to_inline(figure, "boxes", "AUROC of all settings, a box for each initialisation.")


def _forest(found: Sequence[Comparison]) -> str | None:
    """The paired differences with their intervals, a line for each setting."""
    if not found:
        return None
    figure = Figure(figsize=(7.2, 0.9 + 0.3 * len(found)), layout="constrained")
    axes = figure.subplots()
    places = range(len(found), 0, -1)
    for place, one in zip(places, found, strict=True):
        colour = svg.CONTRAST if one.corrected < 0.05 else svg.PRIMARY
        axes.plot([one.difference.low, one.difference.high], [place] * 2, color=colour, lw=1.6)
        axes.plot(one.difference.value, place, "s", color=colour, ms=5)
    axes.axvline(0, color=svg.MUTED, linewidth=1)
    axes.set_yticks(list(places), [_named(one) for one in found], fontsize=8)
    axes.set_ylim(0.3, len(found) + 0.7)
    axes.set_xlabel("difference in AUROC")
    return svg.to_inline(figure, "forest", "Paired differences in AUROC with their intervals.")


def _named(one: Comparison) -> str:
    setting = one.setting
    return (
        f"{setting['model']} {setting['structure']} {float(setting['learning_rate']):g}: "
        f"{one.first} − {one.second}"
    )


def _warnings(rows: Sequence[Mapping[str, str]], groups: Sequence[Mapping[str, Any]]) -> list[str]:
    """What a reader must know, each sentence once."""
    said = [str(warning) for group in groups for warning in group.get("warnings", ())]
    views = sorted({row["views"] for row in rows if row["views"] not in ("", "0")})
    if views:
        said.append(
            f"runs with views={', '.join(views)} drew each image's augmentations from so many, "
            "not anew in each epoch as published."
        )
    if any(row["init"] == "scratch" for row in rows):
        said.append("the initialisation 'scratch' is random weights, not ImageNet's.")
    return list(dict.fromkeys(said))


def _methods(config: Mapping[str, Any], rows: Sequence[Mapping[str, str]], compared: bool) -> str:
    """A paragraph for a paper."""

    def each(column: str) -> str:
        return ", ".join(dict.fromkeys(row[column] for row in rows))

    folds = sorted({int(row["fold"]) for row in rows})
    text = (
        f"Networks ({each('model')}) were trained on {each('dataset')} from the initialisations "
        f"{each('init')}, with the structures {each('structure')} and learning rates "
        f"{each('learning_rate')}, in {len(folds)} fold(s), for {config['epochs']} epochs at "
        f"{config['image_size']} pixels with a batch size of {config['batch_size']} and Adam. The "
        "epoch with the lowest validation loss was kept. A setting's AUROC is the mean of its "
        "folds on their test images; the table gives mean and sample standard deviation over the "
        "settings."
    )
    if compared:
        text += (
            " Initialisations were compared on the pooled out-of-fold test predictions of each "
            f"setting: {comparisons.TEST} over all comparisons of a task; intervals are 95 % Wald "
            "intervals of the difference."
        )
    return text
