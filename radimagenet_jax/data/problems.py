"""What is wrong with a source, collected, so that a person mends it all in one go."""

from collections.abc import Iterator
from contextlib import contextmanager

from radimagenet_jax.errors import DataError

# More than fit on a screen help nobody; the count tells how many there are.
SHOWN = 20


class Problems:
    """A list of sentences about one source, raised together at the end.

    Attributes:
      source: What the problems are of, such as a folder.
      sentences: One for each problem, in the order in which they were found.
    """

    def __init__(self, source: object) -> None:
        self.source = source
        self.sentences: list[str] = []

    @contextmanager
    def collecting(self) -> Iterator[None]:
        """Notes a `DataError` of the block instead of passing it on."""
        try:
            yield
        except DataError as error:
            self.sentences.append(str(error))

    def check(self) -> None:
        """Raises what was collected.

        Raises:
          DataError: The sentence itself if there is one, a summary if there are more.
        """
        if not self.sentences:
            return
        if len(self.sentences) == 1:
            raise DataError(self.sentences[0])
        lines = [f"  {sentence}" for sentence in self.sentences[:SHOWN]]
        if more := len(self.sentences) - SHOWN:
            lines += [f"  ... and {more:,} more."] if more > 0 else []
        raise DataError(f"{self.source} has {len(self.sentences):,} problems:\n" + "\n".join(lines))
