"""The layers that the networks are made of, with Keras' numerics."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from flax import errors
from flax import linen as nn
from jax.ad_checkpoint import checkpoint_name

from radimagenet_jax.models.ops import platform
from radimagenet_jax.models.ops.convolution import Padding, conv
from radimagenet_jax.models.ops.normalisation import Affine, Statistics, by_batch, by_moments

# What each block's output is called, for `jax.checkpoint` to keep it and nothing between; and what
# convolutions give, which with their statistics is all that a gradient needs but elementwise work.
BLOCK = "block"
CONV = "conv"

# How exactly products of float32 numbers are computed where a chip has faster ones that are not:
# 'highest' as float32, 'auto' as training bears it (TensorFloat-32 on GPU, three passes of bfloat16
# on TPU), 'default' as the chip likes it (TensorFloat-32, one pass). CPUs always compute the first.
PRECISIONS = {
    "highest": jax.lax.Precision.HIGHEST,
    "auto": jax.lax.Precision.HIGH,
    "default": jax.lax.Precision.DEFAULT,
}

relu = platform.traced_once(nn.relu)


class Conv(nn.Module):
    """A two-dimensional convolution.

    Attributes:
      features: Output channels.
      kernel_size: (height, width).
      stride: In both directions.
      padding: 'SAME', 'VALID', or ((top, bottom), (left, right)).
      use_bias: Whether a bias is added.
      dtype: Of the computation; parameters are float32.
      precision: Of products in float32, a key of `PRECISIONS`.
    """

    features: int
    kernel_size: tuple[int, int] = (1, 1)
    stride: int = 1
    padding: Padding = "VALID"
    use_bias: bool = True
    dtype: Any = jnp.float32
    precision: str = "highest"

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
        # There is nothing between the products of 16 bits.
        precision = PRECISIONS[self.precision] if jnp.dtype(self.dtype) == jnp.float32 else None
        strides = self.stride, self.stride
        y = checkpoint_name(conv(x, kernel, strides, self.padding, precision), CONV)
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
        self,
        x: jax.Array,
        mask: jax.Array | None = None,
        shift: jax.Array | None = None,
        *,
        inference: bool | None = None,
    ) -> jax.Array:
        """Normalises x + shift per channel.

        Args:
          x: (N, H, W, C).
          mask: (N,), 0 for examples that count in no statistic.
          shift: (C,), the bias of the convolution before, which adding here saves a pass over x.
          inference: Takes the place of the field, where it is not None.
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
        affine = Affine(shift, scale, bias)
        moving = moving_mean.value, moving_var.value
        if self.inference if inference is None else inference:
            return by_moments(x, affine, moving, epsilon=self.epsilon, dtype=self.dtype)
        weights = jnp.ones(x.shape[0]) if mask is None else mask.astype(jnp.float32)
        how = Statistics(
            self.epsilon, self.momentum, self.bessel_correction, self.stats_groups, self.dtype
        )
        y, moved = by_batch(x, weights, affine, moving, how=how)
        if not self.is_initializing():
            moving_mean.value, moving_var.value = moved
        return y


def block_output(x: jax.Array) -> jax.Array:
    """The same array, the result of a block, which others than the next layer read too.

    Without this XLA for CPU would compute it again in each of them, and its gradient, which is a
    sum over them, in each layer of the block.
    """
    return checkpoint_name(platform.materialized_with_gradient(x), BLOCK)


@dataclass(frozen=True)
class Layers:
    """Makes the layers of a network inside its blocks, all in the network's precision and mode.

    A layer belongs to the module whose compact method calls, so that its full name is the path of
    the blocks around it.

    Attributes:
      dtype: Of the computation.
      train: Whether this is a training step.
      frozen: Full names of the BatchNorms that stay in inference mode in training.
      mask: (N,), 0 for examples that count in no statistic; None if all do.
      norm_fields: Further fields of the BatchNorms, see `BatchNorm`.
      precision: Of products in float32, a key of `PRECISIONS`.
      depth: Length of the network's own path, which is not part of the names in `frozen`.
    """

    dtype: Any
    train: bool
    frozen: frozenset[str]
    mask: jax.Array | None
    norm_fields: Mapping[str, Any]
    precision: str = "highest"
    depth: int = 0

    def conv(
        self,
        x: jax.Array,
        name: str,
        features: int,
        size: int | tuple[int, int] = 1,
        **fields: Any,
    ) -> jax.Array:
        """Convolves x (N, H, W, C) to (N, H', W', features); `fields` are those of `Conv`."""
        return self._conv(name, features, size, fields)(x)

    def norm(self, x: jax.Array, name: str, shift: jax.Array | None = None) -> jax.Array:
        """Normalises x + shift, in the mode that the layer's name asks for; see `BatchNorm`."""
        layer = BatchNorm(inference=True, dtype=self.dtype, name=name, **self.norm_fields)
        full_name = "/".join(layer.path[self.depth :])
        inference = not self.train or full_name in self.frozen
        return layer(x, self.mask, shift, inference=inference)

    def conv_norm(
        self,
        x: jax.Array,
        names: tuple[str, str],
        features: int,
        size: int | tuple[int, int] = 1,
        **fields: Any,
    ) -> jax.Array:
        """Convolves and normalises; `names` are those of the two layers."""
        y, bias = self._conv(names[0], features, size, fields).apart(x)
        return self.norm(y, names[1], bias)

    def _conv(
        self, name: str, features: int, size: int | tuple[int, int], fields: dict[str, Any]
    ) -> Conv:
        sides = (size, size) if isinstance(size, int) else size
        return Conv(
            features, sides, dtype=self.dtype, precision=self.precision, name=name, **fields
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
        # A few products an image, which cost nothing on any chip.
        return jnp.matmul(x, kernel, precision=jax.lax.Precision.HIGHEST) + bias


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
