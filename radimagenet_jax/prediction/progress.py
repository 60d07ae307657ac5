"""What a person sees while images are scored: a bar on a terminal, plain lines elsewhere."""

import time
from types import TracebackType

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from radimagenet_jax.console import console
from radimagenet_jax.training.progress import duration

_PLAIN_EVERY = 30.0  # seconds between lines where there is no terminal


class ScoringProgress:
    """Counts files, images a second and the time left; use as a context manager."""

    def __init__(self, done: int, total: int):
        """Begins.

        Args:
          done: Files that an earlier process has done.
          total: Files or rows of a table.
        """
        self._total, self._first, self._images = total, done, 0
        self._began = self._last_line = time.monotonic()
        self._has_bar = console.is_terminal and not console.is_dumb_terminal
        self._bar = Progress(
            TextColumn("files"),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
            TextColumn("left"),
            console=console,
            disable=not self._has_bar,
            transient=True,
        )
        self._task = self._bar.add_task("files", total=total, completed=done, rate="")

    def __enter__(self) -> "ScoringProgress":
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._bar.stop()

    def advance(self, done: int, images: int) -> None:
        """Notes that so many files are done in all, and so many images since the last time."""
        now = time.monotonic()
        self._images += images
        rate = f"{self._images / max(now - self._began, 1e-9):.1f} images/s"
        self._bar.update(self._task, completed=done, rate=rate)
        if self._has_bar or now - self._last_line < _PLAIN_EVERY or done == self._first:
            return
        self._last_line = now
        left = (now - self._began) / (done - self._first) * (self._total - done)
        console.print(f"{done:,} of {self._total:,} files, {rate}, about {duration(left)} left")
