"""The figures of a report, each a function from numbers to inline SVG, or to a picture.

No text of a user's (class names, keys) is drawn: names stand in the page around a figure.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from radimagenet_jax.reports import svg
from radimagenet_jax.statistics import shares
from radimagenet_jax.statistics.calibration import Reliability
from radimagenet_jax.statistics.normal_scores import NormalScores
from radimagenet_jax.statistics.roc import RankedScores

_WIDTH, _HEIGHT, _SQUARE = 480, 270, 360  # CSS pixels
_MARGINS = 54, 12, 46, 10  # left, right, bottom, top
_MOST_POINTS = 300  # a curve of more is averaged: a page 480 pixels wide shows no more
_BAND_POINTS = 101
_HISTOGRAM_BINS = 20
_HEAT_MAP_COLOUR = (15, 106, 139)  # of 8 bits; its opacity is the share, so it suits any page


def loss_curves(history: Sequence[Mapping[str, Any]], best_step: int | None) -> str | None:
    """Training and validation loss over the run, or None if no loss was logged.

    Args:
      history: Rows of metrics.jsonl.
      best_step: Marked, where it is known.
    """
    train, val = _series(history, "train", "loss"), _series(history, "val", "loss")
    if not len(train) and not len(val):
        return None
    figure, axes = _axes(_WIDTH, _HEIGHT)
    _mark_best(axes, val, best_step)
    thin = _averaged(train)
    _plot(axes, thin[:, 1:], svg.SECONDARY)
    _plot(axes, val[:, 1:], svg.PRIMARY)
    _label(axes, history, "loss (nats)")
    _widen(axes, thin[:, 2], val[:, 2])
    top = _sensible_top(thin[:, 2], val[:, 2])
    if top is not None:
        axes.set_ylim(top=top)
    return svg.to_inline(figure, "loss", "Training and validation loss over the epochs.")


def auroc_curve(history: Sequence[Mapping[str, Any]], best_step: int | None) -> str | None:
    """Validation AUROC over the run, or None if it was not logged.

    Args:
      history: Rows of metrics.jsonl.
      best_step: Marked, where it is known.
    """
    val = _series(history, "val", "auroc")
    if not len(val):
        return None
    figure, axes = _axes(_WIDTH, _HEIGHT)
    _mark_best(axes, val, best_step)
    _plot(axes, val[:, 1:], svg.PRIMARY)
    _label(axes, history, "AUROC")
    # An AUROC's whole range that means anything, so that noise does not look like learning.
    low = min(0.5, float(val[:, 2].min()) - 0.02)
    axes.set_ylim(low, 1.005)
    if low < 0.5:
        axes.axhline(0.5, color=svg.MUTED, linewidth=1, linestyle=(0, (2, 3)))
    return svg.to_inline(figure, "auroc", "Validation AUROC over the epochs.")


def roc(
    ranked: RankedScores,
    theory: NormalScores | None,
    operating_point: tuple[float, float] | None,
) -> str:
    """The ROC curve with a pointwise 95 % band, the intervals of its sensitivities.

    Args:
      ranked: Scores of the positive class.
      theory: How these depend on each other; None for no band.
      operating_point: (false positive rate, sensitivity) at threshold 0.5, marked.
    """
    figure, axes = _axes(_SQUARE, _SQUARE)
    axes.plot([0, 1], [0, 1], color=svg.MUTED, linewidth=1, linestyle=(0, (2, 3)))
    if theory is not None:
        grid = np.linspace(0, 1, _BAND_POINTS)
        sensitivities = ranked.sensitivity_at(grid)[0]
        limits = [
            shares.sensitivity_at(1 - rate, float(value), theory) or (0, 1)
            for rate, value in zip(grid, sensitivities, strict=True)
        ]
        low, high = np.array(limits).T
        # A curve never falls, and neither do its limits: each holds for what lies beyond it.
        low, high = np.maximum.accumulate(low), np.minimum.accumulate(high[::-1])[::-1]
        axes.fill_between(grid, low, high, color=svg.PRIMARY, alpha=0.16, linewidth=0)
    curve = ranked.curve()
    points = _without_flat_runs(curve.false_positive_rate, curve.true_positive_rate)
    axes.plot(*points.T, color=svg.PRIMARY, linewidth=2, clip_on=False)
    if operating_point is not None:
        axes.plot(*operating_point, "o", color=svg.CONTRAST, markersize=7, clip_on=False)
    _unit_square(axes, "1 \u2212 specificity", "sensitivity")
    return svg.to_inline(
        figure, "roc", "ROC curve of the test set with its pointwise 95 % interval."
    )


def heat_map(counts: ArrayLike) -> Image.Image:
    """A confusion matrix as a picture, one pixel a cell, opaque where all of a label's images are.

    Args:
      counts: (C, C), rows the label, columns the call.
    """
    counts = np.asarray(counts, np.float64)
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    picture: NDArray[np.uint8] = np.zeros((*counts.shape, 4), np.uint8)
    picture[..., :3] = _HEAT_MAP_COLOUR
    # The square root lifts rare mistakes to where an eye sees them.
    picture[..., 3] = np.round(255 * np.sqrt(share))
    return Image.fromarray(picture)


def histogram(scores: ArrayLike, in_front: ArrayLike) -> str:
    """Histograms of the scores of two groups of examples, on one axis.

    Args:
      scores: (N,) in [0, 1].
      in_front: (N,) bool, which examples are drawn in the contrasting colour; each group is
        shown as shares of its own size, so that a rare one can be compared.
    """
    scores, in_front = np.asarray(scores), np.asarray(in_front, bool)
    figure, axes = _axes(_WIDTH, _SQUARE)
    edges = np.linspace(0, 1, _HISTOGRAM_BINS + 1)
    for members, colour in ((~in_front, svg.SECONDARY), (in_front, svg.CONTRAST)):
        if members.any():
            share = np.histogram(scores[members], edges)[0] / members.sum()
            axes.stairs(share, edges, fill=True, color=colour, alpha=0.28, linewidth=0)
            axes.stairs(share, edges, color=colour, linewidth=1.6)
    axes.set_xlim(0, 1)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("score")
    axes.set_ylabel("share of its group")
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=" %"))
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.grid(visible=False, axis="x")
    return svg.to_inline(figure, "scores", "Histogram of the scores of two groups of images.")


def reliability_diagram(diagram: Reliability) -> str:
    """Observed share against predicted probability, with 95 % intervals and the bins' sizes."""
    figure, axes = _axes(_SQUARE, _SQUARE)
    axes.plot([0, 1], [0, 1], color=svg.MUTED, linewidth=1, linestyle=(0, (2, 3)))
    axes.vlines(
        diagram.predicted, diagram.low, diagram.high, color=svg.PRIMARY, alpha=0.45, linewidth=1.4
    )
    # A dot's area is the number of images in it, down to a size that can still be seen.
    area = np.maximum(150 * diagram.counts / diagram.counts.max(), 14)
    axes.scatter(
        diagram.predicted,
        diagram.observed,
        s=area,
        color=svg.PRIMARY,
        linewidths=0,
        clip_on=False,
        zorder=3,
    )
    _unit_square(axes, "predicted probability", "observed share")
    return svg.to_inline(
        figure, "reliability", "Observed share of the event against predicted probability."
    )


def threshold_curve(
    name: str,
    x_label: str,
    curves: Mapping[str, tuple[ArrayLike, ArrayLike]],
    *,
    line: float,
    chosen: tuple[float, float] | None,
    top: float,
) -> str:
    """Mean Dice against a threshold.

    Args:
      name: Of the figure, unique in the page.
      x_label: What the threshold is.
      curves: (thresholds, mean Dice) by colour of `svg`.
      line: Mean Dice of what has no threshold, drawn across.
      chosen: The threshold that was chosen and its mean Dice, marked; None if it is none of these.
      top: End of the axis, so that several figures can be compared.
    """
    figure, axes = _axes(_WIDTH, _HEIGHT)
    axes.axhline(line, color=svg.MUTED, linewidth=1, linestyle=(0, (2, 3)))
    for colour, (x, y) in curves.items():
        axes.plot(x, y, color=colour)
    if chosen is not None:
        axes.axvline(chosen[0], color=svg.CONTRAST, linewidth=1, linestyle=(0, (4, 3)))
        axes.plot(*chosen, "o", color=svg.CONTRAST, markersize=7, zorder=3)
    axes.set_xlim(0, 1)
    axes.set_ylim(0, top)
    axes.set_xlabel(x_label)
    axes.set_ylabel("mean Dice")
    axes.yaxis.set_major_locator(MaxNLocator(6))
    axes.grid(visible=False, axis="x")
    return svg.to_inline(figure, name, f"Mean Dice against the threshold: {x_label}.")


def _axes(width: int, height: int) -> tuple[Figure, Axes]:
    # One unit of an SVG of matplotlib is a point, 1/72 inch; the page takes it for a pixel.
    # Fixed margins, since an automatic layout measures each text several times over.
    figure = Figure(figsize=(width / 72, height / 72))
    left, right, bottom, top = _MARGINS
    axes = figure.subplots(
        gridspec_kw={
            "left": left / width,
            "right": 1 - right / width,
            "bottom": bottom / height,
            "top": 1 - top / height,
        }
    )
    return figure, axes


def _unit_square(axes: Axes, x_label: str, y_label: str) -> None:
    axes.set_aspect("equal")
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    ticks = np.linspace(0, 1, 6)
    axes.set_xticks(ticks)
    axes.set_yticks(ticks)
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)


def _series(history: Sequence[Mapping[str, Any]], split: str, figure: str) -> NDArray[np.float64]:
    """Rows (K, 3) of step, position on the axis, value; those without a finite value left out."""
    rows = [
        (float(row["step"]), float(row.get("epoch", row["step"])), float(row[figure]))
        for row in history
        if row.get("split") == split and row.get(figure) is not None
    ]
    values = np.asarray(rows, np.float64).reshape(-1, 3)
    return values[np.isfinite(values).all(axis=1)]


def _averaged(series: NDArray[np.float64]) -> NDArray[np.float64]:
    if len(series) <= _MOST_POINTS:
        return series
    size = math.ceil(len(series) / _MOST_POINTS)
    parts = np.split(series, range(size, len(series), size))
    return np.stack([part.mean(axis=0) for part in parts])


def _plot(axes: Axes, points: NDArray[np.float64], colour: str) -> None:
    marker = "o" if len(points) <= 40 else None
    width = 1.8 if marker else 1.2
    axes.plot(*points.T, color=colour, marker=marker, markersize=3.5, linewidth=width)


def _mark_best(axes: Axes, val: NDArray[np.float64], best_step: int | None) -> None:
    chosen = val[val[:, 0] == best_step] if best_step is not None else val[:0]
    if len(chosen):
        _, x, y = chosen[-1]
        axes.axvline(x, color=svg.CONTRAST, linewidth=1, linestyle=(0, (4, 3)))
        axes.plot([x], [y], "o", color=svg.CONTRAST, markersize=7, zorder=3)


def _label(axes: Axes, history: Sequence[Mapping[str, Any]], figure: str) -> None:
    axes.set_xlabel("epoch" if any("epoch" in row for row in history) else "step")
    axes.set_ylabel(figure)
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=np.ptp(axes.get_xlim()) > 3, min_n_ticks=1))
    axes.yaxis.set_major_locator(MaxNLocator(6))
    axes.grid(visible=False, axis="x")
    axes.margins(x=0.02)
    places = {x for line in axes.lines for x in np.asarray(line.get_xdata(), float).tolist()}
    if len(places) == 1:
        # One epoch is one tick, not a range of fractions around it.
        only = places.pop()
        axes.set_xlim(only - 1, only + 1)
        axes.set_xticks([only])


def _widen(axes: Axes, *series: NDArray[np.float64]) -> None:
    """Shows losses that hardly differ from zero on, not spread over the whole height."""
    values = np.concatenate(series)
    if np.ptp(values) < 0.1 * abs(values.max()):
        axes.set_ylim(0, 1.15 * float(values.max()))


def _sensible_top(train: NDArray[np.float64], val: NDArray[np.float64]) -> float | None:
    """Upper limit that a spike of the first steps does not set, None where there is none."""
    if len(train) < 20:
        return None
    usual = max(float(np.quantile(train, 0.95)), float(val.max(initial=-math.inf)))
    return usual * 1.1 if train.max() > 2 * usual else None


def _without_flat_runs(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """Corners (K, 2) of a step curve: points in the middle of a straight line are left out."""
    points = np.stack([x, y], axis=1)
    before, after = np.diff(points[:-1], axis=0), np.diff(points[1:], axis=0)
    turns = np.abs(before[:, 0] * after[:, 1] - before[:, 1] * after[:, 0]) > 1e-15
    return points[np.concatenate([[True], turns, [True]])]
