"""What TFDS leaves to a builder of how it is run: progress, silence, and shuffling on disk."""

import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from typing import Any, ClassVar, TypeVar

import tensorflow_datasets as tfds

from radimagenet_jax.data import spool
from radimagenet_jax.data.tfds_parts import HookedBuilder

T = TypeVar("T")

# A folder of one's own is a configuration that no builder lists, which is as it should be.
logging.getLogger("absl").addFilter(
    lambda record: not str(record.msg).startswith("Using custom data configuration")
)


class LocalInfo(tfds.core.DatasetInfo):
    """What is known of a data set, of which TFDS' own bucket has nothing."""

    def initialize_from_bucket(self) -> None:
        """Asks nobody: TFDS would, of each data set not prepared, and leave an empty folder."""


class LocalBuilder(HookedBuilder):
    """A builder that `preparation.prepare` runs, and `tfds build` as any other.

    Attributes:
      TERMS: One sentence on what the data may be used for; printed before anything is built.
      EXPECTED: Images a split, by configuration ('' without configurations); none for those of
        which no count is published, or whose tables are the user's own.
      workers: Threads that read and verify.
      beam: Whether Apache Beam reads the images, on the runner that TFDS is given.
      report: Called with the number of examples yielded so far, by whoever tells the user of the
        progress; None leaves that to TFDS.
    """

    TERMS: ClassVar[str]
    EXPECTED: ClassVar[dict[str, dict[str, int]]] = {}
    RELEASE_NOTES: ClassVar[dict[str, str]] = {"1.0.0": "First version."}
    workers = 1
    beam = False
    report: Callable[[int], None] | None = None
    _yielded = 0

    def __init__(self, **options: Any) -> None:
        # Records that are there before TFDS asks for them, by split.
        self.spools: dict[str, spool.SpoolShuffler] = {}
        super().__init__(**options)

    def dataset_info_from_configs(self, **options: Any) -> LocalInfo:
        """Returns the facts of a builder, with the texts of the files beside it."""
        texts = self.get_metadata()
        return LocalInfo(
            builder=self, description=texts.description, citation=texts.citation, **options
        )

    def counted(self, examples: Iterable[T]) -> Iterator[T]:
        """Yields a split's examples and reports each, in one count with the other splits'."""
        for example in examples:
            self._yielded += 1
            if self.report is not None:
                self.report(self._yielded)
            yield example

    def writing(self) -> AbstractContextManager[None]:
        """Shuffles on disk."""
        return spool.shuffling_on_disk(self.spools)

    def is_silent(self) -> bool:
        """Whether somebody else tells the user what TFDS would."""
        return self.report is not None
