"""Where arrays live: one mesh over all devices, batches split along 'data', the rest whole."""

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from radimagenet_jax.errors import ConfigError

DATA_AXIS = "data"


def make_mesh(axes: dict[str, int], batch_size: int) -> Mesh:
    """Lays out the devices.

    Args:
      axes: Devices per axis; the only axis is 'data', and -1 stands for all devices.
      batch_size: Global batch size, which the devices have to share evenly.

    Returns:
      The mesh.

    Raises:
      ConfigError: If there are not so many devices, or they cannot share the batch.
    """
    if set(axes) != {DATA_AXIS}:
        raise ConfigError(f"config.mesh must have the one axis 'data', not {sorted(axes)}.")
    available = jax.device_count()
    count = available if axes[DATA_AXIS] == -1 else axes[DATA_AXIS]
    if not 1 <= count <= available:
        raise ConfigError(
            f"config.mesh.data is {axes[DATA_AXIS]}, but there are {available} devices; "
            "use -1 for all of them."
        )
    if batch_size % count:
        down = batch_size // count * count
        raise ConfigError(
            f"config.batch_size {batch_size} cannot be shared by {count} devices; "
            f"use {down or count} or {down + count}."
        )
    return jax.make_mesh(
        (count,),
        (DATA_AXIS,),
        axis_types=(jax.sharding.AxisType.Auto,),
        devices=jax.devices()[:count],
    )


def replicated(mesh: Mesh) -> NamedSharding:
    """Every device holds the whole array."""
    return NamedSharding(mesh, PartitionSpec())


def by_example(mesh: Mesh) -> NamedSharding:
    """The leading dimension is split over the devices."""
    return NamedSharding(mesh, PartitionSpec(DATA_AXIS))


def local_rows(batch_size: int, mesh: Mesh) -> np.ndarray:
    """Returns the rows (b,) of a global batch that this process's devices hold, in order."""
    held = by_example(mesh).addressable_devices_indices_map((batch_size,))
    everything = np.arange(batch_size)
    return np.unique(np.concatenate([everything[place] for place in held.values() if place]))


def place_batch(batch: tuple[np.ndarray, ...], mesh: Mesh) -> tuple[jax.Array, ...]:
    """Puts the parts of a global batch on the devices that own them."""
    return tuple(jax.device_put(part, by_example(mesh)) for part in batch)
