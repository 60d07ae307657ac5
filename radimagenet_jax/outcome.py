"""What a finished run leaves: result.json, report.html, and a summary on the terminal."""

import json
import math
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict
from rich.table import Table
from rich.text import Text

from radimagenet_jax.console import console
from radimagenet_jax.data.datasets import SPLITS, Dataset
from radimagenet_jax.errors import cut
from radimagenet_jax.files import write_json
from radimagenet_jax.progress import duration
from radimagenet_jax.reports import provenance
from radimagenet_jax.statistics.scores import Predictions
from radimagenet_jax.training import writers
from radimagenet_jax.training.network import Start
from radimagenet_jax.wording import counted

# (images (N, S, S, 1 or 3) uint8, classes (N,)) -> activation maps (N, h, w).
Maps = Callable[[np.ndarray, np.ndarray], np.ndarray]


def made_of(
    config: ConfigDict, command: Sequence[str], dataset: Dataset, start: Start
) -> provenance.Provenance:
    """What a result was made by and from, with date, versions and hardware.

    Args:
      config: Of the run.
      command: The command line.
      dataset: What was learnt from.
      start: The network before its first step.
    """
    fold = config.dataset.fold
    network = provenance.network(config.model, config.model_options, config.image_size)
    smoke = provenance.is_smoke(shlex.join(command))
    lacks = provenance.reservations(network, config.epochs, config.task)
    from_scratch = config.init == "scratch"
    return {
        **provenance.stamp(command, provenance.devices()),
        "smoke": smoke,
        "less": provenance.less_than_published(lacks, smoke),
        "network": network,
        "weights": None if from_scratch else json.loads(start.contract.to_json()),
        "weights_remarks": [*start.remarks, *start.findings],
        "dataset": {
            "name": dataset.name,
            "fingerprint": dataset.fingerprint,
            "terms": dataset.terms,
            "split": f"fold {fold}" if fold else "the data set's own",
            "sizes": {name: len(getattr(dataset, name)) for name in SPLITS},
        },
        "trainable": [asdict(row) for row in start.program.freeze.rows],
        "warnings": [
            *(f"The initial weights: {finding}" for finding in start.findings),
            *dataset.notes,
        ],
    }


def write(
    workdir: Path,
    config: ConfigDict,
    result: Mapping[str, Any],
    predictions: Mapping[str, Predictions],
    dataset: Dataset,
    record: provenance.Provenance,
    maps: Maps,
) -> dict[str, Any]:
    """Writes report.html and then result.json, whose presence says that the run is finished.

    Returns:
      What result.json holds: the result and where it comes from.
    """
    # matplotlib and jinja2 take seconds to import, which only the end of a run should pay.
    from radimagenet_jax.reports import report

    scored, test = predictions["test"], dataset.test
    positive = dataset.class_names.index(result["positive"])
    shown = report.select_examples(scored)
    places = {key: place for place, key in enumerate(test.keys)}
    chosen = [places[key] for key in shown]
    images = test.read(chosen)
    # Of two classes, a map is for the one whose score is shown; of many, for the one called.
    called = scored.scores[chosen].argmax(axis=1)
    of = np.full(len(chosen), positive) if len(dataset.class_names) == 2 else called
    looked_at = maps(images, of) if len(chosen) else ()
    report.write_report(
        workdir,
        config=config.to_dict(),
        result=dict(result),
        history=writers.read_metrics(workdir),
        evaluated=report.Evaluated(
            predictions,
            dict(zip(shown, images, strict=True)),
            positive,
            dict(zip(shown, looked_at, strict=True)),
        ),
        provenance=record,
    )
    kept = {name: value for name, value in record.items() if name != "trainable"}
    whole: dict[str, Any] = _strict({**result, "provenance": kept})
    write_json(workdir / "result.json", whole, indent=2)
    return whole


def _strict(value: Any) -> Any:
    """The same with null for numbers that JSON has not (NaN and the infinities)."""
    if isinstance(value, Mapping):
        return {key: _strict(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_strict(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def show_epoch(epoch: int, epochs: int, figures: Mapping[str, Any], *, is_best: bool) -> None:
    """Prints one line on the validation after an epoch."""
    auroc = "no AUROC" if figures["auroc"] is None else f"AUROC {figures['auroc']:.4f}"
    console.print(
        f"epoch {epoch}/{epochs}  validation loss {figures['loss']:.4f}  {auroc}"
        f"{'  (best so far)' if is_best else ''}"
    )


def _figure(value: float | None) -> str:
    """A figure for the table; JSON has null for what is not finite."""
    return "-" if value is None else f"{value:.3f}"


def show(result: Mapping[str, Any], workdir: Path) -> None:
    """Prints the figures of a finished run, and where its files are."""
    # Of many classes, the AUROC is the mean of each against the rest.
    positive = cut(result.get("positive", "")) if "sensitivity" in result["test"] else ""
    of = f"; positive: {positive}" if positive else ""
    # As texts, since a class may be called as markup is written.
    table = Table(title=Text(f"lowest validation loss, at step {result['best_step']}{of}"))
    area = f"AUROC of {positive}" if positive else "AUROC"
    for heading in ("split", "images", Text(area), "95 % interval", "accuracy", "loss"):
        table.add_column(heading, justify="left" if heading == "split" else "right")
    for split in ("val", "test"):
        figures = result[split]
        interval = figures["auroc_ci95"]
        table.add_row(
            {"val": "validation", "test": "test"}[split],
            str(figures["n"]),
            _figure(figures["auroc"]),
            "-" if interval is None else f"{interval[0]:.3f} to {interval[1]:.3f}",
            _figure(figures["accuracy"]),
            _figure(figures["loss"]),
        )
    console.print(table)
    test = result["test"]
    if less := result.get("provenance", {}).get("less"):
        console.print(less)
    for warning in test.get("warnings", ()):
        console.print(f"test: {warning}")
    if "macro_f1" in test:
        names = {"top5_accuracy": "top-5 accuracy", "balanced_accuracy": "balanced accuracy"}
        names |= {"macro_f1": "macro F1"}
        shown = (f"{title} {_figure(test.get(name))}" for name, title in names.items())
        console.print(f"test {', '.join(shown)}")
    speed = result["train"]["images_per_second"]
    rate = f", {speed:.1f} images/s" if speed else ""
    epochs = result["train"]["epochs"]
    console.print(
        f"trained {counted(epochs, 'epoch')} in "
        f"{duration(result['train']['seconds'])}{rate}; report: {workdir / 'report.html'}"
    )
