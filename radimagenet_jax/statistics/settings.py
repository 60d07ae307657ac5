"""What each setting of a study scored: area, sensitivities, calibration, each with its interval."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from radimagenet_jax.statistics import calibration, delong, intervals
from radimagenet_jax.statistics.pooled import IDENTITY, Pooled
from radimagenet_jax.statistics.roc import RankedScores

SPECIFICITIES = (0.90, 0.95)
RESAMPLES = 1_000
# Images that all resamples of one setting may hold: some seconds of work.
_MOST = 100_000_000


@dataclass(frozen=True)
class Share:
    """A sensitivity with its interval, None where too few images or too many make one."""

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
      low, high: Its 95 % interval (clustered by patient); None for a single patient of a class.
      method: The interval's name, '' where there is none.
      sensitivities: At each of `SPECIFICITIES`, with a percentile bootstrap interval over patients
        in which the threshold is found anew in each resample.
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
    low, high, method = _interval(scored, units, area)
    return Setting(
        dict(zip(IDENTITY, name, strict=True)),
        len(scored.images),
        units.count,
        area,
        low,
        high,
        method,
        _sensitivities(ranked, units, scored),
        calibration.reliability(scored.scores, scored.positive).expected_error,
        calibration.brier(scored.scores, scored.positive),
    )


def _interval(
    scored: Pooled, units: intervals.Units, area: float
) -> tuple[float | None, float | None, str]:
    if min(delong.holders(scored.positive, units)) < delong.FEWEST:
        return None, None, ""
    found = delong.areas(scored.scores[None], scored.positive, scored.patients)
    return delong.interval(area, float(found.covariance[0, 0]), found.holders)


def _sensitivities(
    ranked: RankedScores, units: intervals.Units, scored: Pooled
) -> tuple[Share, ...]:
    rates = 1 - np.array(SPECIFICITIES)
    values = ranked.sensitivity_at(rates)[0]
    if units.count < 2 or RESAMPLES * len(scored.images) > _MOST:
        return tuple(Share(float(value), None, None) for value in values)
    drawn = intervals.bootstrap(
        lambda weights: ranked.sensitivity_at(rates, weights),
        units,
        scored.positive.astype(int),
        count=RESAMPLES,
    )
    return tuple(
        Share(float(value), *intervals.percentile_interval(column))
        for value, column in zip(values, drawn.T, strict=True)
    )
