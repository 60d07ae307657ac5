"""What a config asks for in memory, at least: asked before anything is read or made."""

import math
import os
from pathlib import Path

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from radimagenet_jax import models
from radimagenet_jax.errors import ConfigError

# A parameter is float32; one that learns by Adam has a gradient and two moments of that size.
_BYTES, _BYTES_BY_ADAM = 4, 16
_LIMITS = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)
# Bytes that the published networks hold a pixel in training are a few hundred to 3,000: below this
# the network need not be looked at.
_CERTAIN_A_PIXEL = 20_000


def check(config: ConfigDict, devices: int, accelerator_bytes: int | None = None) -> None:
    """Refuses a run that cannot fit, with the figures.

    What is counted is a lower bound (each block's output of a part of a batch, and the
    parameters), so that nothing is refused that could have been tried.

    Args:
      config: Of `configs/base.py`, checked by `config.validate`.
      devices: That share a batch.
      accelerator_bytes: Memory of a device of its own; None where devices share the machine's.

    Raises:
      ConfigError: If it takes more memory than there is.
    """
    there = memory() if accelerator_bytes is None else accelerator_bytes * devices
    pixels = config.image_size**2 * config.batch_size / config.accumulate
    if not config.model_options and pixels * _CERTAIN_A_PIXEL < there:
        return
    network = models.create(config.model, dtype=config.dtype, **config.model_options)
    all_learns = config.structure == "unfreezeall"
    parameters, image = sizes(network, config.image_size, all_kept=all_learns)
    batch = image * config.batch_size / config.accumulate
    by_adam = all_learns and config.optimizer.name in ("adam", "adamw")
    needed = batch + (_BYTES_BY_ADAM if by_adam else _BYTES) * parameters
    if needed > there:
        raise ConfigError(
            f"{config.model} with batches of {config.batch_size} images of {config.image_size} "
            f"pixels takes {_gib(needed)} GiB of memory at least ({_gib(batch)} for the blocks' "
            f"outputs, {_gib(needed - batch)} for {parameters:,} parameters), but there are "
            f"{_gib(there)}; make config.batch_size, config.image_size or the network smaller, or "
            "config.accumulate larger."
        )


def sizes(network: models.Network, image_size: int, *, all_kept: bool = True) -> tuple[int, int]:
    """Counts a network without a head, without computing anything.

    Args:
      network: The network.
      image_size: Side of its square input, in pixels.
      all_kept: Whether all outputs are kept for a gradient, or each only until the next is there.

    Returns:
      The number of its parameters, and the bytes of the largest output at each resolution for an
      image, which is less than what is kept; or of the largest of all.
    """
    variables = models.variable_shapes(network, image_size)
    images = jax.ShapeDtypeStruct((1, image_size, image_size, 3), jnp.float32)
    _, out = jax.eval_shape(network.apply, variables, images)
    largest: dict[tuple[int, ...], int] = {images.shape[1:3]: images.size * 4}
    for leaf in jax.tree.leaves(out):
        # Outputs of one resolution may be parts of one another, as in a DenseNet.
        place = leaf.shape[1:-1]
        largest[place] = max(largest.get(place, 0), leaf.size * leaf.dtype.itemsize)
    parameters = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(variables["params"]))
    return parameters, (sum if all_kept else max)(largest.values())


def memory() -> int:
    """Bytes of memory of this machine, or of the container."""
    found = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for limit in _LIMITS:
        if limit.is_file():
            text = limit.read_text().strip()
            found = min(found, int(text)) if text.isdecimal() else found
    return found


def _gib(count: float) -> str:
    return f"{count / 2**30:,.1f}"
