"""Where arrays live: one mesh over all devices, batches split along 'data', the rest whole."""

from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from radimagenet_jax.errors import ConfigError
from radimagenet_jax.models import ops
from radimagenet_jax.training.state import TrainState
from radimagenet_jax.wording import counted

DATA_AXIS = "data"


def make_mesh(axes: dict[str, int], batch_size: int, parts: int = 1) -> Mesh:
    """Lays out the devices.

    Args:
      axes: Devices per axis; the only axis is 'data', and -1 stands for all devices.
      batch_size: Global batch size, which the devices have to share evenly.
      parts: That a batch is taken in, each of which they have to share evenly.

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
    check_shares(batch_size, count, parts)
    return jax.make_mesh(
        (count,),
        (DATA_AXIS,),
        axis_types=(jax.sharding.AxisType.Auto,),
        devices=jax.devices()[:count],
    )


def check_shares(batch_size: int, devices: int, parts: int = 1) -> None:
    """Refuses a batch that devices cannot share evenly, taken in so many parts each.

    Raises:
      ConfigError: With the nearest sizes that they can.
    """
    shares = devices * parts
    if batch_size % shares:
        down = batch_size // shares * shares
        sharers = counted(devices, "device") + (f" in {parts} parts each" if parts > 1 else "")
        raise ConfigError(
            f"config.batch_size {batch_size} cannot be shared by {sharers}; "
            f"use {down or shares} or {down + shares}."
        )


def device_memory(mesh: Mesh) -> int | None:
    """Bytes of memory of a device; None for CPUs, which share the machine's, and unknown ones."""
    if ops.computes_on_host():
        return None
    return (mesh.local_devices[0].memory_stats() or {}).get("bytes_limit")


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


def place(part: Any, where: NamedSharding) -> jax.Array:
    """Puts an array that every process holds whole on the devices, each its own share.

    Unlike `jax.device_put` it does not ask the other processes whether theirs is the same.
    """
    host = np.asarray(part)
    return jax.make_array_from_callback(host.shape, where, lambda index: host[index])


def place_batch(batch: tuple[np.ndarray, ...], mesh: Mesh) -> tuple[jax.Array, ...]:
    """Puts the parts of a global batch on the devices that own them."""
    return tuple(place(part, by_example(mesh)) for part in batch)


def state_layout(state: TrainState, mesh: Mesh, shard_optimizer: bool) -> TrainState:
    """Says where each array of a training state lives.

    Args:
      state: Arrays or their shapes.
      mesh: The devices.
      shard_optimizer: Split the optimiser's moments over the devices, each along its longest
        dimension that they can share evenly (Rajbhandari et al. 2020, stage 1); else every device
        holds all of them.

    Returns:
      A state of shardings.
    """
    whole = replicated(mesh)
    layout = jax.tree.map(lambda _: whole, state)
    if not shard_optimizer:
        return layout

    def split(leaf: Any) -> NamedSharding:
        sides = [(side, axis) for axis, side in enumerate(leaf.shape) if side % mesh.size == 0]
        if not sides:
            return whole
        axis = max(sides)[1]
        return NamedSharding(mesh, PartitionSpec(*[None] * axis, DATA_AXIS))

    return layout.replace(opt_state=jax.tree.map(split, state.opt_state))
