"""What a person sees while images are scored: a bar on a terminal, plain lines elsewhere."""

import time

from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn

from radimagenet_jax.console import console
from radimagenet_jax.training.progress import PLAIN_EVERY, Bar, duration


class ScoringProgress(Bar):
    """Counts files, images a second and the time left; use as a context manager."""

    def __init__(self, done: int, total: int):
        """Begins.

        Args:
          done: Files that an earlier process has done.
          total: Files or rows of a table.
        """
        self._total, self._first, self._images = total, done, 0
        self._began = time.monotonic()
        super().__init__(
            TextColumn("files"),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
            TextColumn("left"),
        )
        self._task = self._bar.add_task("files", total=total, completed=done, rate="")

    def advance(self, done: int, images: int) -> None:
        """Notes that so many files are done in all, and so many images since the last time."""
        now = time.monotonic()
        self._images += images
        rate = f"{self._images / max(now - self._began, 1e-9):.1f} images/s"
        self._bar.update(self._task, completed=done, rate=rate)
        if self._has_bar or now - self._last_line < PLAIN_EVERY or done == self._first:
            return
        self._last_line = now
        left = (now - self._began) / (done - self._first) * (self._total - done)
        console.print(f"{done:,} of {self._total:,} files, {rate}, about {duration(left)} left")
