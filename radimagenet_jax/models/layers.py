"""The layers that the networks are made of, with Keras' numerics."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from flax import errors
from flax import linen as nn
from jax.ad_checkpoint import checkpoint_name

from radimagenet_jax.models import platform
from radimagenet_jax.models.architecture import BLOCK, CONV
from radimagenet_jax.models.convolution import Padding, conv
from radimagenet_jax.models.normalisation import by_batch, by_moments

relu = platform.shared(nn.relu)


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

    def __call__(self, x: jax.Array) -> jax.Array:
        """Convolves x (N, H, W, C) to (N, H', W', features) of `dtype`."""
        y, bias = self.apart(x)
        return y if bias is None else y + bias.astype(self.dtype)

    @nn.compact
    def apart(self, x: jax.Array) -> tuple[jax.Array, jax.Array | None]:
        """The convolution of x without the bias, and the bias (features,) float32 if there is one.

        For a BatchNorm behind it, which saves the pass that adds the bias, see `BatchNorm`.
        """
        shape = (*self.kernel_size, x.shape[-1], self.features)
        kernel = _parameter(self, "kernel", nn.initializers.glorot_uniform(), shape)
        x, kernel = x.astype(self.dtype), kernel.astype(self.dtype)
        y = checkpoint_name(conv(x, kernel, self.strides, self.padding), CONV)
        if not self.use_bias:
            return y, None
        return y, _parameter(self, "bias", nn.initializers.zeros_init(), (self.features,))


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
    def __call__(
        self, x: jax.Array, mask: jax.Array | None = None, shift: jax.Array | None = None
    ) -> jax.Array:
        """Normalises x + shift per channel.

        Args:
          x: (N, H, W, C).
          mask: (N,), 0 for examples that count in no statistic.
          shift: (C,), the bias of the convolution before, which adding here saves a pass over x.
        """
        channels = (x.shape[-1],)
        zeros, ones = nn.initializers.zeros_init(), nn.initializers.ones_init()
        scale = jnp.ones(channels, jnp.float32)
        if self.use_scale:
            scale = _parameter(self, "scale", ones, channels)
        bias = _parameter(self, "bias", zeros, channels)
        moving_mean = self.variable("batch_stats", "mean", jnp.zeros, channels, jnp.float32)
        moving_var = self.variable("batch_stats", "var", jnp.ones, channels, jnp.float32)
        if shift is None:
            shift = jnp.zeros(channels, jnp.float32)
        if self.inference:
            moments = moving_mean.value, moving_var.value
            return by_moments(
                x, shift, scale, bias, *moments, epsilon=self.epsilon, dtype=self.dtype
            )
        weights = jnp.ones(x.shape[0]) if mask is None else mask.astype(jnp.float32)
        y, mean, var = by_batch(
            x,
            shift,
            weights,
            scale,
            bias,
            moving_mean.value,
            moving_var.value,
            epsilon=self.epsilon,
            momentum=self.momentum,
            bessel_correction=self.bessel_correction,
            groups=self.stats_groups,
            dtype=self.dtype,
        )
        if not self.is_initializing():
            moving_mean.value, moving_var.value = mean, var
        return y


def block_output(x: jax.Array) -> jax.Array:
    """The same array, the result of a block, which others than the next layer read too.

    Without this XLA for CPU would compute it again in each of them, and its gradient, which is a
    sum over them, in each layer of the block.
    """
    return checkpoint_name(platform.materialized_with_gradient(x), BLOCK)


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
        kernel = _parameter(self, "kernel", initializer, shape)
        bias = _parameter(self, "bias", nn.initializers.zeros_init(), shape[1:])
        return x @ kernel + bias


def _parameter(
    module: nn.Module, name: str, initializer: nn.initializers.Initializer, shape: tuple[int, ...]
) -> jax.Array:
    """`module.param` of float32, which would trace the initializer to learn the shape.

    Raises:
      ScopeParamShapeError: If the parameter is there and has another shape.
    """
    if not module.has_variable("params", name):
        return module.param(name, initializer, shape, jnp.float32)
    found: jax.Array = module.get_variable("params", name)
    if found.shape != shape:
        raise errors.ScopeParamShapeError(name, "/".join(module.path), found.shape, shape)
    return found


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
