"""report.html of a study and the tables beside it, from the study's files alone."""

import base64
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from radimagenet_jax import own_files
from radimagenet_jax.data.tasks import GAINS, TASKS
from radimagenet_jax.errors import DataError, cut
from radimagenet_jax.files import replacing
from radimagenet_jax.reports import study_figures, study_files, study_tables, study_words, svg
from radimagenet_jax.reports.pages import environment
from radimagenet_jax.statistics import comparisons, mixed, settings, tasks
from radimagenet_jax.statistics.comparisons import Comparison, Overall, Summary
from radimagenet_jax.statistics.pooled import Pooled, finished, identity
from radimagenet_jax.statistics.settings import Setting
from radimagenet_jax.statistics.tasks import Joined

# What the page takes from study.json.
_STUDY: Mapping[str, own_files.Form] = {
    "dataset": {"positive": str},
    **dict.fromkeys(("epochs", "image_size", "batch_size"), int),
    "study?": {"tasks?": [str], "note?": str},
    **dict.fromkeys(("task?", "loss?"), str),
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
    events = {name[0]: one.event for name, one in pooled.items()}
    found = comparisons.compare(pooled)
    totals = comparisons.overall(pooled)
    described = settings.describe(pooled)
    summaries = comparisons.summaries(rows)
    origins = study_words.origins(groups, rows)
    joined = _joined(totals)
    files = study_tables.write(
        workdir,
        rows=rows,
        groups=groups,
        events=events,
        summaries=summaries,
        found=found,
        totals=totals,
        joined=joined,
        described=described,
    )
    with svg.drawing():
        boxes = study_figures.boxes(summaries)
        compared = _compared(found, totals, events, origins, groups)
        shown = _shown(workdir, rows, pooled, described)
    page = (
        environment()
        .get_template("study.html")
        .render(
            title=", ".join(dict.fromkeys(row["dataset"] for row in rows)) or workdir.name,
            beside=study_words.beside_title(groups),
            lead=study_words.lead(groups, rows),
            rows=rows,
            failed=[row for row in rows if row["status"] != "ok"],
            summaries=summaries,
            events=events,
            answers=_answers(totals, joined, events),
            joined=_across(joined, totals, summaries, origins, groups),
            gains=GAINS,
            compared=compared,
            settings=described,
            label=_labels(described),
            specificities=settings.SPECIFICITIES,
            test=comparisons.TEST,
            estimator=mixed.ESTIMATOR,
            estimator_of_tasks=tasks.ESTIMATOR,
            boxes=boxes,
            shown=shown,
            groups=groups,
            seconds=sum(group.get("seconds", 0.0) for group in groups),
            warnings=study_words.warnings(config, rows, groups, described),
            methods=study_words.methods(
                config, rows, groups, compared=bool(found), summarised=bool(totals)
            ),
            made=_made(groups),
            weights=_weights(groups, rows),
            images=_images(groups),
            files={name: _inline(text) for name, text in files.items()},
        )
    )
    path = workdir / "report.html"
    with replacing(path, errors="replace") as file:
        file.write(page)
    return path


def _positives(config: Mapping[str, Any], rows: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """The class meant by each task's AUROC, as the engine chose it."""
    named = config.get("study", {}).get("tasks", ())
    # As `plan.has_own_data` has it.
    if len(named) > 1 or (named and named[0] != config.get("task", named[0])):
        unknown = [row["dataset"] for row in rows if row["dataset"] not in TASKS]
        if unknown:
            raise DataError(
                f"study.csv names the task {cut(repr(unknown[0]))}, which is none of "
                f"{', '.join(TASKS)}; {_REMEDY}."
            )
        return {row["dataset"]: TASKS[row["dataset"]].positive for row in rows}
    return {row["dataset"]: config["dataset"]["positive"] for row in rows}


def _joined(totals: Sequence[Overall]) -> list[tuple[Overall, Joined]]:
    """Each pair that several tasks have, over them, with its comparison in the first."""
    pairs: dict[tuple[str, ...], list[Overall]] = {}
    for one in totals:
        if one.effect.standard_error > 0:
            pairs.setdefault((one.factor, one.within, one.first, one.second), []).append(one)
    return [
        (
            own[0],
            tasks.join(
                [one.effect.value for one in own], [one.effect.standard_error for one in own]
            ),
        )
        for own in pairs.values()
        if len(own) > 1
    ]


def _answers(
    totals: Sequence[Overall], joined: Sequence[tuple[Overall, Joined]], events: Mapping[str, str]
) -> list[tuple[str, str]]:
    """The study's questions, each with its answer: over tasks where there are several."""
    if joined:
        return [
            (study_words.question(of), study_words.answer_of_tasks(of, one)) for of, one in joined
        ]
    return [
        (study_words.question(one), study_words.answer(one, events[one.dataset])) for one in totals
    ]


def _across(
    joined: Sequence[tuple[Overall, Joined]],
    totals: Sequence[Overall],
    summaries: Sequence[Summary],
    origins: Mapping[str, str],
    groups: Sequence[Mapping[str, Any]],
) -> list[dict[str, Any]]:
    """Each pair over tasks: the tasks' rows, each with its published gain, and what they have."""
    means = {(one.dataset, one.init): one.mean for one in summaries}
    sections = []
    for of, one in joined:
        own = [
            each
            for each in totals
            if (each.factor, each.within, each.first, each.second)
            == (of.factor, of.within, of.first, of.second)
        ]
        sections.append(
            {
                "of": of,
                "within": study_words.within(of),
                "joined": one,
                "tasks": [
                    {
                        "total": each,
                        "means": [
                            means.get((each.dataset, init)) for init in (each.first, each.second)
                        ],
                        "published": study_words.published(each, origins, groups),
                    }
                    for each in own
                ],
            }
        )
    return sections


def _compared(
    found: Sequence[Comparison],
    totals: Sequence[Overall],
    events: Mapping[str, str],
    origins: Mapping[str, str],
    groups: Sequence[Mapping[str, Any]],
) -> list[dict[str, Any]]:
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
                "event": events[dataset],
                "comparisons": own,
                "totals": [
                    (
                        one,
                        study_words.answer(one, events[dataset]),
                        study_words.published(one, origins, groups),
                    )
                    for one in sums
                ],
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


def _made(groups: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What made the groups: each command on each machine once, with its first and last time."""
    found: dict[tuple[str, ...], dict[str, Any]] = {}
    for one in (group["made_by"] for group in groups if "made_by" in group):
        key = (one["command"], one["device"], repr(one["versions"]))
        times = sorted({one["made"], *found.get(key, {}).get("times", ())})
        found[key] = {
            **one,
            "times": times,
            "made": " to ".join(dict.fromkeys((times[0], times[-1]))),
        }
    return list(found.values())


def _weights(
    groups: Sequence[Mapping[str, Any]], rows: Sequence[Mapping[str, str]]
) -> list[dict[str, Any]]:
    """What each network began with, as its contract says it."""
    of_run = {study_files.run_id(row): row for row in rows}
    found: dict[tuple[str, str, str], dict[str, Any]] = {}
    for group in groups:
        row = next((of_run[run] for run in group["runs"] if run in of_run), None)
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


def _images(groups: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The data sets, each once."""
    known = (group for group in groups if "images" in group)
    return list({group["images"]["name"]: group["images"] for group in known}.values())


def _inline(text: str) -> str:
    """A CSV file as an address inside the page, so that a mailed page still has it."""
    return "data:text/csv;base64," + base64.b64encode(text.encode()).decode()
