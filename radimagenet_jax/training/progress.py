"""What a person sees of a running training."""

import time

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    ProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from radimagenet_jax.console import console
from radimagenet_jax.progress import Bar, duration

_NARROW = 72  # columns of a terminal below which the figures leave no room for a bar
_WIDE = 100  # columns of a terminal that has room for the elapsed time


class TrainingProgress(Bar):
    """Shows steps, loss, images/s and the time left; use as a context manager."""

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
        super().__init__(
            *columns,
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
        epoch = self._epoch(max(step - 1, 0))
        self.update(completed=step, epoch=epoch, figures=figures)
        now = time.monotonic()
        if self._paced_from is None:
            # The pace is that from the first step on, which itself may have compiled for minutes.
            self._paced_from = step, now
        first, began = self._paced_from
        if self.is_line_due(always=step in (first, self._total)):
            left = ""
            if step > first:
                left = f"  {duration((now - began) / (step - first) * (self._total - step))} left"
            console.print(f"epoch {epoch}  step {step}/{self._total}  {figures}{left}")
