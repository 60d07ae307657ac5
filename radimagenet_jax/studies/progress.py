"""What a person sees of a running study: groups done, the one that runs, the time left."""

import time
from collections.abc import Sequence
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn

from radimagenet_jax.console import console
from radimagenet_jax.studies.plan import Group
from radimagenet_jax.training.progress import PLAIN_EVERY, Bar, duration


class StudyProgress(Bar):
    """Counts groups and estimates the time left from those of the same form that are done.

    Use as a context manager; lines printed through `console` appear above the bar.
    """

    def __init__(self, groups: Sequence[Group], records: Sequence[dict[str, Any] | None]):
        """Starts with what is on disk already.

        Args:
          groups: All that this process is to see done.
          records: The group's records, None where there is none.
        """
        self._took: dict[tuple[str, str, bool], list[float]] = {}
        self._left = list(groups)
        done = 0
        for group, record in zip(groups, records, strict=True):
            if record is not None and record["status"] == "done":
                self._note(group, record["seconds"])
                self._left.remove(group)
                done += 1
        super().__init__(
            TextColumn("groups"),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TextColumn("{task.fields[now]}"),
            TimeElapsedColumn(),
        )
        self._task = self._bar.add_task("study", total=len(groups), completed=done, now="")
        self._total, self._done = len(groups), done
        self._current: Group | None = None

    def begin(self, group: Group) -> None:
        """Notes that a group begins."""
        self._current = group
        self._say(f"{group.id} ({len(group.runs)} runs): begins", always=True)

    def after_epoch(self, epoch: int) -> None:
        """Notes an epoch of the group that runs."""
        if self._current is not None:
            self._say(f"{self._current.id}: epoch {epoch}")

    def end(self, group: Group, figures: dict[str, Any]) -> None:
        """Notes a group that is written down, with its 'seconds' and 'status'."""
        self._note(group, figures["seconds"])
        self._left.remove(group)
        self._done += 1
        self._bar.update(self._task, completed=self._done)
        console.print(
            f"{group.id}: {figures['status']} in {duration(figures['seconds'])}; "
            f"{self._done}/{self._total} groups{self._time_left()}"
        )

    def skip(self, group: Group) -> None:
        """Notes that another process computes a group."""
        self._left.remove(group)

    def _note(self, group: Group, seconds: float) -> None:
        self._took.setdefault(_kind(group), []).append(seconds / len(group.runs))

    def _time_left(self) -> str:
        every = [seconds for known in self._took.values() for seconds in known]
        if not self._left or not every:
            return ""
        total = 0.0
        for group in self._left:
            known = self._took.get(_kind(group), every)
            total += sum(known) / len(known) * len(group.runs)
        return f", about {duration(total)} left"

    def _say(self, now: str, *, always: bool = False) -> None:
        self._bar.update(self._task, now=now + self._time_left())
        passed = time.monotonic() - self._last_line
        if not self._has_bar and (always or passed >= PLAIN_EVERY):
            self._last_line = time.monotonic()
            console.print(now)


def _kind(group: Group) -> tuple[str, str, bool]:
    """What groups of about the same cost a run have in common."""
    run = group.runs[0]
    return run.model, run.structure, group.has_trunk
