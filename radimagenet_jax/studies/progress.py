"""What a person sees of a running study: runs done, their rate, the time left."""

import time
from collections.abc import Callable, Sequence
from typing import Any

from rich.progress import (
    BarColumn,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
)
from rich.text import Text

from radimagenet_jax.console import console
from radimagenet_jax.progress import Bar, duration
from radimagenet_jax.studies.plan import Group
from radimagenet_jax.wording import counted

_WIDE = 100  # columns of a terminal that has room for the epoch


class StudyProgress(Bar):
    """Counts runs and estimates the time left, which goes down between two epochs too.

    Groups of the same form that are done tell how long the others take; before there is one, the
    epochs of the group that runs. Use as a context manager.
    """

    def __init__(
        self, groups: Sequence[Group], records: Sequence[dict[str, Any] | None], epochs: int
    ):
        """Starts with what is on disk already.

        Args:
          groups: All that this process is to see done.
          records: The group's records, None where there is none.
          epochs: Of each run.
        """
        self._took: dict[tuple[str, ...], list[float]] = {}
        self._waiting = list(groups)
        self._epochs, self._epoch = epochs, 0
        self._runs, self._total = 0, sum(len(group.runs) for group in groups)
        for group, record in zip(groups, records, strict=True):
            if record is not None and record["status"] == "done":
                self._note(group, record["seconds"])
                self._waiting.remove(group)
                self._runs += len(group.runs)
        self._first, self._began = self._runs, time.monotonic()
        self._current: Group | None = None
        # Compiling is in a group's first epoch.
        self._group_began = self._first_ended = self._epoch_ended = self._began
        columns: list[ProgressColumn] = [
            BarColumn(),
            TextColumn("{task.fields[runs]}"),
            TextColumn("{task.fields[rate]}"),
            TimeElapsedColumn(),
            _Live(self._time_left),
        ]
        if console.width >= _WIDE:
            columns.insert(2, TextColumn("{task.fields[epoch]}"))
        super().__init__(*columns, total=self._total, runs="", rate="", epoch="")
        self._draw()

    def begin(self, group: Group) -> None:
        """Notes that a group begins."""
        self._waiting.remove(group)
        self._current, self._epoch = group, 0
        self._group_began = self._epoch_ended = time.monotonic()
        self._say(f"{group.id} ({counted(len(group.runs), 'run')}): begins", always=True)

    def after_epoch(self, epoch: int) -> None:
        """Notes an epoch of the group that runs."""
        if self._current is not None:
            self._epoch, self._epoch_ended = epoch, time.monotonic()
            if epoch == 1:
                self._first_ended = self._epoch_ended
            self._say(f"{self._current.id}: epoch {epoch}/{self._epochs}{self._tail()}")

    def end(self, group: Group, figures: dict[str, Any]) -> None:
        """Notes a group that is written down, with its 'seconds' and 'status'."""
        self._note(group, figures["seconds"])
        self._current, self._epoch = None, 0
        self._runs += len(group.runs)
        self._draw()
        console.say(
            f"{group.id}: {figures['status']} in {duration(figures['seconds'])}; "
            f"{self._runs}/{counted(self._total, 'run')}{self._tail()}"
        )

    def skip(self, group: Group) -> None:
        """Notes that another process computes a group."""
        self._waiting.remove(group)

    def seconds_left(self) -> float | None:
        """An estimate for all groups of this process, None before anything is known."""
        now = time.monotonic()
        own = 0.0
        known = [seconds for each in self._took.values() for seconds in each]
        mean = sum(known) / len(known) if known else None
        if self._current is not None:
            whole = self._expected(self._current, mean)
            if self._epoch > 1 or self._epoch == self._epochs:
                each = (self._epoch_ended - self._first_ended) / max(1, self._epoch - 1)
                left = (self._epochs - self._epoch) * each
                whole = self._epoch_ended - self._group_began + left
                if mean is None:
                    mean = whole / len(self._current.runs)
            own = 0.0 if whole is None else max(0.0, whole - (now - self._group_began))
        if mean is None:
            return None
        return own + sum(self._expected(group, mean) or 0.0 for group in self._waiting)

    def _note(self, group: Group, seconds: float) -> None:
        for kind in _kinds(group):
            self._took.setdefault(kind, []).append(seconds / len(group.runs))

    def _expected(self, group: Group, mean: float | None) -> float | None:
        """What a group will take by those of its form, else by the mean of a run if it is known."""
        for kind in _kinds(group):
            if known := self._took.get(kind):
                return sum(known) / len(known) * len(group.runs)
        return None if mean is None else mean * len(group.runs)

    def _time_left(self) -> str:
        seconds = self.seconds_left() if self._waiting or self._current else None
        return "" if seconds is None else f"about {duration(seconds)} left"

    def _tail(self) -> str:
        return f", {left}" if (left := self._time_left()) else ""

    def _draw(self) -> None:
        share = self._epoch / self._epochs * len(self._current.runs) if self._current else 0.0
        hours = (time.monotonic() - self._began) / 3600
        rate = (self._runs - self._first + share) / hours if hours > 0 else 0.0
        self.update(
            completed=self._runs + share,
            runs=f"{self._runs}/{counted(self._total, 'run')}",
            rate="" if not rate else f"{rate / 60:.1f}/min" if rate >= 60 else f"{rate:.1f}/h",
            epoch=f"epoch {self._epoch}/{self._epochs}" if self._epoch else "",
        )

    def _say(self, now: str, *, always: bool = False) -> None:
        self._draw()
        if self.is_line_due(always=always):
            console.say(now)


class _Live(ProgressColumn):
    """A text that is made anew whenever the bar is drawn."""

    def __init__(self, text: Callable[[], str]):
        super().__init__()
        self._text = text

    def render(self, task: Task) -> Text:
        """Of the moment."""
        del task
        return Text(self._text())


def _kinds(group: Group) -> tuple[tuple[str, ...], ...]:
    """What groups of about the same cost a run have in common, closest first."""
    run = group.runs[0]
    form = (run.model, run.structure, str(group.has_trunk))
    return (run.task, *form), form
