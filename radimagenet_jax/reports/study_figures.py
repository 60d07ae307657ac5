"""The figures of a study's page, each a function from numbers to inline SVG."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from radimagenet_jax.reports import svg
from radimagenet_jax.statistics.comparisons import Comparison, Overall, Summary
from radimagenet_jax.statistics.pooled import Pooled
from radimagenet_jax.statistics.roc import RankedScores

_WIDTH = 960 / 72  # the page's column, in inches of 72 pixels
_HALF = 460 / 72
_ALPHA = 0.05
_LABELS = 10


def boxes(table: Sequence[Summary]) -> str | None:
    """Box plots of the settings' AUROC, each setting a point; None without any.

    Args:
      table: One box each.
    """
    if not table:
        return None
    figure, axes = _rows(len(table), 46)
    places = list(range(len(table), 0, -1))
    axes.boxplot(
        [list(one.values) for one in table],
        positions=places,
        orientation="horizontal",
        widths=0.5,
        showfliers=False,
        medianprops={"color": svg.PRIMARY, "linewidth": 2},
        boxprops={"color": svg.MUTED},
        whiskerprops={"color": svg.MUTED},
        capprops={"color": svg.MUTED},
    )
    for place, one in zip(places, table, strict=True):
        axes.plot(
            one.values, [place] * len(one.values), "o", color=svg.PRIMARY, alpha=0.45, ms=4.5, mew=0
        )
    _label_rows(axes, [f"{one.dataset} · {one.init}" for one in table])
    axes.set_xlabel("AUROC of a setting, mean of its folds")
    return svg.to_inline(figure, "boxes", "AUROC of all settings, a box for each initialisation.")


def forest(found: Sequence[Comparison], summaries: Sequence[Overall], name: str) -> str | None:
    """Paired differences with their intervals, a line for each setting; None without any.

    Args:
      found: A line each.
      summaries: Shown below them, as diamonds.
      name: Of the figure, unique in the page.
    """
    if not found:
        return None
    figure, axes = _rows(len(found) + len(summaries), 24)
    count = len(found) + len(summaries)
    for place, one in zip(range(count, 0, -1), found, strict=False):
        colour = svg.CONTRAST if one.corrected < _ALPHA else svg.PRIMARY
        axes.plot([one.difference.low, one.difference.high], [place] * 2, color=colour, lw=1.6)
        axes.plot(one.difference.value, place, "s", color=colour, ms=5.5, mew=0)
    for place, total in zip(range(len(summaries), 0, -1), summaries, strict=True):
        effect = total.effect
        x = [effect.low, effect.value, effect.high, effect.value]
        axes.fill(x, [place, place + 0.3, place, place - 0.3], color=svg.INK, linewidth=0)
    if summaries:
        axes.axhline(len(summaries) + 0.5, color=svg.LINE, linewidth=1)
    axes.axvline(0, color=svg.MUTED, linewidth=1)
    _label_rows(axes, [_named(one) for one in found] + ["mean over settings" for _ in summaries])
    axes.set_xlabel("difference in AUROC")
    return svg.to_inline(figure, name, "Paired differences in AUROC with their 95 % intervals.")


def rocs(best: Pooled, median: Pooled, name: str) -> str:
    """ROC curves of two settings on their pooled test scores.

    Args:
      best: Drawn in the primary colour.
      median: Drawn in the secondary colour.
      name: Of the figure, unique in the page.
    """
    figure = Figure(figsize=(_HALF, _HALF * 0.82), layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color=svg.MUTED, linewidth=1, linestyle=(0, (2, 3)))
    for scored, colour in ((median, svg.SECONDARY), (best, svg.PRIMARY)):
        curve = RankedScores(scored.scores, scored.positive).curve()
        axes.plot(curve.false_positive_rate, curve.true_positive_rate, color=colour, linewidth=2)
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1.01)
    axes.set_aspect("equal")
    axes.set_xlabel("1 \u2212 specificity")
    axes.set_ylabel("sensitivity")
    return svg.to_inline(figure, name, "ROC curves of the best and the median setting.")


def learning(histories: Sequence[Sequence[Mapping[str, Any]]], name: str) -> str | None:
    """Training and validation loss of a setting's folds over the epochs; None without any.

    Args:
      histories: A fold each; rows with 'epoch', 'train_loss' and 'val_loss'.
      name: Of the figure, unique in the page.
    """
    if not any(row["val_loss"] is not None for rows in histories for row in rows):
        return None
    figure = Figure(figsize=(_HALF, _HALF * 0.56), layout="constrained")
    axes = figure.subplots()
    for rows in histories:
        for column, colour in (("train_loss", svg.SECONDARY), ("val_loss", svg.PRIMARY)):
            points = [(row["epoch"], row[column]) for row in rows if row[column] is not None]
            if points:
                axes.plot(*zip(*points, strict=True), color=colour, alpha=0.8, marker="o", ms=3)
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    axes.set_xlabel("epoch")
    axes.set_ylabel("loss (nats)")
    axes.grid(visible=False, axis="x")
    return svg.to_inline(figure, name, "Training and validation loss over the epochs, by fold.")


def _rows(count: int, height: int) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(_WIDTH, (70 + height * count) / 72), layout="constrained")
    axes = figure.subplots()
    axes.set_ylim(0.4, count + 0.6)
    return figure, axes


def _label_rows(axes: Axes, texts: Sequence[str]) -> None:
    axes.set_yticks(range(len(texts), 0, -1), texts, fontsize=_LABELS)
    axes.grid(visible=False, axis="y")


def _named(one: Comparison) -> str:
    setting = one.setting
    return (
        f"{setting['model']} · {setting['structure']} · {float(setting['learning_rate']):g}: "
        f"{one.first} \u2212 {one.second}"
    )
