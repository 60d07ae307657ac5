"""What each setting of a study scored: area, sensitivities, calibration, each with its interval."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from radimagenet_jax.statistics import calibration, delong, intervals, shares
from radimagenet_jax.statistics.pooled import IDENTITY, Pooled
from radimagenet_jax.statistics.roc import RankedScores

SPECIFICITIES = (0.90, 0.95)


@dataclass(frozen=True)
class Share:
    """A sensitivity with its interval, None where there are too few patients for one."""

    value: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Setting:
    """A setting's pooled out-of-fold test scores, in figures.

    Attributes:
      name: The columns of `pooled.IDENTITY`.
      images: Test images over all folds.
      patients: Independent units: patients, or images where the patient is not known.
      auroc: Over the pooled images.
      low, high: Its 95 % interval (clustered by patient); None where a class has too few patients.
      method: The interval's name, '' where there is none.
      sensitivities: At each of `SPECIFICITIES`, with an interval over patients that counts the
        threshold as unsure.
      ece: Expected calibration error of ten bins of equal width.
      brier: Brier score.
    """

    name: Mapping[str, str]
    images: int
    patients: int
    auroc: float
    low: float | None
    high: float | None
    method: str
    sensitivities: tuple[Share, ...]
    ece: float
    brier: float


def describe(pooled: Mapping[tuple[str, ...], Pooled]) -> list[Setting]:
    """Computes the figures of each setting that has images of both classes.

    Args:
      pooled: Each setting's scores, by `pooled.identity`.
    """
    return [
        _describe(name, scored)
        for name, scored in pooled.items()
        if scored.positive.any() and not scored.positive.all()
    ]


def _describe(name: Sequence[str], scored: Pooled) -> Setting:
    ranked = RankedScores(scored.scores, scored.positive)
    units = intervals.units(scored.patients)
    area = float(ranked.auroc()[0])
    found = None
    if intervals.enough(scored.positive, units):
        found = delong.areas(scored.scores[None], scored.positive, units)
    low, high, method = _limits(found, units)
    return Setting(
        dict(zip(IDENTITY, name, strict=True)),
        len(scored.images),
        units.count,
        area,
        low,
        high,
        method,
        _sensitivities(ranked, found),
        calibration.reliability(scored.scores, scored.positive).expected_error,
        calibration.brier(scored.scores, scored.positive),
    )


def _limits(
    found: delong.Areas | None, units: intervals.Units
) -> tuple[float | None, float | None, str]:
    if found is None:
        return None, None, ""
    return *delong.interval(found), delong.METHOD + (delong.CLUSTERED if units.patients else "")


def _sensitivities(ranked: RankedScores, found: delong.Areas | None) -> tuple[Share, ...]:
    values = ranked.sensitivity_at(1 - np.array(SPECIFICITIES))[0].tolist()
    joined = []
    for specificity, value in zip(SPECIFICITIES, values, strict=True):
        limits = shares.sensitivity_at(specificity, value, found.theory) if found else None
        joined.append(Share(value, *(limits or (None, None))))
    return tuple(joined)
