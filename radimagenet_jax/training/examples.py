"""Splits that live on the devices, whole on each or in parts, and how a step gathers its batch.

In parts, example i is on device i modulo their number, so that examples that follow each other come
from all devices alike, as shuffled ones do.

An image is kept as rows of 128 bytes, which a TPU reads one by one: of an (N, S, S, C) array it
would make a copy of another layout first, of all N.
"""

import math
import os
from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax.sharding import Mesh, PartitionSpec

from radimagenet_jax.data.datasets import Split
from radimagenet_jax.data.streaming import StreamedSplit
from radimagenet_jax.training import sharding

_ROW = 128  # bytes
_PORTION = 32  # images that a thread reads at a time


class Examples(struct.PyTreeNode):
    """Examples on the devices, such as a batch.

    Attributes:
      images: (N, S, S, 1 or 3) uint8, 0..255, RGB.
      labels: (N,) int32.
      ids: (N,) uint32, each example's identity for the augmentation's draws.
    """

    images: jax.Array
    labels: jax.Array
    ids: jax.Array

    def at(self, index: jax.Array) -> "Examples":
        """Returns those at an index (B,)."""
        return Examples(self.images[index], self.labels[index], self.ids[index])


class ResidentExamples(struct.PyTreeNode):
    """A split of a data set on D devices; what of it a step takes are `step.Examples`.

    Attributes:
      images: (N, R, 128) uint8, on every device, each image (S, S, C) flat with zeros at its end;
        or (D * P, R, 128), P on each device, zeros where it has fewer.
      labels: (N,) int32, on every device.
      ids: (N,) uint32, on every device.
      shape: (S, S, C) of an image.
      parted: The D devices, if the images are on several in parts.
    """

    images: jax.Array
    labels: jax.Array
    ids: jax.Array
    shape: tuple[int, ...] = struct.field(pytree_node=False)
    parted: Mesh | None = struct.field(pytree_node=False)

    def at(self, index: jax.Array) -> Examples:
        """Returns those at an index (B,), which the devices share."""
        if self.parted is None:
            rows = self.images[index]
        else:
            rows = gather(self.images, index, self.parted)
        flat = rows.reshape(len(index), -1)[:, : math.prod(self.shape)]
        return Examples(flat.reshape(-1, *self.shape), self.labels[index], self.ids[index])


def place_whole(split: Split, mesh: Mesh) -> ResidentExamples:
    """Puts all of a split on every device."""
    whole = sharding.replicated(mesh)
    images, labels, ids = (
        sharding.place(part, whole) for part in (_rows(split.images), split.labels, split.ids)
    )
    return ResidentExamples(images, labels, ids, split.images.shape[1:], None)


def place_in_parts(split: Split | StreamedSplit, mesh: Mesh) -> ResidentExamples:
    """Puts a part of a split on each device; a process reads what its own hold, a part at a time.

    Raises:
      DataError: If files are damaged.
    """
    size, first = part_size(len(split), mesh.size), split.read([0])
    rows = _rows(first).shape[1:]
    held = []
    for number, device in enumerate(mesh.devices.flat):
        if device.process_index == jax.process_index():
            own = np.arange(number, len(split), mesh.size)
            # Before the next one is read, so that the host holds one at a time.
            held.append(
                jax.device_put(_read(split, own, (size, *rows)), device).block_until_ready()
            )
    images = jax.make_array_from_single_device_arrays(
        (mesh.size * size, *rows), sharding.by_example(mesh), held
    )
    whole = sharding.replicated(mesh)
    labels, ids = (sharding.place(part, whole) for part in (split.labels, split.ids))
    parted = mesh if mesh.size > 1 else None
    return ResidentExamples(images, labels, ids, first.shape[1:], parted)


def part_size(examples: int, devices: int) -> int:
    """Images that a device has room for in parts, P."""
    return -(-examples // devices)


def stored_bytes(shape: tuple[int, ...]) -> int:
    """Bytes of a device that an image (S, S, C) takes."""
    return -(-math.prod(shape) // _ROW) * _ROW


def _rows(images: np.ndarray) -> np.ndarray:
    """Images (N, S, S, C) as rows (N, R, 128)."""
    flat = images.reshape(len(images), -1)
    missing = -flat.shape[1] % _ROW
    if missing:
        flat = np.pad(flat, ((0, 0), (0, missing)))
    return flat.reshape(len(images), -1, _ROW)


def _read(split: Split | StreamedSplit, places: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Reads the images at some places, in threads, into the beginning of an array of a shape."""
    part = np.zeros(shape, np.uint8)

    def fill(start: int) -> None:
        chosen = places[start : start + _PORTION]
        part[start : start + len(chosen)] = _rows(split.read(chosen))

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for _ in pool.map(fill, range(0, len(places), _PORTION)):
            pass
    return part


def gather(rows: jax.Array, index: jax.Array, mesh: Mesh) -> jax.Array:
    """Gathers a batch from parts, within a compiled program.

    Each device sends every other one what it wants, in rounds of as many as a shuffled batch hardly
    exceeds: one round moves little more than the batch, and any batch is right.

    Args:
      rows: (D * P, ...), as the images of `ResidentExamples` in parts.
      index: (B,) integers below N, B a multiple of D.
      mesh: The D devices.

    Returns:
      (B, ...), each device its share.
    """
    devices, share = mesh.size, len(index) // mesh.size
    size = round_size(share, devices)

    def exchange(part: jax.Array, index: jax.Array) -> jax.Array:
        me = jax.lax.axis_index(sharding.DATA_AXIS)
        wanted = index.reshape(devices, share)  # by each device
        owner, slot = wanted % devices, wanted // devices
        takers = jnp.arange(devices)[:, None]
        # Of what a taker wants of me, and of what I want of an owner, the how-manieth each is.
        is_mine = owner == me
        to_send = jnp.cumsum(is_mine, axis=1) - 1
        source = owner[me]
        met = jnp.cumsum(source[:, None] == jnp.arange(devices), axis=0)
        to_take = met[jnp.arange(share), source] - 1

        def one_round(number: jax.Array, batch: jax.Array) -> jax.Array:
            place = to_send - number * size
            place = jnp.where(is_mine & (place >= 0), place, size)  # beyond the end: dropped
            sent = jnp.zeros((devices, size), slot.dtype).at[takers, place].set(slot, mode="drop")
            came = jax.lax.all_to_all(part[sent], sharding.DATA_AXIS, 0, 0)
            place = to_take - number * size
            is_here = (place >= 0) & (place < size)
            found = came[source, jnp.clip(place, 0, size - 1)]
            return jnp.where(is_here.reshape(-1, *[1] * (part.ndim - 1)), found, batch)

        none = jnp.zeros((share, *part.shape[1:]), part.dtype)
        none = jax.lax.pcast(none, sharding.DATA_AXIS, to="varying")
        # All devices count the same, so that none waits in a round that another does not take.
        pairs = jnp.zeros((devices, devices), jnp.int32).at[takers, owner].add(1)
        return jax.lax.fori_loop(0, (pairs.max() + size - 1) // size, one_round, none)

    return jax.shard_map(
        exchange,
        mesh=mesh,
        in_specs=(PartitionSpec(sharding.DATA_AXIS), PartitionSpec()),
        out_specs=PartitionSpec(sharding.DATA_AXIS),
    )(rows, index)


def round_size(share: int, devices: int) -> int:
    """What a device sends another in a round: four deviations above a shuffled batch's mean.

    Args:
      share: Of a batch that each device takes.
      devices: How many they are.
    """
    mean = share / devices
    return min(share, math.ceil(mean + 4 * math.sqrt(mean)))
