"""Where a run's images are while it trains: whole on each device, in parts on all, or on disk."""

from dataclasses import dataclass

from jax.sharding import Mesh
from ml_collections import ConfigDict

from radimagenet_jax.data import datasets
from radimagenet_jax.data.streaming import StreamedSplit
from radimagenet_jax.errors import ConfigError
from radimagenet_jax.training import distributed, examples, footprint, sharding

# What config.dataset.memory_gib=-1 stands for. CPUs have the machine's memory, and share this; of
# its own memory, an accelerator needs the rest for the step.
_HOST_BYTES = 4 * 2**30
_ACCELERATOR_SHARE = 1 / 3
_MIB, _GIB = 2**20, 2**30


@dataclass(frozen=True)
class Room:
    """Bytes of a device for the images of all splits.

    Attributes:
      whole: If every device has all of them, as the host then has too.
      part: If it has a part of them.
      there: That the device has, for whatever it is.
    """

    whole: int
    part: int
    there: int


def room(config: ConfigDict, mesh: Mesh) -> Room:
    """What a config gives, and what there is; all processes of a run must ask together."""
    memory, given = sharding.device_memory(mesh), config.dataset.memory_gib
    there = footprint.memory() // len(mesh.local_devices) if memory is None else memory
    # Processes may see different memory, but have to choose the same.
    there = distributed.as_lead_has_it(there // _MIB) * _MIB
    if given >= 0:
        return Room(int(given * _GIB), int(given * _GIB), there)
    if memory is None:
        return Room(_HOST_BYTES // mesh.size, _HOST_BYTES // mesh.size, there)
    part = int(there * _ACCELERATOR_SHARE)
    return Room(min(part, _HOST_BYTES), part, there)


def host_bytes(config: ConfigDict) -> int:
    """What a config gives images that the host alone has, as in a study."""
    given = config.dataset.memory_gib
    return int(given * _GIB) if given >= 0 else _HOST_BYTES


def load(config: ConfigDict, name: str, memory: int) -> datasets.Dataset:
    """Opens a data set as a config has it.

    Args:
      config: Of `configs/base.py`.
      name: Of the data set, with its fold.
      memory: Bytes that it may take in memory, for config.dataset.streaming='auto'.

    Raises:
      DataError: As `datasets.load`.
    """
    streaming = config.dataset.streaming
    if streaming == "sharded":  # the host reads a part at a time, and holds none of them
        streaming, memory = "auto", 0
    return datasets.load(
        name, config.dataset.data_dir, config.image_size, streaming=streaming, memory=memory
    )


@dataclass(frozen=True)
class Residence:
    """Where the images of a data set are.

    Attributes:
      where: 'whole', 'parts' or 'disk'.
      images: In all splits.
      devices: That have them, or share the batches of them.
      bytes: Of each device.
    """

    where: str
    images: int
    devices: int
    bytes: int

    def __str__(self) -> str:
        if self.where == "disk":
            return f"images: {self.images:,}, read from disk batch by batch"
        if self.devices == 1:
            return f"images: {self.images:,}, on the device, {_shown(self.bytes)}"
        how = " in parts" if self.where == "parts" else ""
        return f"images: {self.images:,}, on the devices{how}, {_shown(self.bytes)} each"


def choose(config: ConfigDict, dataset: datasets.Dataset, free: Room, devices: int) -> Residence:
    """Decides where the images of a data set live.

    Args:
      config: Of `configs/base.py`.
      dataset: Opened by `load`: what it has in memory goes on every device.
      free: For images.
      devices: That share a batch.

    Raises:
      ConfigError: If the config asks for what the devices have no memory for.
    """
    streaming = config.dataset.streaming
    splits = [getattr(dataset, name) for name in datasets.SPLITS]
    counts, one = [len(split) for split in splits], splits[0].read([0])
    image = examples.stored_bytes(one.shape[1:])
    part = image * sum(examples.part_size(count, devices) for count in counts)
    is_on_disk = isinstance(dataset.train, StreamedSplit)
    if streaming == "sharded" or (streaming == "auto" and is_on_disk and part <= free.part):
        found = Residence("parts", sum(counts), devices, part)
        instead = "use more devices, or config.dataset.streaming='true'"
    elif is_on_disk:
        return Residence("disk", sum(counts), devices, 0)
    else:
        found = Residence("whole", sum(counts), devices, image * sum(counts))
        instead = "use config.dataset.streaming='sharded' or 'true'"
    if found.bytes > free.there:
        raise ConfigError(
            f"config.dataset.streaming={streaming!r} puts {_shown(found.bytes)} of images on each "
            f"device ({devices} in all), which has {_shown(free.there)} of memory; {instead}, or a "
            "smaller config.image_size."
        )
    return found


def _shown(count: int) -> str:
    return f"{count / _GIB:,.1f} GiB" if count >= _GIB else f"{count / _MIB:,.1f} MiB"
