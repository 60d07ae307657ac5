"""What is wrong with a source, collected, so that a person mends it all in one go."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from radimagenet_jax.errors import DataError

# More than fit on a screen help nobody; all of them are in a file.
SHOWN = 20
# A table of a million rows may have as many problems; beyond these they wait on the disk.
KEPT = 1000


class Problems:
    """A list of sentences about one source, raised together at the end.

    Attributes:
      source: What the problems are of, such as a folder.
      sentences: One for each problem, in the order in which they were found, up to `KEPT`.
      count: How many problems there are.
      listing: The file that takes all of them where they are more than `SHOWN`; None for no file.
    """

    def __init__(self, source: object, listing: Path | None = None) -> None:
        self.source = source
        self.listing = listing
        self._rest: IO[str] | None = None
        self.sentences: list[str] = []
        self.count = 0

    @contextmanager
    def collecting(self) -> Iterator[None]:
        """Notes a `DataError` of the block instead of passing it on."""
        try:
            yield
        except DataError as error:
            self.add(str(error))

    def add(self, sentence: str) -> None:
        """Notes a problem."""
        self.count += 1
        if len(self.sentences) < KEPT:
            self.sentences.append(sentence)
        elif self.listing is not None:
            if self._rest is None:
                # It is deleted as soon as nobody has it open.
                self._rest = tempfile.SpooledTemporaryFile(2**20, "w+", encoding="utf-8")  # noqa: SIM115
            self._rest.write(sentence + "\n")

    def check(self, remedy: str = "") -> None:
        """Raises what was collected.

        Args:
          remedy: A sentence on what else can be done about all of them.

        Raises:
          DataError: The sentence itself if there is one, a summary if there are more.
        """
        if not self.sentences:
            return
        if self.count == 1:
            raise DataError(f"{self.sentences[0]} {remedy}".rstrip())
        lines = [f"  {sentence}" for sentence in self.sentences[:SHOWN]]
        if (more := self.count - len(lines)) > 0:
            lines.append(f"  ... and {more:,} more.")
            if self.listing is not None:
                lines.append(f"  {self._listed(self.listing)}")
        if remedy:
            lines.append(f"  {remedy}")
        raise DataError(f"{self.source} has {self.count:,} problems:\n" + "\n".join(lines))

    def _listed(self, listing: Path) -> str:
        """Writes all problems to their file; returns a sentence on where they are."""
        try:
            listing.parent.mkdir(parents=True, exist_ok=True)
            with listing.open("w", encoding="utf-8", errors="backslashreplace") as file:
                file.writelines(f"{sentence}\n" for sentence in self.sentences)
                if self._rest is not None:
                    self._rest.seek(0)
                    file.writelines(self._rest)
        except OSError as error:
            return f"They could not all be written to {listing} ({error.strerror or error})."
        return f"All {self.count:,} are in {listing}."
