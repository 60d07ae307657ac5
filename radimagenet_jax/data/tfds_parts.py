"""The parts of TFDS that are used here and that it does not promise: a release may change them.

| part of `tensorflow_datasets` | since, at the latest | used for |
|---|---|---|
| `core.hashing.Hasher` | 2.1 | the order of records, which is TFDS' own |
| `core.shuffle.DuplicatedKeysError` | 2.1 | refusing two records of one key, as TFDS does |
| `core.shuffle.Shuffler`, by this name in `core.writer` | 4.9.5 | records that wait on disk |
| `_download_and_prepare` of a builder | 2.1 | what surrounds the writing of records |
| `_log_download_bytes` and `_log_download_done` of a builder | 2.1 | silence |

All else is what TFDS exports, and what it tells builders to override. Where a part has changed,
`tests/data/test_tfds_parts.py` names it.
"""

from abc import abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import tensorflow_datasets as tfds
from tensorflow_datasets.core import shuffle
from tensorflow_datasets.core.hashing import Hasher
from tensorflow_datasets.core.shuffle import DuplicatedKeysError

__all__ = ["DuplicatedKeysError", "Hasher", "HookedBuilder", "shuffling_by"]


class HookedBuilder(tfds.core.GeneratorBasedBuilder):
    """A builder that has a say in what TFDS does before, after and beside its examples."""

    @abstractmethod
    def writing(self) -> AbstractContextManager[None]:
        """Surrounds the making of the records; their folder gets its name after it."""

    @abstractmethod
    def is_silent(self) -> bool:
        """Whether TFDS shall not print where the data go and that they are done."""

    def _download_and_prepare(self, dl_manager: Any, download_config: Any) -> None:
        with self.writing():
            super()._download_and_prepare(dl_manager, download_config)

    def _log_download_bytes(self) -> None:
        if not self.is_silent():
            super()._log_download_bytes()

    def _log_download_done(self) -> None:
        if not self.is_silent():
            super()._log_download_done()


@contextmanager
def shuffling_by(make: Callable[..., Any]) -> Iterator[None]:
    """Makes TFDS order records by something else than its `Shuffler` within the block.

    TFDS lets a builder choose what writes a file and not what orders the records before: its
    writer makes the shuffler by this name, inside of the method that also makes the writer and
    encodes the examples. To replace one name, here only, repeats less of TFDS than a copy of that
    method would.

    Args:
      make: Takes the arguments of `Shuffler` and returns what has its interface.
    """
    original = shuffle.Shuffler
    shuffle.Shuffler = make
    try:
        yield
    finally:
        shuffle.Shuffler = original
