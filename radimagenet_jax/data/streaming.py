"""Splits that stay on disk: records read, and decoded if need be, when a step asks for them.

What the host keeps of an example is its name, label and patient. These come from an index that is
made once, by reading every record and decoding its image, and is kept beside the records.
"""

import contextlib
import hashlib
import json
import os
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from radimagenet_jax.data import reader_processes
from radimagenet_jax.data.ahead import mapped
from radimagenet_jax.data.decoded import Pixels
from radimagenet_jax.data.images import decode, resize_nearest
from radimagenet_jax.data.registry import damaged
from radimagenet_jax.errors import DataError

if TYPE_CHECKING:
    import tensorflow_datasets as tfds

# Examples that one thread reads at a time: few enough that the threads share a batch evenly.
_PORTION = 32
# Threads that read decoded records, at least: they wait for the disk, not for a CPU.
_READERS = 8
_INDEX_VERSION = 2
_INDEXED = ("made_of", "is_colour", "keys", "patients", "labels", "digests")


@dataclass(frozen=True, slots=True)
class Record:
    """What is kept of one stored example.

    Attributes:
      key: Its unique name.
      patient: A pseudonym, or ''.
      label: Index of its class.
      digest: SHA-256 of the encoded image.
    """

    key: str
    patient: str
    label: int
    digest: bytes


class RecordSource:
    """A prepared split, at random access, in the order in which it is stored."""

    def __init__(self, built: "tfds.core.GeneratorBasedBuilder", split: str):
        """Opens the split's files.

        Raises:
          DataError: If they are damaged.
        """
        import tensorflow_datasets as tfds

        self.folder = Path(built.data_dir)
        self.split = split
        self.count: int = built.info.splits[split].num_examples
        self.files = tuple(Path(path) for path in built.info.splits[split].filepaths)
        with self._telling_damage():
            # Whole records, which `_parse` takes apart: TFDS's own way to NumPy arrays takes as
            # long as decoding an image, and holds Python's lock all the while.
            self._records = built.as_data_source(
                split, deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES
            )
            stored = len(self._records)
        if stored != self.count:
            raise damaged(
                self.folder, f"{split} has {stored} examples where {self.count} were written"
            )

    def read(self, places: Sequence[int]) -> list[dict[str, Any]]:
        """Reads examples by their places. Threads may share this source.

        Returns:
          The features of each example that have one value, by name: numbers as int or float,
          texts and encoded images as bytes.

        Raises:
          DataError: If the files are damaged.
        """
        with self._telling_damage():
            records = self._records.__getitems__([int(place) for place in places])
            return [_parse(record) for record in records]

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled, it is the way to its files, which are opened anew."""
        return _reopened, (self.folder, self.split)

    @contextlib.contextmanager
    def _telling_damage(self) -> Iterator[None]:
        try:
            yield
        # The readers of TFDS and array_record raise many kinds of errors on files that were cut,
        # overwritten or removed. To the user they all mean that the folder is of no use.
        except Exception as error:
            raise damaged(self.folder, error) from error


def _reopened(folder: Path, split: str) -> RecordSource:
    import tensorflow_datasets as tfds

    return RecordSource(tfds.builder_from_directory(folder), split)


def _parse(record: bytes) -> dict[str, Any]:
    from tensorflow_datasets.proto import tf_example_pb2

    example: dict[str, Any] = {}
    for name, feature in tf_example_pb2.Example.FromString(record).features.feature.items():
        values = getattr(feature, feature.WhichOneof("kind") or "bytes_list").value
        if len(values) == 1:
            example[name] = values[0]
    return example


@dataclass(frozen=True)
class StreamedSplit:
    """One split on disk; as `datasets.Split`, but without its images in memory.

    Attributes:
      source: The records.
      image_size: Side S of the images in pixels.
      channels: C of all images of the data set, 1 or 3.
      labels: (N,) int32, an index into the class names.
      keys: N unique names.
      patients: N pseudonyms, '' where the patient is unknown.
      ids: (N,) uint32, the CRC-32 of each key in UTF-8.
      pixels: The same images decoded, if they are to be read instead.
    """

    source: RecordSource
    image_size: int
    channels: int
    labels: np.ndarray
    keys: tuple[str, ...]
    patients: tuple[str, ...]
    ids: np.ndarray
    pixels: Pixels | None = None

    def __len__(self) -> int:
        return len(self.keys)

    def read(self, places: Sequence[int] | np.ndarray) -> np.ndarray:
        """Reads examples, decoded and resized.

        Args:
          places: B indices into the split.

        Returns:
          (B, S, S, C) uint8, 0..255, equal to what `datasets.Split` holds there.

        Raises:
          DataError: If the files are damaged.
        """
        if self.pixels is not None:
            return self.pixels.read(places)
        side = self.image_size
        images = np.empty((len(places), side, side, self.channels), np.uint8)
        for image, example in zip(images, self.source.read(list(places)), strict=True):
            try:
                decoded = decode(example["image"], name=f"'{example['key'].decode()}'")
            except DataError as error:
                raise damaged(self.source.folder, error) from error
            image[...] = resize_nearest(decoded, side)
        return images


class Order(Protocol):
    """An order of batches, such as `training.order.DataOrder`."""

    def batch(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns the indices (B,) int32 and the mask (B,) float32 of a step."""
        ...


@dataclass(frozen=True)
class Batch:
    """A host's share of a global batch.

    Attributes:
      images: (b, S, S, C) uint8.
      labels: (b,) int32.
      ids: (b,) uint32.
      mask: (b,) float32, 0 for padding.
    """

    images: np.ndarray
    labels: np.ndarray
    ids: np.ndarray
    mask: np.ndarray


class _Portions:
    """The images of the steps from `first` on, in portions: a source for grain.

    Grain's state is not used: which examples a portion holds follows from its number alone.
    """

    def __init__(self, split: StreamedSplit, order: Order, rows: np.ndarray, first: int, last: int):
        # A worker process gets a copy of this, and would have no use for a million names.
        none = split.labels[:0]
        self._split = replace(split, labels=none, keys=(), patients=(), ids=none)
        self._order, self._rows = order, rows
        self._first, self._steps = first, last - first
        self.per_step = -(-len(rows) // _PORTION)

    def __len__(self) -> int:
        return self._steps * self.per_step

    def __getitem__(self, number: int) -> np.ndarray:
        step, part = divmod(int(number), self.per_step)
        index, _ = self._order.batch(self._first + step)
        return self._split.read(index[self._rows][part * _PORTION : (part + 1) * _PORTION])


def batches(
    split: StreamedSplit,
    order: Order,
    rows: np.ndarray,
    first: int,
    last: int,
    *,
    threads: int | None = None,
    workers: int = 0,
) -> Generator[Batch, None, None]:
    """Yields a host's share of each step's batch, read and decoded ahead.

    Args:
      split: The examples.
      order: Which examples each step takes.
      rows: (b,) the rows of the global batch that are this host's.
      first: The first step.
      last: The step after the last one.
      threads: That read and decode; default one for each CPU, and a few more for what is decoded.
      workers: Processes that share these threads, for machines where one Python holds them up; 0:
        they are this process' own. Workers end when the iterator is closed, or with this process.

    Raises:
      DataError: If the files are damaged.
      ConfigError: If a worker is killed.
    """
    import grain  # it imports jax, which only preparing or looking at data does without

    portions = _Portions(split, order, rows, first, last)
    threads = threads or max(os.cpu_count() or 1, _READERS if split.pixels else 1)
    each = -(-threads // max(1, workers))
    # Two batches ahead, or what the threads hold if that is more.
    ahead = max(-(-2 * portions.per_step // max(1, workers)), each)
    options = grain.ReadOptions(num_threads=each, prefetch_buffer_size=ahead)
    dataset = grain.MapDataset.source(portions).to_iter_dataset(options)
    if workers:
        # A portion or two of each worker are in shared memory, of which containers have little.
        processes = grain.MultiprocessingOptions(workers, per_worker_buffer_size=1)
        dataset = dataset.mp_prefetch(processes, worker_init_fn=reader_processes.begin)
    images = iter(dataset)
    try:
        for step in range(first, last):
            # The first portion starts the workers.
            starting = workers and step == first
            with reader_processes.undisturbed() if starting else contextlib.nullcontext():
                parts = [next(images) for _ in range(portions.per_step)]
            index, mask = order.batch(step)
            chosen = index[rows]
            yield Batch(
                # What a worker gave is copied out of the shared memory.
                parts[0] if len(parts) == 1 and not workers else np.concatenate(parts),
                split.labels[chosen],
                split.ids[chosen],
                mask[rows],
            )
    except RuntimeError as error:
        reader_processes.tell_of_killed(error)
        raise
    finally:
        images.close()


def read_index(source: RecordSource) -> tuple[list[Record], int]:
    """Returns what is known of a split's examples, in their order, and their channels, 1 or 3.

    The first call reads and decodes all of them and keeps the result beside the records; where
    that folder cannot be written, every run does this.

    Raises:
      DataError: If the files are damaged.
    """
    path = source.folder / f".{source.split}_index.npz"
    # An index that is missing, damaged or of other records is made anew, and NumPy, zipfile and
    # zlib raise errors of many kinds on one that is damaged.
    with contextlib.suppress(Exception), np.load(path, allow_pickle=False) as kept:
        arrays = {name: kept[name] for name in _INDEXED}
        is_whole = str(kept["sha256"]) == _digest(arrays)
        if is_whole and str(arrays["made_of"]) == _state_of(source):
            return _unpack(arrays)
    records, is_colour = _scan(source)
    _keep(path, source, records, is_colour)
    return records, 3 if is_colour else 1


def _scan(source: RecordSource) -> tuple[list[Record], bool]:
    records: list[Record] = []
    is_colour = False

    def portion(start: int) -> tuple[list[Record], bool]:
        found, colour = [], False
        for example in source.read(range(start, min(start + _PORTION, source.count))):
            key = example["key"].decode()
            try:
                colour |= decode(example["image"], name=f"'{key}'").shape[-1] == 3
            except DataError as error:
                raise damaged(source.folder, error) from error
            digest = hashlib.sha256(example["image"]).digest()
            found.append(Record(key, example["patient"].decode(), int(example["label"]), digest))
        return found, colour

    workers = os.cpu_count() or 1
    starts = range(0, source.count, _PORTION)
    for found, colour in mapped(portion, starts, workers=workers, ahead=2 * workers):
        records += found
        is_colour |= colour
    return records, is_colour


def _keep(path: Path, source: RecordSource, records: Sequence[Record], is_colour: bool) -> None:
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    with contextlib.suppress(OSError):  # a read-only folder: the index is made at each start
        try:
            with temporary.open("wb") as file:
                arrays = {
                    "made_of": np.array(_state_of(source)),
                    "is_colour": np.array(is_colour),
                    "keys": _packed([record.key for record in records]),
                    "patients": _packed([record.patient for record in records]),
                    "labels": np.array([record.label for record in records], np.int32),
                    "digests": np.frombuffer(b"".join(r.digest for r in records), np.uint8),
                }
                np.savez(file, allow_pickle=False, sha256=np.array(_digest(arrays)), **arrays)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def _state_of(source: RecordSource) -> str:
    """What changes when the records do."""
    files = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in source.files]
    return json.dumps([_INDEX_VERSION, source.count, files])


def _digest(arrays: Mapping[str, np.ndarray]) -> str:
    sha = hashlib.sha256()
    for name in _INDEXED:
        sha.update(f"{name} {arrays[name].dtype.str} {arrays[name].shape}\n".encode())
        sha.update(arrays[name].tobytes())
    return sha.hexdigest()


def _packed(texts: Sequence[str]) -> np.ndarray:
    return np.frombuffer("\0".join(texts).encode(), np.uint8)


def _unpack(kept: Any) -> tuple[list[Record], int]:
    keys = kept["keys"].tobytes().decode().split("\0")
    patients = kept["patients"].tobytes().decode().split("\0")
    digests = kept["digests"].tobytes()
    records = [
        Record(key, patient, label, digests[32 * place : 32 * place + 32])
        for place, (key, patient, label) in enumerate(
            zip(keys, patients, kept["labels"].tolist(), strict=True)
        )
    ]
    return records, 3 if bool(kept["is_colour"]) else 1
