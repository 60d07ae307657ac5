"""report.html, comparisons.csv, overall.csv and settings.csv of a study, from its files alone."""

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from radimagenet_jax import own_files
from radimagenet_jax.data.tasks import TASKS
from radimagenet_jax.errors import DataError, cut
from radimagenet_jax.files import replacing
from radimagenet_jax.reports import study_figures, study_files, svg
from radimagenet_jax.reports.pages import environment
from radimagenet_jax.statistics import comparisons, mixed, settings
from radimagenet_jax.statistics.comparisons import Comparison, Overall
from radimagenet_jax.statistics.pooled import EMBEDDING, IDENTITY, Pooled, finished, identity
from radimagenet_jax.statistics.settings import Setting

_COMPARISON = (
    *("dataset", "compared", "model", "init", "structure", "learning_rate", "seed"),
    *("preprocessing", "views", "first", "second", "images", "auroc_first", "auroc_second"),
    *("difference", "low", "high", "p", "p_holm", "effect_d", "effect_d_low", "effect_d_high"),
)
_OVERALL = (
    *("dataset", "compared", "within", "first", "second", "settings", "left_out", "images"),
    *("difference", "low", "high", "p", "standard_error", "between_sd", "freedom"),
)
_SETTING = (
    *IDENTITY,
    *("images", "units", "auroc", "auroc_low", "auroc_high", "auroc_interval"),
    *(
        f"sensitivity_at_{specificity:.2f}{limit}"
        for specificity in settings.SPECIFICITIES
        for limit in ("", "_low", "_high")
    ),
    *("ece", "brier"),
)
# What the page takes from study.json.
_STUDY: Mapping[str, own_files.Form] = {
    "dataset": {"positive": str},
    **dict.fromkeys(("epochs", "image_size", "batch_size"), int),
    "study?": {"tasks?": [str], "note?": str},
    "optimizer?": {"name?": str, "momentum?": own_files.NUMBER},
}
_REMEDY = "run the study's command again"
_GROUP_REMEDY = "remove it, and the study's command computes the group again"
_HISTORY_REMEDY = "remove it, and the page shows the setting without its epochs"
# How the page names what is compared.
_ASKED = {
    "init": "initialisations",
    "preprocessing": "ways to prepare the input",
    "views": "bounded and unbounded augmentation",
}
_OPTIMIZERS = {"adam": "Adam", "adamw": "AdamW", "sgd": "SGD", "lion": "Lion"}


def write(workdir: Path) -> Path:
    """Writes the files and returns the page's path; works on a study that is not complete.

    Args:
      workdir: With study.csv, study.json, predictions/, histories/ and groups/.

    Raises:
      DataError: If one of these files is missing or damaged.
    """
    rows = study_files.read_rows(workdir)
    config = own_files.read_json(workdir / "study.json", _STUDY, _REMEDY)
    groups = [
        own_files.read_json(path, study_files.GROUP, _GROUP_REMEDY)
        for path in sorted(workdir.glob("groups/*.json"))
    ]
    pooled = study_files.pool(workdir, rows, _positives(config, rows))
    found = comparisons.compare(pooled)
    totals = comparisons.overall(pooled)
    described = settings.describe(pooled)
    table = comparisons.summaries(rows)
    _write_table(workdir / "comparisons.csv", _COMPARISON, map(_comparison_row, found))
    _write_table(workdir / "overall.csv", _OVERALL, map(_overall_row, totals))
    _write_table(workdir / "settings.csv", _SETTING, map(_setting_row, described))
    with svg.drawing():
        boxes = study_figures.boxes(table)
        compared = _compared(found, totals)
        shown = _shown(workdir, rows, pooled, described)
    page = (
        environment()
        .get_template("study.html")
        .render(
            title=", ".join(dict.fromkeys(row["dataset"] for row in rows)) or workdir.name,
            rows=rows,
            failed=[row for row in rows if row["status"] != "ok"],
            summaries=table,
            compared=compared,
            settings=described,
            specificities=settings.SPECIFICITIES,
            test=comparisons.TEST,
            estimator=mixed.ESTIMATOR,
            boxes=boxes,
            shown=shown,
            groups=groups,
            seconds=sum(group.get("seconds", 0.0) for group in groups),
            warnings=_warnings(config, rows, groups),
            methods=_methods(config, rows, bool(found), bool(totals)),
        )
    )
    path = workdir / "report.html"
    with replacing(path, errors="replace") as file:
        file.write(page)
    return path


def _positives(config: Mapping[str, Any], rows: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """The class meant by each task's AUROC, as the engine chose it."""
    tasks = config.get("study", {}).get("tasks", ())
    if len(tasks) > 1:
        unknown = [row["dataset"] for row in rows if row["dataset"] not in TASKS]
        if unknown:
            raise DataError(
                f"study.csv names the task {cut(repr(unknown[0]))}, which is none of "
                f"{', '.join(TASKS)}; {_REMEDY}."
            )
        return {row["dataset"]: TASKS[row["dataset"]].positive for row in rows}
    return {row["dataset"]: config["dataset"]["positive"] for row in rows}


def _write_table(path: Path, columns: Sequence[str], lines: Iterable[Mapping[str, object]]) -> None:
    with replacing(path, newline="") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(study_files.guarded(line) for line in lines)


def _comparison_row(one: Comparison) -> dict[str, object]:
    return {
        "compared": one.factor,
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
        "effect_d": one.difference.effect,
        "effect_d_low": one.difference.effect_low,
        "effect_d_high": one.difference.effect_high,
    }


def _overall_row(one: Overall) -> dict[str, object]:
    return {
        "dataset": one.dataset,
        "compared": one.factor,
        "within": one.within,
        "first": one.first,
        "second": one.second,
        "settings": one.effect.settings,
        "left_out": one.left_out,
        "images": one.images,
        "difference": one.effect.value,
        "low": one.effect.low,
        "high": one.effect.high,
        "p": one.effect.p_value,
        "standard_error": one.effect.standard_error,
        "between_sd": one.effect.between,
        "freedom": one.effect.freedom,
    }


def _setting_row(one: Setting) -> dict[str, object]:
    row: dict[str, object] = {
        **one.name,
        "images": one.images,
        "units": one.patients,
        "auroc": one.auroc,
        "auroc_low": one.low,
        "auroc_high": one.high,
        "auroc_interval": one.method,
        "ece": one.ece,
        "brier": one.brier,
    }
    for specificity, share in zip(settings.SPECIFICITIES, one.sensitivities, strict=True):
        name = f"sensitivity_at_{specificity:.2f}"
        row |= {name: share.value, f"{name}_low": share.low, f"{name}_high": share.high}
    return row


def _compared(found: Sequence[Comparison], totals: Sequence[Overall]) -> list[dict[str, Any]]:
    """Per factor and task: its comparisons, their summaries, and the forest plot."""
    sections = []
    for number, (factor, dataset) in enumerate(
        dict.fromkeys((one.factor, one.dataset) for one in found)
    ):
        own = [one for one in found if (one.factor, one.dataset) == (factor, dataset)]
        sums = [one for one in totals if (one.factor, one.dataset) == (factor, dataset)]
        sections.append(
            {
                "asked": _ASKED[factor],
                "dataset": dataset,
                "comparisons": own,
                "totals": sums,
                "forest": study_figures.forest(own, sums, f"forest{number}"),
            }
        )
    return sections


def _shown(
    workdir: Path,
    rows: Sequence[Mapping[str, str]],
    pooled: Mapping[tuple[str, ...], Pooled],
    described: Sequence[Setting],
) -> list[dict[str, Any]]:
    """The best and the median setting of each initialisation of a task, drawn."""
    groups: dict[tuple[str, str], list[Setting]] = {}
    for one in described:
        groups.setdefault((one.name["dataset"], one.name["init"]), []).append(one)
    shown = []
    for number, ((dataset, init), own) in enumerate(groups.items()):
        ranked = sorted(own, key=lambda one: -one.auroc)
        best, median = ranked[0], ranked[len(ranked) // 2]
        keys = [identity(one.name) for one in (best, median)]
        curves = study_figures.rocs(pooled[keys[0]], pooled[keys[1]], f"roc{number}")
        losses = [
            study_figures.learning(_histories(workdir, rows, key), f"loss{number}{which}")
            for key, which in zip(keys, "ab", strict=True)
        ]
        shown.append(
            {
                "dataset": dataset,
                "init": init,
                "best": best,
                "median": median,
                "roc": curves,
                "losses": losses,
            }
        )
    return shown


def _histories(
    workdir: Path, rows: Sequence[Mapping[str, str]], key: tuple[str, ...]
) -> list[list[dict[str, Any]]]:
    """The epochs of a setting's folds, of those whose history was kept."""
    paths = [
        study_files.history_path(workdir, study_files.run_id(row))
        for row in finished(rows)
        if identity(row) == key
    ]
    return [
        own_files.read_json(path, study_files.HISTORY, _HISTORY_REMEDY)["epochs"]
        for path in paths
        if path.exists()
    ]


def _warnings(
    config: Mapping[str, Any],
    rows: Sequence[Mapping[str, str]],
    groups: Sequence[Mapping[str, Any]],
) -> list[str]:
    """What a reader must know, each sentence once."""
    note = config.get("study", {}).get("note", "")
    said = [note] if note else []
    said += [str(warning) for group in groups for warning in group.get("warnings", ())]
    views = sorted({row["views"] for row in rows if row["views"] not in ("", "0")})
    if views:
        said.append(
            f"runs with views={', '.join(views)} drew each image's augmentations from so many, "
            "not anew in each epoch as published."
        )
    if any(row["init"] == "scratch" for row in rows):
        said.append("the initialisation 'scratch' is random weights, not ImageNet's.")
    return list(dict.fromkeys(said))


def _methods(
    config: Mapping[str, Any], rows: Sequence[Mapping[str, str]], compared: bool, summarised: bool
) -> str:
    """A paragraph for a paper."""

    def each(column: str, *, tables: bool | None = None) -> str:
        chosen = (row for row in rows if tables in (None, row["model"] == EMBEDDING))
        return ", ".join(dict.fromkeys(row[column] for row in chosen))

    folds = sorted({int(row["fold"]) for row in rows})
    text = (
        f"Networks ({each('model', tables=False)}) were trained on {each('dataset')} from the "
        f"initialisations {each('init', tables=False)}, with the structures {each('structure')} "
        f"and learning rates {each('learning_rate')}, in {len(folds)} fold(s), for "
        f"{config['epochs']} epochs at {config['image_size']} pixels with a batch size of "
        f"{config['batch_size']} and {_optimizer(config)}. The epoch with the lowest validation "
        "loss was kept. A setting's "
        "AUROC is the mean of its folds on their test images; the table gives mean and sample "
        "standard deviation over the settings."
    )
    if tables := each("init", tables=True):
        text += (
            f" For {tables}, features of unaugmented images that another model had computed, a "
            "head alone was trained in the same way on the same folds; it is compared with the "
            "head of each frozen network at the same learning rate."
        )
    if compared:
        text += (
            " Initialisations were compared on the pooled out-of-fold test predictions of each "
            f"setting: {comparisons.TEST} over all comparisons of a task; intervals are 95 % Wald "
            "intervals of the difference. The effect size d is the difference of sqrt(2) times the "
            "probit of the AUROC, with a delta-method interval."
        )
    if summarised:
        text += f" Over the settings of a task, differences were summarised by a {mixed.ESTIMATOR}."
    return text + (
        " A setting's pooled AUROC has DeLong's interval on the logit scale, clustered by patient "
        "where patients are known (Newcombe's score interval where the variance vanishes). "
        "Sensitivities at fixed specificity have percentile bootstrap intervals over patients "
        f"({settings.RESAMPLES:,} resamples, the threshold found anew in each). Calibration is "
        "given by the expected calibration error of ten equal bins and by the Brier score."
    )


def _optimizer(config: Mapping[str, Any]) -> str:
    """The optimiser in words; Adam, as published, where the config names none."""
    chosen = config.get("optimizer", {})
    name = chosen.get("name", "adam")
    if name == "sgd" and chosen.get("momentum"):
        return f"SGD with momentum {chosen['momentum']:g}"
    return _OPTIMIZERS.get(name, name)
