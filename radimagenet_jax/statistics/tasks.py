"""One difference over several tasks, whose patients are different people.

The tasks' differences d_1..d_K vary since tasks differ and since the patients of each are a sample,
of a known standard error. The model is d_k = mu + u_k + e_k, with u_k independent of variance
tau^2: a random-effects meta-analysis. tau^2 is that of Paule and Mandel (1982, J Res Natl Bur Stand
87:377), at which the weighted squares about the mean are as many as they should be, K - 1. The
interval is that of Hartung, Knapp, Sidik and Jonkman (IntHout et al. 2014, BMC Med Res Methodol
14:25), never shorter than by the weights alone, with K - 1 degrees of freedom: it is wide for few
tasks, as it has to be.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq
from scipy.stats import chi2, t

from radimagenet_jax.statistics.intervals import LEVEL

ESTIMATOR = (
    "random-effects mean over tasks, with Paule and Mandel's variance between tasks and the "
    "interval of Hartung, Knapp, Sidik and Jonkman"
)


@dataclass(frozen=True)
class Joined:
    """A mean difference over tasks.

    Attributes:
      tasks: K.
      value: The mean.
      low, high: 95 % interval.
      p_value: Two-sided, of the hypothesis that the mean difference is zero.
      between: Estimated standard deviation tau of the true differences between tasks, >= 0.
      q: Cochran's Q, the weighted squares about the mean of one common difference.
      q_p_value: Of the hypothesis that the tasks have one common difference.
      share: I squared: the share of the variation that is between tasks, in [0, 1).
    """

    tasks: int
    value: float
    low: float
    high: float
    p_value: float
    between: float
    q: float
    q_p_value: float
    share: float


def join(values: ArrayLike, errors: ArrayLike) -> Joined:
    """Estimates the mean of independent differences, as the module says.

    Args:
      values: (K,) the differences, K >= 2.
      errors: (K,) their standard errors, > 0.

    Raises:
      ValueError: If there are fewer than two values, or an error is not positive.
    """
    values, errors = np.asarray(values, float), np.asarray(errors, float)
    if values.ndim != 1 or len(values) < 2 or values.shape != errors.shape or (errors <= 0).any():
        raise ValueError(f"values {values.shape} and errors {errors.shape} cannot be joined.")
    freedom = len(values) - 1
    q = _squares(values, errors, 0.0)
    between = _between(values, errors)
    weights = 1 / (errors**2 + between)
    mean = float(weights @ values / weights.sum())
    # At Paule and Mandel's tau^2 the factor is 1; it is less where tau^2 = 0 is too much already.
    factor = max(1.0, _squares(values, errors, between) / freedom)
    error = float(np.sqrt(factor / weights.sum()))
    half = float(t.ppf((1 + LEVEL) / 2, freedom)) * error
    return Joined(
        len(values),
        mean,
        mean - half,
        mean + half,
        float(2 * t.sf(abs(mean) / error, freedom)),
        float(np.sqrt(between)),
        q,
        float(chi2.sf(q, freedom)),
        max(0.0, 1 - freedom / q) if q > 0 else 0.0,
    )


def _squares(values: NDArray[np.float64], errors: NDArray[np.float64], between: float) -> float:
    """Weighted squares about the weighted mean."""
    weights = 1 / (errors**2 + between)
    mean = weights @ values / weights.sum()
    return float(weights @ (values - mean) ** 2)


def _between(values: NDArray[np.float64], errors: NDArray[np.float64]) -> float:
    """Paule and Mandel's tau^2: where the weighted squares are K - 1; 0 if they are fewer there."""
    wanted = len(values) - 1
    if _squares(values, errors, 0.0) <= wanted:
        return 0.0
    # Without the errors tau^2 would be the sample variance, and squares go down with it.
    most = float(values.var(ddof=1)) * len(values) + float(errors.max()) ** 2
    found: float = brentq(lambda each: _squares(values, errors, each) - wanted, 0.0, most)
    return found
