"""report.html: one self-contained page on a training run.

The page has its styles, figures and images inside, no script, and refers to nothing outside,
so that it can be mailed, archived or put into a supplement.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from radimagenet_jax.reports import examples, figures, overlays, pages, svg
from radimagenet_jax.reports import provenance as records
from radimagenet_jax.reports.provenance import Provenance
from radimagenet_jax.statistics import calibration, intervals, metrics, per_class
from radimagenet_jax.statistics.normal_scores import NormalScores, normal_scores
from radimagenet_jax.statistics.scores import Predictions
from radimagenet_jax.wording import counted

REPORT = "report.html"
EXAMPLES = 8  # images a group: one row of the page
SPLITS = {"test": "test", "val": "validation"}


class NewData(TypedDict):
    """What a page says of images that a finished network was given.

    Attributes:
      network: The run or the weights.
      inputs: Where the images are.
      scored: Images that were scored.
      failed: Files and rows that could not be; they are in errors.csv.
      unlabelled: Scored images without a label, which no figure counts.
    """

    network: str
    inputs: str
    scored: int
    failed: int
    unlabelled: int


@dataclass(frozen=True)
class Evaluated:
    """The images that a run's network was judged by, and what it made of them.

    Attributes:
      predictions: Scores of 'test' and 'val'.
      thumbnails: Images (H, W), (H, W, 1) or (H, W, 3) uint8 of the keys that `select_examples`
        gives for the test split; a missing one leaves its frame empty.
      positive: Index of the positive class of two, the last one by default.
      maps: Activation maps (h, w) of these keys, of the positive class of two, else of the class
        that an image is called; a missing one leaves its image alone.
    """

    predictions: Mapping[str, Predictions]
    thumbnails: Mapping[str, NDArray[np.uint8]]
    positive: int | None = None
    maps: Mapping[str, NDArray[np.floating]] = field(default_factory=dict)

    @property
    def limit(self) -> float:
        """Of the maps' common scale, in units of the logit."""
        return overlays.common_limit(np.stack([*self.maps.values()])) if self.maps else 1.0

    def overlay(self, key: str) -> NDArray[np.uint8] | None:
        """An image with its map over it, None if either is missing."""
        image, raw = self.thumbnails.get(key), self.maps.get(key)
        if image is None or raw is None:
            return None
        # Large enough that what is drawn over a small image is smooth.
        side = max(1, 208 // max(image.shape[:2]))
        grown = np.repeat(np.repeat(np.atleast_3d(image), side, 0), side, 1)
        return overlays.overlay(grown, raw, self.limit)


def select_examples(predictions: Predictions) -> tuple[str, ...]:
    """Keys of the images that a report shows: for each class the surest, right and wrong.

    Args:
      predictions: Scores of the test split.

    Returns:
      Different keys, at most 2 x `EXAMPLES` a class (in all with more than four classes).
    """
    groups = examples.select(predictions, EXAMPLES)
    return tuple(dict.fromkeys(example.key for group in groups for example in group.examples))


def write_report(
    workdir: Path | str,
    *,
    config: Mapping[str, Any],
    result: Mapping[str, Any],
    history: Sequence[Mapping[str, Any]],
    evaluated: Evaluated,
    provenance: Provenance,
    new_data: NewData | None = None,
) -> Path:
    """Writes report.html into a working directory; it appears whole or not at all.

    Whatever is missing (an aborted run has neither result nor predictions) is left out of the
    page, which says so.

    Args:
      workdir: The directory.
      config: The config as nested dictionaries.
      result: As in result.json, with the figures of `metrics.evaluate` for 'test' and 'val', and
        for two classes those of `operating_points.evaluate` in either's 'operating_points'.
      history: Rows of metrics.jsonl.
      evaluated: The images that the network was judged by, and their scores.
      provenance: Where the figures come from.
      new_data: That of a finished network on new images, in the place of its test split.

    Returns:
      The path of the report.

    Raises:
      DataError: If the file cannot be written.
      ValueError: If a thumbnail is not such an image.
    """
    best_step = result.get("best_step")
    splits = [("new data", result["test"])] if new_data else _splits(result)
    with svg.drawing():
        drawings = {
            "loss": figures.loss_curves(history, best_step),
            "auroc": figures.auroc_curve(history, best_step),
        }
        evaluation = _evaluation(evaluated)
    return pages.write(
        Path(workdir) / REPORT,
        "report.html",
        title=_title(config, provenance),
        lead=_lead(config, provenance, new_data),
        headline=_headline(result),
        result=result,
        splits=splits,
        drawings={name: Markup(drawing) for name, drawing in drawings.items() if drawing},
        best_epoch=_best_epoch(history, best_step),
        evaluation=evaluation,
        strips=_strips(evaluated),
        scale={"limit": evaluated.limit, "gradient": Markup(overlays.gradient())}
        if evaluated.maps
        else None,
        notes=_notes(result, splits, provenance),
        fields=_flat(config),
        provenance=provenance,
        further=_further(result, new_data),
        new_data=new_data,
        totals=_totals(provenance.get("trainable", ())),
        points=_points(splits),
        fewest=intervals.FEWEST,
    )


def _title(config: Mapping[str, Any], provenance: Provenance) -> dict[str, str]:
    dataset = config.get("dataset", {})
    parts = [str(config.get("init", "")), str(config.get("structure", ""))]
    if dataset.get("fold"):
        parts.append(f"fold {dataset['fold']}")
    if "seed" in config:
        parts.append(f"seed {config['seed']}")
    return {
        "dataset": str(dataset.get("name") or "training run"),
        "model": records.title(provenance) or str(config.get("model", "")),
        "details": " · ".join(part for part in parts if part),
    }


def _lead(config: Mapping[str, Any], provenance: Provenance, new_data: NewData | None) -> str:
    """What the page is of, in a sentence or two."""
    if new_data is None:
        return records.training(provenance, config.get("epochs"))
    scored = new_data["scored"]
    images = f"{counted(scored, 'image')} of {new_data['inputs']}"
    return records.application(provenance, images)


def _further(result: Mapping[str, Any], new_data: NewData | None) -> list[tuple[str, str]]:
    """What the result adds to where it comes from, name and text each."""
    rows = [] if new_data is None else [("Run or weights", new_data["network"])]
    if "params_digest" in result:
        rows.append(("Parameters’ digest", str(result["params_digest"])))
    if train := result.get("train"):
        rows.append(("Training", f"{train['steps']:,} steps in {train['seconds']:,.0f} s"))
    return rows


def _headline(result: Mapping[str, Any]) -> dict[str, Any] | None:
    """The test AUROC and the geometry of its interval on a scale, or None without a test."""
    test = result.get("test")
    if not test:
        return None
    auroc, interval = test.get("auroc"), test.get("auroc_ci95")
    shown = [value for value in (auroc, *(interval or ())) if value is not None]
    start = 0.5 if not shown or min(shown) >= 0.5 else 0.0

    def place(value: float) -> float:
        return round(100 * (value - start) / (1 - start), 2)

    return {
        **test,
        "scale": [start, (start + 1) / 2, 1.0],
        "at": None if auroc is None else place(auroc),
        "over": intervals.in_words(
            test.get("n_patients") or 0,
            test.get("n_unknown", 0 if test.get("n_patients") else test["n"]),
        ),
        "from": None if interval is None else place(interval[0]),
        "width": None if interval is None else round(place(interval[1]) - place(interval[0]), 2),
    }


def _splits(result: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    return [(title, result[name]) for name, title in SPLITS.items() if result.get(name)]


def _points(splits: Sequence[tuple[str, Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """The operating points, each with its figures on every split that has it."""
    found: dict[str, dict[str, Any]] = {}
    for title, split in splits:
        for point in split.get("operating_points", ()):
            row = found.setdefault(point["name"], {**point, "splits": []})
            row["splits"].append((title, point))
    return list(found.values())


def _best_epoch(history: Sequence[Mapping[str, Any]], best_step: int | None) -> str:
    for row in history:
        if row.get("split") == "val" and row.get("step") == best_step and "epoch" in row:
            return f"{row['epoch']:g}"
    return ""


def _notes(
    result: Mapping[str, Any],
    splits: Sequence[tuple[str, Mapping[str, Any]]],
    provenance: Provenance,
) -> list[str]:
    """All that must be read with the figures, most general first, each once."""
    notes = list(provenance.get("warnings", ()))
    for title, split in splits:
        notes += [f"{title.capitalize()}: {note}" for note in split.get("notes", ())]
    if not result.get("test"):
        notes.insert(0, "This run has no test result: it did not finish, or has no test set.")
    return list(dict.fromkeys(notes))


def _evaluation(evaluated: Evaluated) -> dict[str, Any] | None:
    """Figures and tables of the test set's scores (the validation set's if there is no test)."""
    predictions = evaluated.predictions
    split = next((name for name in SPLITS if name in predictions), None)
    if split is None or not len(predictions[split].keys):
        return None
    scored = predictions[split]
    names = scored.class_names
    counts = metrics.confusion_matrix(scored.scores, scored.labels)
    shown: dict[str, Any] = {
        "split": split,
        "class_names": names,
        "confusion": per_class.confusion_cells(counts),
        "heat_map": pages.data_uri(figures.heat_map(counts)),
        "confusions": per_class.frequent_confusions(counts, names),
        "per_class": None,
        "roc": None,
        "has_band": False,
        "positive": None,
    }
    if len(names) == 2:
        positive = 1 if evaluated.positive is None else evaluated.positive
        probability, happened = scored.scores[:, positive], scored.labels == positive
        shown |= {"positive": names[positive], "negative": names[1 - positive]}
        shown["histogram"] = Markup(figures.histogram(probability, happened))
        theory = _theory(scored, positive)
        shown["roc"] = _roc(scored, positive, counts, theory)
        shown["has_band"] = theory is not None
    else:
        # With many classes a score is judged by whether the call that it led to was right.
        probability = scored.scores.max(axis=1)
        happened = scored.scores.argmax(axis=1) == scored.labels
        shown["histogram"] = Markup(figures.histogram(probability, ~happened))
        shown["per_class"] = per_class.rows(scored)
    diagram = calibration.reliability(probability, happened)
    shown |= {
        "reliability": Markup(figures.reliability_diagram(diagram)),
        "expected_error": diagram.expected_error,
        "brier": calibration.brier(probability, happened),
    }
    return shown


def _theory(scored: Predictions, positive: int) -> NormalScores | None:
    """How the scores of two classes depend on each other; None of too few patients to tell."""
    clusters, is_positive = intervals.units(scored.patients), scored.labels == positive
    if not intervals.enough(is_positive, clusters):
        return None
    own = np.asarray(scored.scores[None, :, positive], np.float64)
    return normal_scores(own, is_positive, clusters)


def _roc(
    scored: Predictions, positive: int, counts: NDArray[np.int64], theory: NormalScores | None
) -> Markup | None:
    totals = counts.sum(axis=1)
    if not totals.all():
        return None
    recall = counts.diagonal() / totals
    ranked = metrics.rank_classes(scored.scores, scored.labels, positive)[0]
    return Markup(figures.roc(ranked, theory, (1 - recall[1 - positive], recall[positive])))


def _strips(evaluated: Evaluated) -> list[dict[str, Any]]:
    """Groups of examples, each with its image where there is one."""
    scored = evaluated.predictions.get("test")
    if scored is None:
        return []
    names = scored.class_names
    event = None
    if len(names) == 2:
        event = names[1 if evaluated.positive is None else evaluated.positive]
    groups = list(examples.select(scored, EXAMPLES))
    groups.sort(key=lambda group: group.label != event)  # stable: the positive class first
    return [
        {
            "title": _strip_title(group, event),
            "right": group.right,
            "total": group.total,
            "tiles": [
                (
                    one,
                    # Of two classes always the positive one's score, as in the histogram.
                    1 - one.score if event is not None and one.called != event else one.score,
                    pages.thumbnail(evaluated.thumbnails.get(one.key)),
                    pages.thumbnail(evaluated.overlay(one.key)),
                    _caption(group, one, event),
                )
                for one in group.examples
            ],
        }
        for group in groups
    ]


def _strip_title(group: examples.ExampleGroup, event: str | None) -> str:
    if event is not None:
        truth = "True" if group.right else "False"
        sign = "positives" if (group.label == event) == group.right else "negatives"
        call = group.examples[0].called
        return f"{truth} {sign}: {group.label} called {call}"
    verdict = "called right" if group.right else "called wrong"
    return verdict.capitalize() if group.label is None else f"{group.label}, {verdict}"


def _caption(group: examples.ExampleGroup, example: examples.Example, event: str | None) -> str:
    """What the strip's title does not say already."""
    if event is not None or (group.right and group.label is not None):
        return ""
    if group.right or group.label is not None:
        return example.called
    return f"{example.label} called {example.called}"


def _flat(tree: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Leaves of the config as (dotted name, JSON text), in the config's order."""
    leaves: list[tuple[str, str]] = []
    for name, value in tree.items():
        if isinstance(value, Mapping) and value:
            leaves += _flat(value, f"{prefix}{name}.")
        else:
            leaves.append((f"{prefix}{name}", json.dumps(value, ensure_ascii=False, default=str)))
    return leaves


def _totals(rows: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    return {
        field: sum(int(row.get(field) or 0) for row in rows)
        for field in ("layers", "parameters", "trainable")
    }
