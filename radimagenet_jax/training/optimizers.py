"""Optimisers by name (`config.optimizer`)."""

from collections.abc import Callable
from typing import Any

import jax
import optax

from radimagenet_jax.training.adam import keras_adam

# What `make_optimizer` makes by name, and the options that it takes.
OPTIMIZERS: dict[str, tuple[Callable[..., optax.GradientTransformation], tuple[str, ...]]] = {
    "adam": (keras_adam, ("b1", "b2", "eps")),
    "adamw": (
        lambda rate, **options: optax.adamw(rate, mask=_kernels, **options),
        ("b1", "b2", "eps", "weight_decay"),
    ),
    "sgd": (
        lambda rate, momentum=0.0: optax.sgd(rate, momentum=momentum or None),
        ("momentum",),
    ),
    "lion": (
        lambda rate, **options: optax.lion(rate, mask=_kernels, **options),
        ("weight_decay",),
    ),
}


def make_optimizer(
    name: str,
    learning_rate: float | jax.Array | optax.Schedule,
    *,
    clip_norm: float = 0.0,
    **options: float,
) -> optax.GradientTransformation:
    """Makes an optimiser.

    Args:
      name: 'adam' is Keras', see `adam`; 'adamw' (Loshchilov and Hutter, arXiv:1711.05101), 'lion'
        (Chen et al., arXiv:2302.06675, with its own decays of 0.9 and 0.99) and 'sgd' are optax'.
      learning_rate: Constant over the run, as published, or of `schedules.schedule`.
      clip_norm: Largest global norm of the gradients of all that learns; 0 for none.
      **options: Those that the optimiser takes are passed on, others are left: `b1`, `b2`, `eps`
        (of adam and adamw), `weight_decay` (of adamw and lion, for kernels alone) and `momentum`
        (of sgd).

    Raises:
      ValueError: If the name is not known.
    """
    if name not in OPTIMIZERS:
        raise ValueError(f"unknown optimizer {name!r}; known are {', '.join(OPTIMIZERS)}.")
    make, takes = OPTIMIZERS[name]
    tx = make(learning_rate, **{key: options[key] for key in takes if key in options})
    return optax.chain(optax.clip_by_global_norm(clip_norm), tx) if clip_norm else tx


def _kernels(params: Any) -> Any:
    """What decays: neither biases nor a BatchNorm's parameters, which have one dimension."""
    return jax.tree.map(lambda leaf: leaf.ndim > 1, params)
