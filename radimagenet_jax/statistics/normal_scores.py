"""What the variance of AUROCs would be if the scores of either class were normal.

A rank statistic knows no scale, so it is enough that some rising function makes the scores normal
(the binormal model with equal variances: Metz 1986, Investigative Radiology 21:720). Images of one
patient then have one correlation in the positive class, one in the negative class, and one across
classes. They are estimated by an analysis of variance of the ranks within a class, turned into
normal scores, which holds even where no score is on the wrong side. With them the variance follows
for any true area: the covariance of two pairs' wins is an orthant of two correlated normals.
"""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri, owens_t
from scipy.stats import rankdata

from radimagenet_jax.statistics.intervals import Units

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class OneClass:
    """How images of one class depend on each other.

    Attributes:
      image: Chance that two draws of an image are the same image, 1 / N.
      patient: Chance that they are other images of one patient.
      patients: Independent units with such an image.
      same: (K, K) correlations of K classifiers' scores of one image.
      shared: (K, K) the same for other images of one patient.
    """

    image: float
    patient: float
    patients: int
    same: Floats
    shared: Floats


@dataclass(frozen=True)
class NormalScores:
    """The dependence in both classes and across them.

    Attributes:
      positive: Of the positive class.
      negative: Of the negative class.
      mixed: Chance that a positive and a negative image are of one patient.
      across: (K, K) correlations of such scores, >= 0.
    """

    positive: OneClass
    negative: OneClass
    mixed: float
    across: Floats

    def of(self, k: int) -> "NormalScores":
        """The same of one classifier alone."""
        one = slice(k, k + 1)
        first, second = (
            replace(kind, same=kind.same[one, one], shared=kind.shared[one, one])
            for kind in (self.positive, self.negative)
        )
        return NormalScores(first, second, self.mixed, self.across[one, one])

    def covariance(self, areas: Floats) -> Floats:
        """Covariance (K, K) of K AUROCs whose true values are (K,) in (0, 1)."""
        return self.parts(areas)[0]

    def parts(self, areas: Floats) -> Floats:
        """The covariance and what it is made of, (5, K, K).

        The whole; of the positive class its part, and that of this part which rests on the
        correlation of a patient's images; the same two of the negative class.
        """
        weights, correlations = self._terms
        found: Floats = np.tensordot(weights, _covariances(areas, correlations), 1)
        # A tenth of what it is without mixed patients: less would come from chance in `across`.
        if self.mixed and (np.diagonal(found[0]) < np.diagonal(found[5]) / 10).any():
            found[0] = found[5] / 10
        return found[:5]

    @cached_property
    def _terms(self) -> tuple[Floats, Floats]:
        """Weights (6, T) and correlations (T, K, K) of pairs of pairs of images."""
        none = np.zeros_like(self.across)
        first, second = (
            (
                (one.image, one.same),
                (one.patient, one.shared),
                (1 - one.image - one.patient, none),
            )
            for one in (self.positive, self.negative)
        )
        weights, correlations = [], []
        for i, (share, own) in enumerate(first):
            for j, (part, its) in enumerate(second):
                both = share * part
                # The class's own part has pairs whose other images are not of one patient.
                positive, negative = share * (j == 2), part * (i == 2)
                weights.append(
                    [both, positive, positive * (i == 1), negative, negative * (j == 1), both]
                )
                correlations.append((own + its) / 2)
        # A patient whose images all score high wins pairs by the one class and loses by the other.
        weights.append([2 * self.mixed, 0, 0, 0, 0, 0])
        correlations.append(-self.across / 2)
        chosen = slice(0, 8) if not self.mixed else [*range(8), 9]  # the ninth depends on nothing
        return np.array(weights)[chosen].T, np.stack(correlations)[chosen]


def normal_scores(scores: Floats, positive: NDArray[np.bool_], clusters: Units) -> NormalScores:
    """Estimates the dependence.

    Args:
      scores: (K, N).
      positive: (N,) bool, of both classes.
      clusters: Of the N images.
    """
    levels, members = [], []
    for chosen in (positive, ~positive):
        ranks = rankdata(scores[:, chosen], axis=1)
        levels.append(ndtri((ranks - 0.5) / ranks.shape[1]))
        members.append(clusters.index[chosen])
    classes = [_one_class(z, member) for z, member in zip(levels, members, strict=True)]
    sums = [_sums(z, member, clusters.count) for z, member in zip(levels, members, strict=True)]
    counts = [np.bincount(member, minlength=clusters.count).astype(float) for member in members]
    pairs = float(counts[0] @ counts[1])
    across = np.zeros((len(scores), len(scores)))
    if pairs:
        found = sums[0] @ sums[1].T / pairs
        ceiling = np.sqrt(np.diagonal(classes[0].shared)[:, None] * np.diagonal(classes[1].shared))
        across = np.clip((found + found.T) / 2, 0, np.sqrt(ceiling * ceiling.T))
    return NormalScores(classes[0], classes[1], pairs / counts[0].sum() / counts[1].sum(), across)


def _sums(values: Floats, member: NDArray[np.int64], count: int) -> Floats:
    return np.stack([np.bincount(member, row, count) for row in values])


def _one_class(z: Floats, member: NDArray[np.int64]) -> OneClass:
    """Components of (co)variance between and within patients (Searle et al. 1992, section 3.6)."""
    _, member, sizes = np.unique(member, return_inverse=True, return_counts=True)
    n, patients = len(member), len(sizes)
    means = _sums(z, member, patients) / sizes
    centred = z - z.mean(axis=1, keepdims=True)
    between = means - z.mean(axis=1, keepdims=True)
    between_squares = (between * sizes) @ between.T
    within_squares = centred @ centred.T - between_squares
    of_patients: Floats = np.zeros_like(between_squares)
    of_images: Floats = between_squares / max(patients - 1, 1)
    if n > patients > 1:
        typical = (n - (sizes**2).sum() / n) / (patients - 1)
        of_images = within_squares / (n - patients)
        of_patients = (between_squares / (patients - 1) - of_images) / typical
    own = np.diagonal(of_patients)
    # A negative variance is none; nor can a correlation be with what does not vary.
    kept = own > 0
    of_patients = np.where(kept[:, None] & kept, of_patients, 0)
    total = of_patients + of_images
    scale = np.sqrt(np.diagonal(total))
    flat = scale < 1e-9  # equal scores say nothing of their correlation: then the most there can be
    scale = np.where(flat, 1, scale)
    same, shared = (part / scale[:, None] / scale for part in (total, of_patients))
    same, shared = (np.where(np.outer(flat, flat), 1, part) for part in (same, shared))
    np.fill_diagonal(same, 1)
    return OneClass(
        1 / n,
        float((sizes * (sizes - 1.0)).sum() / n**2),
        patients,
        np.clip(same, -1, 1),
        np.clip(shared, -1, 1),
    )


def _covariances(areas: Floats, correlations: Floats) -> Floats:
    """Covariances of indicators with chances (K,) of normals with correlations (..., K, K)."""
    limits = ndtri(areas)
    # Off zero, where Owen's second argument would be infinite.
    limits = np.where(np.abs(limits) < 1e-9, 1e-9, limits)
    return orthant(limits[:, None], limits, correlations) - np.outer(ndtr(limits), ndtr(limits))


def orthant(h: Floats, k: Floats, correlation: Floats) -> Floats:
    """P(X < h, Y < k) of standard normals (Owen 1956, Annals of Mathematical Statistics 27:1075).

    Args:
      h: Limit of X, not zero.
      k: Limit of Y, not zero.
      correlation: In [-1, 1].
    """
    spread = np.sqrt(np.maximum(1 - correlation**2, 1e-24))
    wings = owens_t(h, (k - correlation * h) / (h * spread)) + owens_t(
        k, (h - correlation * k) / (k * spread)
    )
    apart = np.where(np.asarray(h) * k < 0, 0.5, 0)
    return (ndtr(h) + ndtr(k)) / 2 - wings - apart
