"""Normalisation by moving statistics, and by those of a batch with its gradient written out.

Differentiating the definition of the latter would keep what it computes on the way and pass over
the images once for each of its terms. The gradient takes two sums over the images and one pass that
makes the result (Ioffe and Szegedy 2015, arXiv:1502.03167, section 3).
"""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from radimagenet_jax.models.ops import platform

Moments = tuple[jax.Array, jax.Array]
# What a batch's statistics are called, for `jax.checkpoint` to keep them.
STATISTICS = "statistics"
_PIXELS = (0, 1, 2)


class Affine(NamedTuple):
    """What a channel is moved by, before and after it is normalised; (C,) float32 each.

    Attributes:
      shift: Added before: the bias of the convolution in front.
      scale: Gamma.
      bias: Beta.
    """

    shift: jax.Array
    scale: jax.Array
    bias: jax.Array


@dataclasses.dataclass(frozen=True)
class Statistics:
    """How a batch's statistics are taken.

    Attributes:
      epsilon: Added to the variance.
      momentum: Share of the moving statistics that stays.
      bessel_correction: Whether the moving variance takes n / (n - 1) of the batch's.
      groups: Parts of the batch that have statistics of their own; the moving ones take their
        mean, weighted by their examples.
      dtype: Of the normalised images.
    """

    epsilon: float
    momentum: float
    bessel_correction: bool
    groups: int
    dtype: Any


@platform.traced_once
def by_moments(
    x: jax.Array, affine: Affine, moments: Moments, *, epsilon: float, dtype: Any
) -> jax.Array:
    """Normalises each channel of x + shift by a mean and a variance that are given.

    Args:
      x: (N, H, W, C) floats.
      affine: Of the channels.
      moments: The mean and the variance, (C,) float32.
      epsilon: Added to the variance.
      dtype: Of the result.

    Returns:
      (N, H, W, C) of `dtype`.
    """
    mean, var = moments
    factor = affine.scale * jax.lax.rsqrt(var + epsilon)
    offset = affine.bias + (affine.shift - mean) * factor
    return (x * factor + offset).astype(dtype)


@platform.traced_once
def by_batch(
    x: jax.Array, weights: jax.Array, affine: Affine, moving: Moments, *, how: Statistics
) -> tuple[jax.Array, Moments]:
    """Normalises each channel of x + shift by the batch's statistics, and moves the moving ones.

    Args:
      x: (N, H, W, C) floats.
      weights: (N,) float32, 0 for examples that count in no statistic, else 1.
      affine: Of the channels.
      moving: The moving mean and variance, (C,) float32.
      how: The statistics are taken.

    Returns:
      (N, H, W, C), and both moving statistics, which stay where no example counts.
    """
    pixels = x.shape[1] * x.shape[2]
    examples = jnp.sum(weights)

    def corrected(var: jax.Array, count: jax.Array) -> jax.Array:
        return var * (count / jnp.maximum(count - 1, 1)) if how.bessel_correction else var

    def normalised(x: jax.Array, weights: jax.Array) -> tuple[jax.Array, Moments]:
        return normalise(x, affine.shift, weights, affine.scale, affine.bias, how.epsilon)

    if how.groups == 1:
        # No axis of its own, which the cut of a shared trunk would not see through.
        y, (mean, var) = normalised(x, weights)
        var = corrected(var, examples * pixels)
    else:
        of_group = weights.reshape(how.groups, -1)
        grouped = x.reshape(how.groups, -1, *x.shape[1:])
        y, (mean, var) = jax.vmap(normalised)(grouped, of_group)
        y = y.reshape(x.shape)
        count = (jnp.sum(of_group, 1) * pixels)[:, None]
        share = count / jnp.maximum(jnp.sum(count), 1)
        mean, var = (jnp.sum(value * share, 0) for value in (mean, corrected(var, count)))
    mean, var = (
        jnp.where(examples > 0, how.momentum * old + (1 - how.momentum) * new, old)
        for old, new in zip(moving, (mean, var), strict=True)
    )
    return y.astype(how.dtype), (mean, var)


@functools.partial(jax.custom_vjp, nondiff_argnums=(5,))
def normalise(
    x: jax.Array,
    shift: jax.Array,
    weights: jax.Array,
    scale: jax.Array,
    bias: jax.Array,
    epsilon: float,
) -> tuple[jax.Array, Moments]:
    """Normalises each channel of x + shift over a batch; has a first derivative only.

    Args:
      x: (N, H, W, C) floats.
      shift: (C,) float32. Subtracting the mean takes it away again, so it is never added.
      weights: (N,) float32, 0 for examples that count in no statistic, else 1.
      scale: (C,) float32, gamma.
      bias: (C,) float32, beta.
      epsilon: Added to the variance.

    Returns:
      (N, H, W, C) float32, and the mean and the plain variance of x + shift, (C,) float32; where
      no example counts, those of shift alone.
    """
    return _forward(x, shift, weights, scale, bias, epsilon)[0]


def _forward(
    x: jax.Array,
    shift: jax.Array,
    weights: jax.Array,
    scale: jax.Array,
    bias: jax.Array,
    epsilon: float,
) -> tuple[tuple[jax.Array, Moments], tuple[jax.Array, ...]]:
    x32 = x.astype(jnp.float32)
    # Sums per example first: the mask then costs next to nothing.
    sums, squares = jnp.sum(x32, (1, 2)), jnp.sum(x32 * x32, (1, 2))
    pixels = _pixels(x, weights)
    mean = jnp.sum(sums * weights[:, None], 0) / pixels
    mean_square = jnp.sum(squares * weights[:, None], 0) / pixels
    var = jnp.maximum(mean_square - mean * mean, 0)
    mean, var = (checkpoint_name(value, STATISTICS) for value in (mean, var))
    factor = scale * jax.lax.rsqrt(var + epsilon)
    y = x32 * factor + (bias - mean * factor)
    return (y, (mean + shift, var)), (x, weights, scale, mean, var)


def _backward(
    epsilon: float,
    residuals: tuple[jax.Array, ...],
    gradients: tuple[jax.Array, Moments],
) -> tuple[jax.Array, jax.Array, None, jax.Array, jax.Array]:
    x, weights, scale, mean, var = residuals
    dy, (dmean, dvar) = gradients
    # It is read three times.
    dy = platform.materialized(dy)
    x32 = x.astype(jnp.float32)
    of_bias = jnp.sum(dy, _PIXELS)
    inverse = jax.lax.rsqrt(var + epsilon)
    of_scale = (jnp.sum(dy * x32, _PIXELS) - mean * of_bias) * inverse
    factor = scale * inverse
    # The mean has 1 / pixels of each x, the variance 2 (x - mean) / pixels.
    pixels = _pixels(x, weights)
    slope = (2 * dvar - factor * inverse * of_scale) / pixels
    offset = (dmean - factor * of_bias) / pixels - mean * slope
    dx = dy * factor + weights[:, None, None, None] * (x32 * slope + offset)
    # The sum of dx over all pixels, from the sums that are known: what rounding makes of dmean.
    of_shift = factor * of_bias + pixels * (mean * slope + offset)
    return dx.astype(x.dtype), of_shift, None, of_scale, of_bias


normalise.defvjp(_forward, _backward)


def _pixels(x: jax.Array, weights: jax.Array) -> jax.Array:
    """How many pixels count, 1 at least."""
    return jnp.maximum(jnp.sum(weights) * (x.shape[1] * x.shape[2]), 1)
