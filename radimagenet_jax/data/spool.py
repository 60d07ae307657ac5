"""Shuffling more records than fit in memory, while TFDS writes a data set.

TFDS sorts a split's records by a hash of their keys. Its own shuffler holds up to 1 GB of them in
memory, and beyond that needs TensorFlow to write its temporary files. This one keeps the records
in one temporary file from the start and in memory only where they lie (20 bytes a record), so
that memory hardly depends on the number of records; the order, and so the data set, is the same.
"""

import os
import tempfile
from array import array
from collections.abc import Iterator, MutableMapping, Sequence
from contextlib import AbstractContextManager
from typing import IO, Any

import numpy as np

from radimagenet_jax.data.tfds_parts import DuplicatedKeysError, Hasher, shuffling_by

_HASH_BYTES = 16  # of MD5, which TFDS hashes keys with


class SpoolShuffler:
    """Takes the place of `tensorflow_datasets.core.shuffle.Shuffler`, whose interface it has."""

    def __init__(
        self,
        dirpath: str | os.PathLike[str],
        hash_salt: str | bytes,
        disable_shuffling: bool = False,
        ignore_duplicates: bool = False,
    ):
        """Opens the temporary file, which has no name and vanishes with this object.

        Args:
          dirpath: An existing folder with room for the records.
          hash_salt: Salt of the keys' hash, as TFDS gives it.
          disable_shuffling: Keep the order in which records are added.
          ignore_duplicates: Of records with one key keep the first, instead of refusing them.
        """
        self.hasher = Hasher(hash_salt)
        self._keeps_order = disable_shuffling
        self._ignores_duplicates = ignore_duplicates
        self._file = self._opened(dirpath)
        self._prefixes = array("Q")  # of the hashes, which the file holds whole
        self._lengths = array("I")
        self._starts = array("Q")

    def _opened(self, dirpath: str | os.PathLike[str]) -> IO[bytes]:
        handle, path = tempfile.mkstemp(dir=dirpath, prefix=".spool")
        os.unlink(path)
        return os.fdopen(handle, "w+b")

    @property
    def size(self) -> int:
        """Bytes of all records."""
        return int(np.sum(self._lengths, dtype=np.int64))

    @property
    def num_examples(self) -> int:
        """Number of records."""
        return len(self._lengths)

    @property
    def bucket_lengths(self) -> Sequence[int]:
        """Number of records in each of TFDS's buckets: here there is one."""
        return [len(self._lengths)]

    def add(self, key: str | bytes | int, data: bytes) -> None:
        """Appends one record."""
        self._append(self.hasher.hash_key(key), data)

    def _append(self, hashed: int, data: bytes) -> int:
        """Appends one record; returns where it begins in the file."""
        start = self._file.tell()
        self._file.write(hashed.to_bytes(_HASH_BYTES, "big"))
        self._file.write(data)
        self._note(hashed, start, len(data))
        return start

    def _note(self, hashed: int, start: int, length: int) -> None:
        self._prefixes.append(hashed >> 64)
        self._lengths.append(length)
        self._starts.append(start)

    def __iter__(self) -> Iterator[tuple[int, bytes]]:
        """Yields (hash of the key, record) in the order of the hashes.

        Raises:
          DuplicatedKeysError: If two records have one key.
        """
        self._file.flush()
        lengths = np.frombuffer(self._lengths, np.uint32)
        starts = np.frombuffer(self._starts, np.uint64)
        handle = self._file.fileno()
        previous, previous_data = None, b""
        for place in self._order(handle, starts):
            record = os.pread(handle, _HASH_BYTES + int(lengths[place]), int(starts[place]))
            key, data = int.from_bytes(record[:_HASH_BYTES], "big"), record[_HASH_BYTES:]
            if key == previous and not self._keeps_order:
                if self._ignores_duplicates:
                    continue
                raise DuplicatedKeysError(data, previous_data)
            previous, previous_data = key, data
            yield key, data
        self._file.close()

    def _order(self, handle: int, starts: np.ndarray) -> np.ndarray:
        """Returns (N,) uint32: the places of the records by their hashes, equals as added."""
        if self._keeps_order:
            return np.arange(len(starts), dtype=np.uint32)
        prefixes = np.frombuffer(self._prefixes, np.uint64)
        order = np.argsort(prefixes, kind="stable").astype(np.uint32)
        tied = np.flatnonzero(prefixes[order[1:]] == prefixes[order[:-1]])
        for first in tied[~np.isin(tied, tied + 1)]:  # where a run of equal prefixes begins
            last = first + 1
            while last < len(order) and prefixes[order[last]] == prefixes[order[first]]:
                last += 1
            run = order[first:last].tolist()
            run.sort(key=lambda place: os.pread(handle, _HASH_BYTES, int(starts[place])))
            order[first:last] = run
        return order


def shuffling_on_disk(
    filled: MutableMapping[str, SpoolShuffler] | None = None,
) -> AbstractContextManager[None]:
    """Makes TFDS write data sets through `SpoolShuffler` within the block.

    Args:
      filled: Spools that have their records already, by split; they are taken out as TFDS comes to
        their splits, and may be put in within the block.
    """

    def chosen(dirpath: Any, hash_salt: Any, **options: Any) -> SpoolShuffler:
        own = filled.pop(hash_salt, None) if filled else None
        return own or SpoolShuffler(dirpath, hash_salt, **options)

    return shuffling_by(SpoolShuffler if filled is None else chosen)
