"""Shuffling more records than fit in memory, while TFDS writes a data set.

TFDS sorts a split's records by a hash of their keys. Its own shuffler holds up to 1 GB of them in
memory, and beyond that needs TensorFlow to write its temporary files. This one keeps the records
in one temporary file from the start and in memory only where they lie (28 bytes a record), so
that memory hardly depends on the number of records; the order, and so the data set, is the same.
"""

import os
import tempfile
from array import array
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import IO

import numpy as np
from tensorflow_datasets.core import hashing, shuffle

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
        self._hasher = hashing.Hasher(hash_salt)
        self._keeps_order = disable_shuffling
        self._ignores_duplicates = ignore_duplicates
        handle, path = tempfile.mkstemp(dir=dirpath, prefix=".spool")
        os.unlink(path)
        self._file: IO[bytes] = os.fdopen(handle, "w+b")
        self._hashes = bytearray()
        self._lengths = array("I")

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
        self._hashes += self._hasher.hash_key(key).to_bytes(_HASH_BYTES, "big")
        self._lengths.append(len(data))
        self._file.write(data)

    def __iter__(self) -> Iterator[tuple[int, bytes]]:
        """Yields (hash of the key, record) in the order of the hashes.

        Raises:
          DuplicatedKeysError: If two records have one key.
        """
        self._file.flush()
        lengths = np.frombuffer(self._lengths, np.uint32)
        starts = np.cumsum(lengths, dtype=np.int64)
        starts -= lengths
        # Big-endian bytes sort as the numbers that they are. A stable sort keeps the first of
        # equals first. A fixed-width string would lose its final zero bytes; two halves do not.
        halves = np.frombuffer(self._hashes, ">u8").reshape(-1, 2)
        order: Sequence[int] | np.ndarray = range(len(lengths))
        if not self._keeps_order:
            order = np.lexsort((halves[:, 1], halves[:, 0]))
        handle = self._file.fileno()
        previous, previous_data = None, b""
        for place in order:
            high, low = halves[place].tolist()
            key = (high << 64) | low
            data = os.pread(handle, int(lengths[place]), int(starts[place]))
            if key == previous and not self._keeps_order:
                if self._ignores_duplicates:
                    continue
                raise shuffle.DuplicatedKeysError(data, previous_data)
            previous, previous_data = key, data
            yield key, data
        self._file.close()


@contextmanager
def shuffling_on_disk() -> Iterator[None]:
    """Makes TFDS write data sets through `SpoolShuffler` within the block."""
    original = shuffle.Shuffler
    shuffle.Shuffler = SpoolShuffler
    try:
        yield
    finally:
        shuffle.Shuffler = original
