"""The CSV files beside a study's page, each the whole of a table that the page shows."""

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from radimagenet_jax.files import replacing
from radimagenet_jax.reports import study_files
from radimagenet_jax.statistics import settings
from radimagenet_jax.statistics.comparisons import Comparison, Overall, Summary
from radimagenet_jax.statistics.pooled import IDENTITY
from radimagenet_jax.statistics.settings import Setting
from radimagenet_jax.statistics.tasks import Joined

_SUMMARY = (
    *("dataset", "positive", "init", "settings", "runs"),
    *("auroc_mean", "auroc_sd", "auroc_lowest", "auroc_highest"),
)
_COMPARISON = (
    *("dataset", "positive", "compared", "model", "init", "structure", "learning_rate", "seed"),
    *("preprocessing", "views", "first", "second", "images", "auroc_first", "auroc_second"),
    *("difference", "low", "high", "p", "p_holm", "effect_d", "effect_d_low", "effect_d_high"),
)
_OVERALL = (
    *("dataset", "positive", "compared", "within", "first", "second", "settings", "left_out"),
    *("images", "auroc_first", "auroc_second"),
    *("difference", "low", "high", "p", "standard_error", "between_sd", "freedom"),
)
_JOINED = (
    *("compared", "within", "first", "second", "tasks", "difference", "low", "high", "p"),
    *("between_sd", "q", "q_p", "i_squared"),
)
_SETTING = (
    *(*IDENTITY, "positive"),
    *("images", "units", "auroc", "auroc_low", "auroc_high", "auroc_interval"),
    *(
        f"sensitivity_at_{specificity:.2f}{limit}"
        for specificity in settings.SPECIFICITIES
        for limit in ("", "_low", "_high")
    ),
    *("ece", "brier"),
)
_GROUP = ("group", "runs", "shared_trunk", "seconds")
_FAILED = (*IDENTITY, "fold", "reason")


def write(
    workdir: Path,
    *,
    rows: Sequence[Mapping[str, str]],
    groups: Sequence[Mapping[str, Any]],
    events: Mapping[str, str],
    summaries: Sequence[Summary],
    found: Sequence[Comparison],
    totals: Sequence[Overall],
    joined: Sequence[tuple[Overall, Joined]],
    described: Sequence[Setting],
) -> dict[str, str]:
    """Writes the tables, those without a row too.

    Args:
      workdir: Where to.
      rows: Of study.csv.
      groups: What is kept of each.
      events: The positive class by data set.
      summaries: Of the initialisations.
      found: Of pairs in a setting.
      totals: Of pairs over the settings of a task.
      joined: Of pairs over tasks, each with one of its `totals`.
      described: Of the settings.

    Returns:
      Each file's text by its name.
    """
    failed = [row for row in rows if row["status"] != "ok"]
    tables: dict[str, tuple[Sequence[str], Iterable[Mapping[str, object]]]] = {
        "summaries.csv": (_SUMMARY, map(_summary, summaries)),
        "comparisons.csv": (_COMPARISON, map(_comparison, found)),
        "overall.csv": (_OVERALL, map(_overall, totals)),
        "tasks.csv": (_JOINED, (_joined(*one) for one in joined)),
        "settings.csv": (_SETTING, map(_setting, described)),
        "failed.csv": (_FAILED, ({name: row[name] for name in _FAILED} for row in failed)),
        "groups.csv": (_GROUP, map(_group, groups)),
    }
    for name, (columns, lines) in tables.items():
        with replacing(workdir / name, newline="") as file:
            writer = csv.DictWriter(file, columns, lineterminator="\n")
            writer.writeheader()
            for line in lines:
                known = {"positive": events.get(str(line.get("dataset")), "")}
                row = {**known, **line} if "positive" in columns else line
                writer.writerow(study_files.guarded(row))
    return {name: (workdir / name).read_text(encoding="utf-8") for name in tables}


def _summary(one: Summary) -> dict[str, object]:
    return {
        "dataset": one.dataset,
        "init": one.init,
        "settings": one.settings,
        "runs": one.runs,
        "auroc_mean": one.mean,
        "auroc_sd": one.sd,
        "auroc_lowest": one.low,
        "auroc_highest": one.high,
    }


def _comparison(one: Comparison) -> dict[str, object]:
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


def _overall(one: Overall) -> dict[str, object]:
    return {
        "dataset": one.dataset,
        "compared": one.factor,
        "within": one.within,
        "first": one.first,
        "second": one.second,
        "settings": one.effect.settings,
        "left_out": one.left_out,
        "images": one.images,
        "auroc_first": one.aurocs[0],
        "auroc_second": one.aurocs[1],
        "difference": one.effect.value,
        "low": one.effect.low,
        "high": one.effect.high,
        "p": one.effect.p_value,
        "standard_error": one.effect.standard_error,
        "between_sd": one.effect.between,
        "freedom": one.effect.freedom,
    }


def _joined(of: Overall, one: Joined) -> dict[str, object]:
    return {
        "compared": of.factor,
        "within": of.within,
        "first": of.first,
        "second": of.second,
        "tasks": one.tasks,
        "difference": one.value,
        "low": one.low,
        "high": one.high,
        "p": one.p_value,
        "between_sd": one.between,
        "q": one.q,
        "q_p": one.q_p_value,
        "i_squared": one.share,
    }


def _setting(one: Setting) -> dict[str, object]:
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


def _group(one: Mapping[str, Any]) -> dict[str, object]:
    return {**{name: one[name] for name in _GROUP}, "runs": len(one["runs"])}
