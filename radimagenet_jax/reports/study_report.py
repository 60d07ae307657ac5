"""report.html of a study and the tables beside it, from the study's files alone."""

import base64
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from radimagenet_jax.data.tasks import GAINS
from radimagenet_jax.reports import (
    pages,
    study_figures,
    study_findings,
    study_tables,
    study_words,
    svg,
)
from radimagenet_jax.reports.study_findings import Findings
from radimagenet_jax.statistics import comparisons, mixed, settings, tasks
from radimagenet_jax.statistics.pooled import identity
from radimagenet_jax.statistics.settings import Setting

# How the page names what is compared.
_ASKED = {
    "init": "initialisations",
    "preprocessing": "ways to prepare the input",
    "views": "bounded and unbounded augmentation",
}


def write(workdir: Path) -> Path:
    """Writes the files and returns the page's path; works on a study that is not complete.

    Args:
      workdir: With study.csv, study.json, predictions/, histories/ and groups/.

    Raises:
      DataError: If one of these files is missing or damaged.
    """
    study = study_findings.read(workdir)
    files = study_tables.write(study)
    with svg.drawing():
        boxes = study_figures.boxes(study.summaries)
        compared = _compared(study)
        shown = _shown(study)
    return pages.write(
        workdir / "report.html",
        "study.html",
        study=study,
        title=", ".join(dict.fromkeys(row["dataset"] for row in study.rows)) or workdir.name,
        beside=study_words.beside_title(study),
        lead=study_words.lead(study),
        answers=_answers(study),
        across=_across(study),
        gains=GAINS,
        compared=compared,
        label=_labels(study.settings),
        specificities=settings.SPECIFICITIES,
        test=comparisons.TEST,
        estimator=mixed.ESTIMATOR,
        estimator_of_tasks=tasks.ESTIMATOR,
        boxes=boxes,
        shown=shown,
        warnings=study_words.warnings(study),
        methods=study_words.methods(study),
        made=_made(study),
        weights=_weights(study),
        images={one["name"]: one for one in study.of_groups("images")},
        files={name: _inline(text) for name, text in files.items()},
    )


def _answers(study: Findings) -> list[tuple[str, str]]:
    """The study's questions, each with its answer: over tasks where there are several."""
    if study.across:
        return [
            (study_words.question(one.of), study_words.answer_of_tasks(one)) for one in study.across
        ]
    return [
        (study_words.question(one), study_words.answer(one, study.events[one.dataset]))
        for one in study.totals
    ]


def _across(study: Findings) -> list[dict[str, Any]]:
    """Each pair over tasks: the tasks' rows, each with its published gain, and what they have."""
    means = {(one.dataset, one.init): one.mean for one in study.summaries}
    return [
        {
            "of": one.of,
            "within": study_words.within(one.of),
            "effect": one.effect,
            "tasks": [
                {
                    "total": each,
                    "means": [
                        means.get((each.dataset, init)) for init in (each.first, each.second)
                    ],
                    "published": study_words.published(each, study),
                }
                for each in one.totals
            ],
        }
        for one in study.across
    ]


def _compared(study: Findings) -> list[dict[str, Any]]:
    """Per factor and task: its comparisons, their summaries, and the forest plot."""
    sections = []
    for number, (factor, dataset) in enumerate(
        dict.fromkeys((one.factor, one.dataset) for one in study.comparisons)
    ):
        own = [one for one in study.comparisons if (one.factor, one.dataset) == (factor, dataset)]
        sums = [one for one in study.totals if (one.factor, one.dataset) == (factor, dataset)]
        event = study.events[dataset]
        sections.append(
            {
                "asked": _ASKED[factor],
                "dataset": dataset,
                "event": event,
                "comparisons": own,
                "totals": [
                    (one, study_words.answer(one, event), study_words.published(one, study))
                    for one in sums
                ],
                "forest": study_figures.forest(own, sums, f"forest{number}"),
            }
        )
    return sections


def _shown(study: Findings) -> list[dict[str, Any]]:
    """The best and the median setting of each initialisation of a task, drawn."""
    groups: dict[tuple[str, str], list[Setting]] = {}
    for one in study.settings:
        groups.setdefault((one.name["dataset"], one.name["init"]), []).append(one)
    shown = []
    for number, ((dataset, init), own) in enumerate(groups.items()):
        ranked = sorted(own, key=lambda one: -one.auroc)
        best, median = ranked[0], ranked[len(ranked) // 2]
        keys = [identity(one.name) for one in (best, median)]
        curves = study_figures.rocs(study.pooled[keys[0]], study.pooled[keys[1]], f"roc{number}")
        losses = [
            study_figures.learning(study.histories(key), f"loss{number}{which}")
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


def _labels(described: Sequence[Setting]) -> Callable[[Mapping[str, str]], str]:
    """Names a setting by what sets it apart from the others."""
    always = ("model", "structure", "learning_rate")
    varying = [
        name
        for name in ("seed", "preprocessing", "views")
        if len({one.name[name] for one in described}) > 1
    ]

    def label(name: Mapping[str, str]) -> str:
        further = (f"{each} {name[each]}" for each in varying)
        return " · ".join([*(name[each] for each in always), *further])

    return label


def _made(study: Findings) -> list[dict[str, Any]]:
    """What made the groups: each command on each machine once, with its first and last time."""
    found: dict[tuple[str, ...], dict[str, Any]] = {}
    for one in study.of_groups("made_by"):
        key = (one["command"], one["device"], repr(one["versions"]))
        times = sorted({one["made"], *found.get(key, {}).get("times", ())})
        found[key] = {
            **one,
            "times": times,
            "made": " to ".join(dict.fromkeys((times[0], times[-1]))),
        }
    return list(found.values())


def _weights(study: Findings) -> list[dict[str, Any]]:
    """What each network began with, as its contract says it."""
    found: dict[tuple[str, str, str], dict[str, Any]] = {}
    for group in study.groups:
        row = study.first_of(group)
        if row is None or ("weights" not in group and "features_file" not in group):
            continue
        contract = group.get("weights") or {}
        said = contract.get("origin") or group.get("features_file") or "random weights"
        digest = contract.get("sha256") or group.get("features_sha256") or ""
        found[row["init"], row["model"], digest] = {
            "init": row["init"],
            "model": row["model"],
            "says": said,
            "licence": contract.get("licence", ""),
            "sha256": digest,
            "remarks": group.get("weights_remarks", ()),
        }
    return list(found.values())


def _inline(text: str) -> str:
    """A CSV file as an address inside the page, so that a mailed page still has it."""
    return "data:text/csv;base64," + base64.b64encode(text.encode()).decode()
