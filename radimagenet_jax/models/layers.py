"""The layers that the networks are made of, with Keras' numerics."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.ad_checkpoint import checkpoint_name

from radimagenet_jax.models.architecture import CONV, STATISTICS
from radimagenet_jax.models.convolution import Padding, conv


class Conv(nn.Module):
    """A two-dimensional convolution.

    Attributes:
      features: Output channels.
      kernel_size: (height, width).
      strides: (height, width).
      padding: 'SAME', 'VALID', or ((top, bottom), (left, right)).
      use_bias: Whether a bias is added.
      dtype: Of the computation; parameters are float32.
    """

    features: int
    kernel_size: tuple[int, int] = (1, 1)
    strides: tuple[int, int] = (1, 1)
    padding: Padding = "VALID"
    use_bias: bool = True
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Convolves x (N, H, W, C) to (N, H', W', features) of `dtype`."""
        shape = (*self.kernel_size, x.shape[-1], self.features)
        kernel = self.param("kernel", nn.initializers.glorot_uniform(), shape, jnp.float32)
        x, kernel = x.astype(self.dtype), kernel.astype(self.dtype)
        y = checkpoint_name(conv(x, kernel, self.strides, self.padding), CONV)
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros_init(), (self.features,), jnp.float32)
            y = y + bias.astype(self.dtype)
        return y


class BatchNorm(nn.Module):
    """Batch normalisation as Keras does it, over the global batch or parts of it.

    Attributes:
      inference: Use the moving statistics and leave them alone.
      epsilon: Added to the variance.
      momentum: Of the moving statistics.
      use_scale: Whether there is a gamma.
      bessel_correction: Whether the moving variance takes n / (n - 1) of the batch's variance, as
        Keras' fused kernels do; the normalisation itself always uses the plain one.
      stats_groups: Parts of the batch, one after the other, that are normalised by statistics of
        their own; as many as devices share the batch, and these need not talk to each other. The
        moving statistics take the groups' mean, weighted by their examples.
      dtype: Of the result; statistics are computed and kept in float32.
    """

    inference: bool
    epsilon: float
    momentum: float = 0.99
    use_scale: bool = True
    bessel_correction: bool = True
    stats_groups: int = 1
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, mask: jax.Array | None = None) -> jax.Array:
        """Normalises x (N, H, W, C) per channel; examples with mask (N,) 0 count nowhere."""
        channels = (x.shape[-1],)
        zeros, ones = nn.initializers.zeros_init(), nn.initializers.ones_init()
        scale = self.param("scale", ones, channels, jnp.float32) if self.use_scale else 1.0
        bias = self.param("bias", zeros, channels, jnp.float32)
        moving_mean = self.variable("batch_stats", "mean", jnp.zeros, channels, jnp.float32)
        moving_var = self.variable("batch_stats", "var", jnp.ones, channels, jnp.float32)
        if self.inference:
            mean, var = moving_mean.value, moving_var.value
        else:
            weights = jnp.ones(x.shape[0]) if mask is None else mask.astype(jnp.float32)
            groups = self.stats_groups
            if groups == 1:
                mean, var, count = _statistics(x, weights)
            else:
                parts = (v.reshape(groups, -1, *v.shape[1:]) for v in (x, weights))
                mean, var, count = jax.vmap(_statistics)(*parts)
                count = count[:, None]
            mean, var = (checkpoint_name(value, STATISTICS) for value in (mean, var))
            if not self.is_initializing():
                unbiased = var * (count / jnp.maximum(count - 1, 1))
                new_var = unbiased if self.bessel_correction else var
                keep = self.momentum
                for moving, new in ((moving_mean, mean), (moving_var, new_var)):
                    if groups > 1:
                        new = jnp.sum(new * (count / jnp.sum(count)), 0)
                    moving.value = keep * moving.value + (1 - keep) * new
            if groups > 1:  # each example is given its group's
                each = x.shape[0] // groups
                mean, var = (jnp.repeat(v, each, 0)[:, None, None] for v in (mean, var))
        factor = scale * jax.lax.rsqrt(var + self.epsilon)
        return (x * factor + (bias - mean * factor)).astype(self.dtype)


def _statistics(x: jax.Array, weights: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Mean (C,) and plain variance (C,) of x (N, H, W, C), and the number of its pixels ().

    Examples count by their weights (N,) float32, 0 or 1; of padding alone, both are 0.
    """
    x32 = x.astype(jnp.float32)
    # Sums per example first: the mask then costs next to nothing.
    sums, squares = jnp.sum(x32, (1, 2)), jnp.sum(x32 * x32, (1, 2))
    count = jnp.sum(weights) * (x.shape[1] * x.shape[2])
    pixels = jnp.maximum(count, 1)
    mean = jnp.sum(sums * weights[:, None], 0) / pixels
    mean_square = jnp.sum(squares * weights[:, None], 0) / pixels
    return mean, jnp.maximum(mean_square - mean * mean, 0), count


@dataclass(frozen=True)
class Norm:
    """Makes a network's BatchNorm layers, each in the mode that its name asks for.

    Attributes:
      train: Whether this is a training step.
      frozen: Names of the layers that stay in inference mode in training.
      epsilon: See `BatchNorm`.
      momentum: See `BatchNorm`.
      bessel_correction: See `BatchNorm`.
      stats_groups: See `BatchNorm`.
      use_scale: See `BatchNorm`.
      dtype: See `BatchNorm`.
    """

    train: bool
    frozen: frozenset[str]
    epsilon: float
    momentum: float
    bessel_correction: bool
    stats_groups: int
    dtype: Any
    use_scale: bool = True

    def __call__(self, layer: str) -> BatchNorm:
        """Makes the layer of a full name, such as 'stage4_block3/bn1'."""
        return BatchNorm(
            inference=not self.train or layer in self.frozen,
            epsilon=self.epsilon,
            momentum=self.momentum,
            use_scale=self.use_scale,
            bessel_correction=self.bessel_correction,
            stats_groups=self.stats_groups,
            dtype=self.dtype,
            name=layer.rpartition("/")[2],
        )


class Head(nn.Module):
    """Dropout, then a dense layer; logits are float32 whatever the network computes in.

    Attributes:
      num_classes: Number of logits.
      dropout: Share of pooled features that a training step drops.
      kernel_init: 'glorot_uniform' or 'zeros'.
    """

    num_classes: int
    dropout: float
    kernel_init: str

    @nn.compact
    def __call__(self, pooled: jax.Array, *, train: bool) -> jax.Array:
        """Maps pooled features (N, C) to logits (N, num_classes)."""
        x = nn.Dropout(self.dropout, deterministic=not train)(pooled.astype(jnp.float32))
        initializer = {
            "glorot_uniform": nn.initializers.glorot_uniform(),
            "zeros": nn.initializers.zeros_init(),
        }[self.kernel_init]
        shape = (x.shape[-1], self.num_classes)
        kernel = self.param("kernel", initializer, shape, jnp.float32)
        bias = self.param("bias", nn.initializers.zeros_init(), shape[1:], jnp.float32)
        return x @ kernel + bias


def require_size(x: jax.Array, network: str, smallest: int) -> None:
    """Refuses images that a network's strides would shrink to nothing.

    Raises:
      ValueError: If x is not (N, H, W, 3) or a side is under `smallest` pixels.
    """
    if x.ndim != 4 or x.shape[-1] != 3 or min(x.shape[1:3]) < smallest:
        raise ValueError(
            f"{network} takes images (N, H, W, 3) of at least {smallest} pixels a side, "
            f"not {x.shape}."
        )
