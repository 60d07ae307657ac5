"""What a study says: mean and SD over its settings, and paired differences of what it compares."""

import itertools
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from radimagenet_jax.statistics import delong, intervals, mixed
from radimagenet_jax.statistics.pooled import EMBEDDING, IDENTITY, Pooled, Row, finished, identity

# What runs are compared by, all else being the same; the initialisation is the study's question.
FACTORS = ("init", "preprocessing", "views")
TEST = (
    "paired score test with DeLong's variance clustered by patient (Obuchowski 1997), Holm's "
    "correction"
)


@dataclass(frozen=True)
class Summary:
    """An initialisation on a task, as the published table has it.

    Attributes:
      dataset: The task's data set.
      init: The initialisation.
      settings: Number of settings.
      runs: Number of runs, over all folds.
      mean: Of the settings' AUROC, each the mean of its folds on their test images.
      sd: Of the same, None for one setting.
      low: The lowest.
      high: The highest.
      values: One AUROC a setting.
    """

    dataset: str
    init: str
    settings: int
    runs: int
    mean: float
    sd: float | None
    low: float
    high: float
    values: tuple[float, ...]


@dataclass(frozen=True)
class Comparison:
    """Two initialisations, preprocessings or numbers of views in a setting, on the same images.

    Attributes:
      dataset: The task's data set.
      factor: What is compared, of `FACTORS`.
      setting: The other columns of `pooled.IDENTITY`, by name.
      first: A value of the factor.
      second: Another.
      images: Test images that were compared.
      aurocs: Of both, over the pooled images.
      difference: The first's AUROC minus the second's, with interval, p-value and effect size.
      corrected: The p-value after Holm's correction over all comparisons of the task and factor.
    """

    dataset: str
    factor: str
    setting: Mapping[str, str]
    first: str
    second: str
    images: int
    aurocs: tuple[float, float]
    difference: delong.Difference
    corrected: float


@dataclass(frozen=True)
class Overall:
    """Two initialisations over all settings of a task that have the same test images.

    Attributes:
      dataset: The task's data set.
      factor: What is compared, of `FACTORS`.
      within: What else the settings have in common, such as 'published'.
      first: A value of the factor.
      second: Another.
      images: Test images, the same in all settings.
      left_out: Settings that have both but lack some of these images.
      aurocs: The mean AUROC of both over the settings, each on its pooled images.
      effect: The mean difference over the settings.
    """

    dataset: str
    factor: str
    within: str
    first: str
    second: str
    images: int
    left_out: int
    aurocs: tuple[float, float]
    effect: mixed.Effect


def summaries(rows: Sequence[Row]) -> list[Summary]:
    """Returns the published table: mean and sample SD of AUROC over the settings."""
    settings: dict[tuple[str, str], dict[tuple[str, ...], list[float]]] = {}
    for row in finished(rows):
        own = settings.setdefault((row["dataset"], row["init"]), {})
        own.setdefault(identity(row), []).append(float(row["auroc_test"]))
    found = []
    for (dataset, init), own in settings.items():
        values = tuple(statistics.fmean(folds) for folds in own.values())
        found.append(
            Summary(
                dataset,
                init,
                len(values),
                sum(map(len, own.values())),
                statistics.fmean(values),
                statistics.stdev(values) if len(values) > 1 else None,
                min(values),
                max(values),
                values,
            )
        )
    return found


def compare(pooled: Mapping[tuple[str, ...], Pooled]) -> list[Comparison]:
    """Compares each two values of each factor in each setting that both have finished.

    Args:
      pooled: Each setting's scores, by `pooled.identity`.

    Returns:
      The comparisons, those of initialisations first; a setting is left out where fewer than
      `intervals.FEWEST` patients of a class are there.
    """
    found: list[Comparison] = []
    for factor in FACTORS:
        for setting, (first, second), (one, other) in _pairs(pooled, factor):
            images = sorted(set(one.images) & set(other.images))
            areas = _areas([one, other], images)
            if areas is None:
                continue
            found.append(
                Comparison(
                    setting["dataset"],
                    factor,
                    setting,
                    first,
                    second,
                    len(images),
                    (float(areas.auroc[0]), float(areas.auroc[1])),
                    delong.difference(areas),
                    1.0,
                )
            )
    return list(_corrected(found))


def overall(pooled: Mapping[tuple[str, ...], Pooled]) -> list[Overall]:
    """Summarises each comparison over the settings of a task, as `mixed` does.

    Settings with fewer test images than the fullest one (a fold has failed) are left out, so that
    all speak of the same patients; there is no summary of fewer than two.

    Args:
      pooled: Each setting's scores, by `pooled.identity`.
    """
    groups: dict[tuple[str, ...], list[tuple[Pooled, Pooled]]] = {}
    for factor in FACTORS:
        for setting, names, pair in _pairs(pooled, factor):
            kept = [setting[name] for name in FACTORS if name != factor]
            groups.setdefault((setting["dataset"], factor, " · ".join(kept), *names), []).append(
                pair
            )
    found = []
    for (dataset, factor, within, first, second), pairs in groups.items():
        common = [set(one.images) & set(other.images) for one, other in pairs]
        fullest = max(common, key=len)
        chosen = [pair for pair, own in zip(pairs, common, strict=True) if own >= fullest]
        areas = _areas([scored for pair in chosen for scored in pair], sorted(fullest))
        if len(chosen) < 2 or areas is None:
            continue
        contrast = np.kron(np.eye(len(chosen)), np.array([[1.0, -1.0]])).astype(np.float64)
        effect = mixed.mean_effect(
            contrast @ areas.auroc,
            delong.covariance(areas, contrast),
            patients=delong.freedom(areas, contrast.mean(axis=0)),
        )
        found.append(
            Overall(
                dataset,
                factor,
                within,
                first,
                second,
                len(fullest),
                len(pairs) - len(chosen),
                (float(areas.auroc[::2].mean()), float(areas.auroc[1::2].mean())),
                effect,
            )
        )
    return found


def holm(p_values: Sequence[float]) -> list[float]:
    """Corrects p-values for their number (Holm 1979), so that any of them may be read.

    Returns:
      The corrected values in the same order, at most 1.
    """
    order = np.argsort(p_values, kind="stable")
    left = len(p_values) - np.arange(len(p_values))
    stepped = np.maximum.accumulate(np.asarray(p_values, float)[order] * left)
    corrected = np.empty(len(p_values))
    corrected[order] = np.minimum(stepped, 1)
    return corrected.tolist()


def _pairs(
    pooled: Mapping[tuple[str, ...], Pooled], factor: str
) -> Iterator[tuple[dict[str, str], tuple[str, str], tuple[Pooled, Pooled]]]:
    """Each setting that has two values of the factor, the values, and the scores of both.

    A table of features is no network's: it is compared with the initialisations of each network.
    """
    place = IDENTITY.index(factor)
    groups: dict[tuple[str, ...], dict[str, Pooled]] = {}
    for name, scored in pooled.items():
        rest = name[:place] + name[place + 1 :]
        groups.setdefault(rest, {})[name[place]] = scored
    columns = [name for name in IDENTITY if name != factor]
    for rest, values in groups.items():
        setting = dict(zip(columns, rest, strict=True))
        tables = _tables(pooled, setting) if factor == "init" else {}
        every = values | tables
        pairs = (*itertools.combinations(values, 2), *itertools.product(values, tables))
        for first, second in pairs:
            yield setting, (first, second), (every[first], every[second])


def _tables(
    pooled: Mapping[tuple[str, ...], Pooled], setting: Mapping[str, str]
) -> dict[str, Pooled]:
    """The scores of heads on tables of features that were trained as a network's in a setting."""
    if setting["model"] == EMBEDDING:
        return {}
    alike = ("dataset", "structure", "learning_rate", "seed")
    named = ((dict(zip(IDENTITY, name, strict=True)), scored) for name, scored in pooled.items())
    return {
        name["init"]: scored
        for name, scored in named
        if name["model"] == EMBEDDING and all(name[each] == setting[each] for each in alike)
    }


def _areas(scored: Sequence[Pooled], images: Sequence[tuple[str, str]]) -> delong.Areas | None:
    """AUROCs on the images; None where they are too few of a class to compare."""
    aligned = [one.at(images) for one in scored]
    positive, patients = aligned[0].positive, aligned[0].patients
    # Before areas() refuses them: a study page counts these as not compared.
    clusters = intervals.units(patients)
    if not intervals.enough(positive, clusters):
        return None
    return delong.areas(np.stack([one.scores for one in aligned]), positive, clusters)


def _corrected(found: Sequence[Comparison]) -> Iterator[Comparison]:
    for family in dict.fromkeys((one.dataset, one.factor) for one in found):
        own = [one for one in found if (one.dataset, one.factor) == family]
        for one, value in zip(own, holm([o.difference.p_value for o in own]), strict=True):
            yield replace(one, corrected=value)
