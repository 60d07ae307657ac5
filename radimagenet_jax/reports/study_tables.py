"""The CSV files beside a study's page, each the whole of a table that the page shows."""

from collections.abc import Callable, Mapping, Sequence
from operator import attrgetter, itemgetter
from typing import Any

from radimagenet_jax.reports import study_files
from radimagenet_jax.reports.study_findings import Findings
from radimagenet_jax.statistics.pooled import IDENTITY
from radimagenet_jax.statistics.settings import SPECIFICITIES

# A table's columns, each with what reads its cell off a row; None for the positive class, which is
# not the row's but its data set's.
Columns = Mapping[str, Callable[[Any], object] | None]


def _attributes(*names: str, **others: str) -> Columns:
    """Columns that are called as the attribute they show, then those that are called otherwise."""
    return {name: attrgetter(others.get(name, name)) for name in (*names, *others)}


def _difference(within: str) -> Columns:
    return _attributes(
        difference=f"{within}.value",
        low=f"{within}.low",
        high=f"{within}.high",
        p=f"{within}.p_value",
    )


def _of_setting(name: str) -> Callable[[Any], object]:
    return lambda one: one.setting.get(name, "")  # a pair's lacks what is compared


def _of_name(name: str) -> Callable[[Any], object]:
    return lambda one: one.name[name]


def _sensitivity(place: int, limit: str) -> Callable[[Any], object]:
    return lambda one: getattr(one.sensitivities[place], limit)


_TASK: Columns = {"dataset": attrgetter("dataset"), "positive": None}
_AUROCS: Columns = {
    "auroc_first": lambda one: one.aurocs[0],
    "auroc_second": lambda one: one.aurocs[1],
}
_SUMMARY: Columns = {
    **_TASK,
    **_attributes("init", "settings", "runs", auroc_mean="mean", auroc_sd="sd"),
    **_attributes(auroc_lowest="low", auroc_highest="high"),
}
_COMPARISON: Columns = {
    **_TASK,
    **_attributes(compared="factor"),
    **{name: _of_setting(name) for name in IDENTITY if name != "dataset"},
    **_attributes("first", "second", "images"),
    **_AUROCS,
    **_difference("difference"),
    **_attributes(
        p_holm="corrected",
        effect_d="difference.effect",
        effect_d_low="difference.effect_low",
        effect_d_high="difference.effect_high",
    ),
}
_OVERALL: Columns = {
    **_TASK,
    **_attributes(compared="factor"),
    **_attributes("within", "first", "second", settings="effect.settings"),
    **_attributes("left_out", "images"),
    **_AUROCS,
    **_difference("effect"),
    **_attributes(
        standard_error="effect.standard_error",
        between_sd="effect.between",
        freedom="effect.freedom",
    ),
}
_ACROSS: Columns = {
    **_attributes(compared="of.factor", within="of.within", first="of.first", second="of.second"),
    **_attributes(tasks="effect.tasks"),
    **_difference("effect"),
    **_attributes(between_sd="effect.between", q="effect.q", q_p="effect.q_p_value"),
    **_attributes(i_squared="effect.share"),
}
_SETTING: Columns = {
    **{name: _of_name(name) for name in IDENTITY},
    "positive": None,
    **_attributes("images", units="patients", auroc="auroc", auroc_low="low", auroc_high="high"),
    **_attributes(auroc_interval="method"),
    **{
        f"sensitivity_at_{specificity:.2f}{end}": _sensitivity(place, limit)
        for place, specificity in enumerate(SPECIFICITIES)
        for end, limit in (("", "value"), ("_low", "low"), ("_high", "high"))
    },
    **_attributes("ece", "brier"),
}
_FAILED: Columns = {name: itemgetter(name) for name in (*IDENTITY, "fold", "reason")}
_GROUP: Columns = {
    "group": itemgetter("group"),
    "runs": lambda group: len(group["runs"]),
    "shared_trunk": itemgetter("shared_trunk"),
    "seconds": itemgetter("seconds"),
}


def write(study: Findings) -> dict[str, str]:
    """Writes the tables into the study's folder, those without a row too.

    Returns:
      Each file's text by its name.
    """
    tables: dict[str, tuple[Columns, Sequence[Any]]] = {
        "summaries.csv": (_SUMMARY, study.summaries),
        "comparisons.csv": (_COMPARISON, study.comparisons),
        "overall.csv": (_OVERALL, study.totals),
        "tasks.csv": (_ACROSS, study.across),
        "settings.csv": (_SETTING, study.settings),
        "failed.csv": (_FAILED, study.failed),
        "groups.csv": (_GROUP, study.groups),
    }
    for name, (columns, lines) in tables.items():
        rows = [{column: read(line) for column, read in columns.items() if read} for line in lines]
        for row in rows if "positive" in columns else ():
            row["positive"] = study.events[str(row["dataset"])]
        study_files.write_table(study.workdir / name, [*columns], rows)
    return {name: (study.workdir / name).read_text(encoding="utf-8") for name in tables}
