"""How often 95 % intervals over patients hold the truth, in simulated test sets.

    python -m tests.benchmarks.coverage [--draws=1000] [--what=auroc|mixed|shares|difference]

Scores are normal; those of a patient's images are correlated (ICC). Unequal numbers of images are
1, 2, 4, 8, 20, 1, ... The tables are in Markdown, as `radimagenet_jax/statistics/README.md` has
them; the last line is one JSON object. Minutes of all cores; exit code 1 if a mean is off.
"""

import argparse
import json
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import norm

from radimagenet_jax.statistics import delong, intervals, shares
from radimagenet_jax.statistics.normal_scores import normal_scores
from radimagenet_jax.statistics.roc import RankedScores

SIZES = ((5, 5), (5, 20), (10, 10), (10, 40), (20, 20), (40, 100))
UNEQUAL = (1, 2, 4, 8, 20)
IMAGES = ("1", "5", "20", "unequal")
AREAS = (0.6, 0.75, 0.9, 0.98)


@dataclass(frozen=True)
class Setting:
    """A kind of test set.

    Attributes:
      patients: With positive and with negative images.
      images: A patient, or 'unequal'.
      icc: Correlation of the scores of a patient's images, of one class or both.
      areas: True AUROCs of one or two classifiers.
      mixed: Whether every second image of a patient with positive images is negative.
      alike: Correlation of the two classifiers' scores of an image.
    """

    patients: tuple[int, int]
    images: str
    icc: float
    areas: tuple[float, ...]
    mixed: bool = False
    alike: float = 0.7


def draw(
    setting: Setting, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, intervals.Units]:
    """Scores (K, N), which images are positive, and their patients."""
    with_positive, with_negative = setting.patients
    count = max(setting.patients) if setting.mixed else with_positive + with_negative
    images = np.resize(UNEQUAL, count)
    if setting.images != "unequal":
        images = np.full(count, int(setting.images))
    member = np.repeat(np.arange(count), images)
    positive = member < with_positive
    if setting.mixed:
        positive &= np.concatenate([np.arange(n) % 2 == 0 for n in images])

    def noise() -> np.ndarray:
        own = rng.normal(size=len(member)) * np.sqrt(1 - setting.icc)
        return rng.normal(size=count)[member] * np.sqrt(setting.icc) + own

    gaps = np.sqrt(2) * norm.ppf(setting.areas)
    common = noise()
    scores = [
        gap * positive + np.sqrt(setting.alike) * common + np.sqrt(1 - setting.alike) * noise()
        for gap in gaps
    ]
    return np.stack(scores), positive, intervals.units([str(name) for name in member])


def covers_area(setting: Setting, rng: np.random.Generator) -> tuple[bool, ...]:
    """Whether the interval of the AUROC holds the truth."""
    found = delong.areas(*draw(setting, rng))
    return (delong.p_value(found, setting.areas[0]) >= 1 - intervals.LEVEL,)


def covers_difference(setting: Setting, rng: np.random.Generator) -> tuple[bool, ...]:
    """Whether the interval of the difference of two AUROCs holds the truth."""
    found = delong.difference(delong.areas(*draw(setting, rng)))
    return (found.low <= setting.areas[0] - setting.areas[1] <= found.high,)


def covers_shares(setting: Setting, rng: np.random.Generator) -> tuple[bool, ...]:
    """Whether those of sensitivity, accuracy and sensitivity at a specificity of 0.9 do."""
    scores, positive, clusters = draw(setting, rng)
    gap = np.sqrt(2) * norm.ppf(setting.areas[0])
    theory = normal_scores(scores, positive, clusters)
    alike = shares.correlation(theory)
    threshold = gap / 2
    right = (scores[0] >= threshold) == positive
    truth = norm.cdf(threshold)
    both = float(np.average(alike, weights=[positive.mean(), 1 - positive.mean()]))
    at = shares.sensitivity_at(
        0.9, float(RankedScores(scores[0], positive).sensitivity_at([0.1])[0, 0]), theory
    )
    found = (
        (shares.interval(right[positive], clusters.index[positive], alike[0]), truth),
        (shares.interval(right, clusters.index, both), truth),
        (at, norm.cdf(gap - norm.ppf(0.9))),
    )
    return tuple(bool(limits and limits[0] <= true <= limits[1]) for limits, true in found)


def settings(what: str) -> Iterator[Setting]:
    """The test sets of a table."""
    for patients in SIZES:
        for images in IMAGES:
            for icc in (0.3, 0.8):
                if images == "1" and (icc > 0.3 or what == "mixed"):
                    continue  # one image has no other to be like
                for area in AREAS:
                    if what == "difference":
                        yield Setting(patients, images, icc, (area, area))
                        yield Setting(patients, images, icc, (area, area - 0.1))
                    else:
                        yield Setting(patients, images, icc, (area,), what == "mixed")


Covers = Callable[[Setting, np.random.Generator], tuple[bool, ...]]
# Titles, how the limits are asked, and by what draws are divided where these have to be searched.
KINDS: dict[str, tuple[tuple[str, ...], Covers, int]] = {
    "auroc": (("AUROC",), covers_area, 1),
    "mixed": (("AUROC, patients with images of both classes",), covers_area, 1),
    "shares": (("sensitivity", "accuracy", "sensitivity at specificity 0.9"), covers_shares, 4),
    "difference": (("difference of two AUROCs",), covers_difference, 4),
}


def coverage(what: str, setting: Setting, draws: int) -> tuple[float, ...]:
    """Shares of intervals that hold the truth."""
    rng = np.random.default_rng(20)
    covers = KINDS[what][1]
    return tuple(np.mean([covers(setting, rng) for _ in range(draws)], axis=0).tolist())


def _job(job: tuple[str, Setting, int]) -> tuple[float, ...]:
    return coverage(*job)


def main() -> int:
    """Prints the tables."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.coverage")
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--what", choices=list(KINDS), default="")
    asked = parser.parse_args()
    result: dict[str, dict[str, Any]] = {}
    for what in [asked.what] if asked.what else KINDS:
        chosen = list(settings(what))
        with ProcessPoolExecutor(os.cpu_count()) as pool:
            jobs = [(what, setting, asked.draws // KINDS[what][2]) for setting in chosen]
            found = np.array(list(pool.map(_job, jobs, chunksize=4)))
        for title, values in zip(KINDS[what][0], 100 * found.T, strict=True):
            lowest, low, high, highest = np.quantile(values, [0, 0.05, 0.95, 1]).round(1).tolist()
            mean = float(values.mean().round(1))
            result[title] = {"mean": mean, "of 90 %": [low, high], "all": [lowest, highest]}
            _print_table(title, chosen, values)
    print(json.dumps(result))
    return int(any(not 93 <= row["mean"] <= 98.5 for row in result.values()))


def _print_table(title: str, chosen: list[Setting], values: np.ndarray) -> None:
    print(f"\n{title}: coverage in % (mean, and the lowest and highest of the settings)\n")
    columns = [(images, icc) for images in IMAGES for icc in (0.3, 0.8)]
    columns = [one for one in columns if any((s.images, s.icc) == one for s in chosen)]
    heads = [f"{i} image{'s' * (i != '1')}" + f", ICC {c}" * (i != "1") for i, c in columns]
    print("| patients | " + " | ".join(heads) + " |")
    print("|---|" + "---|" * len(heads))
    for patients in SIZES:
        cells = []
        for column in columns:
            own = [
                value
                for setting, value in zip(chosen, values, strict=True)
                if setting.patients == patients and (setting.images, setting.icc) == column
            ]
            cells.append(f"{np.mean(own):.1f} ({min(own):.1f}–{max(own):.1f})")
        print(f"| {patients[0]} + {patients[1]} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
