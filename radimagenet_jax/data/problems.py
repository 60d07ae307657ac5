"""What is wrong with a source, collected, so that a person mends it all in one go."""

from collections.abc import Iterator
from contextlib import contextmanager

from radimagenet_jax.errors import DataError

# More than fit on a screen help nobody; the count tells how many there are.
SHOWN = 20
# A table of a million rows may have as many problems; memory need not hold them all.
KEPT = 1000


class Problems:
    """A list of sentences about one source, raised together at the end.

    Attributes:
      source: What the problems are of, such as a folder.
      sentences: One for each problem, in the order in which they were found, up to `KEPT`.
      count: How many problems there are.
    """

    def __init__(self, source: object) -> None:
        self.source = source
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

    def check(self) -> None:
        """Raises what was collected.

        Raises:
          DataError: The sentence itself if there is one, a summary if there are more.
        """
        if not self.sentences:
            return
        if self.count == 1:
            raise DataError(self.sentences[0])
        lines = [f"  {sentence}" for sentence in self.sentences[:SHOWN]]
        if (more := self.count - len(lines)) > 0:
            lines.append(f"  ... and {more:,} more.")
        raise DataError(f"{self.source} has {self.count:,} problems:\n" + "\n".join(lines))
