"""What a person sees of a running training: a bar on a terminal, plain lines elsewhere."""

import contextlib
import time
from collections.abc import Iterator
from types import TracebackType
from typing import Self

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from radimagenet_jax.console import console

PLAIN_EVERY = 30.0  # seconds between lines where there is no terminal
_NARROW = 72  # columns of a terminal below which the figures leave no room for a bar
_WIDE = 100  # columns of a terminal that has room for the elapsed time


class Bar:
    """A bar of its columns on a terminal that can show one, as long as its block lasts."""

    def __init__(self, *columns: ProgressColumn):
        # A dumb terminal shows no bar: it gets the plain lines too.
        self._has_bar = console.is_terminal and not console.is_dumb_terminal
        self._bar = Progress(*columns, console=console, disable=not self._has_bar, transient=True)
        self._last_line = time.monotonic()

    def __enter__(self) -> Self:
        if self._has_bar:
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # Else older releases of rich end what never began with an empty line.
        if self._has_bar:
            self._bar.stop()


class TrainingProgress(Bar):
    """Shows steps, loss, images/s and the time left.

    Use as a context manager; lines printed through `console` appear above the bar.
    """

    def __init__(self, first_step: int, total_steps: int, steps_per_epoch: int):
        self._total = total_steps
        self._steps_per_epoch = steps_per_epoch
        self._paced_from: tuple[int, float] | None = None
        columns: list[ProgressColumn] = [
            TextColumn("epoch {task.fields[epoch]}"),
            MofNCompleteColumn(),
            TextColumn("{task.fields[figures]}"),
            TimeRemainingColumn(),
            TextColumn("left"),
        ]
        if console.width >= _NARROW:
            columns.insert(1, BarColumn())
        if console.width >= _WIDE:
            columns += [TimeElapsedColumn(), TextColumn("elapsed")]
        super().__init__(*columns)
        self._task = self._bar.add_task(
            "train",
            total=total_steps,
            completed=first_step,
            epoch=self._epoch(first_step),
            figures="",
        )

    def _epoch(self, step: int) -> str:
        last = self._total // self._steps_per_epoch
        return f"{min(step // self._steps_per_epoch + 1, last)}/{last}"

    def step(self, step: int, loss: float, images_per_second: float | None) -> None:
        """Notes that so many steps are done."""
        rate = f"{images_per_second:.1f} images/s" if images_per_second else ""
        figures = f"loss {loss:.4f}  {rate}".rstrip()
        self._bar.update(
            self._task, completed=step, epoch=self._epoch(max(step - 1, 0)), figures=figures
        )
        now = time.monotonic()
        if self._paced_from is None:
            # The pace is that from the first step on, which itself may have compiled for minutes.
            self._paced_from = step, now
        first, began = self._paced_from
        due = now - self._last_line >= PLAIN_EVERY or step in (first, self._total)
        if due and not self._has_bar:
            self._last_line = now
            left = ""
            if step > first:
                left = f"  {duration((now - began) / (step - first) * (self._total - step))} left"
            console.print(
                f"epoch {self._epoch(max(step - 1, 0))}  step {step}/{self._total}  {figures}{left}"
            )


@contextlib.contextmanager
def waiting(what: str) -> Iterator[None]:
    """Says that something takes a while, then how long it took."""
    began = time.monotonic()
    with console.status(f"{what} ..."):
        yield
    console.print(f"{what}: {duration(time.monotonic() - began)}")


def duration(seconds: float) -> str:
    """A time span for people, such as '1 h 02 min', '3 min 20 s' or '4 s'."""
    whole = round(seconds)
    if whole >= 3600:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    if whole >= 60:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole} s"
