"""What a person sees of what takes long: a bar on a terminal, plain lines elsewhere."""

import contextlib
import time
from collections.abc import Iterator
from typing import Any, Self

from rich.progress import Progress, ProgressColumn

from radimagenet_jax.console import console

_LINE_EVERY = 30.0  # seconds, where there is no terminal


class Bar:
    """A bar of its columns on a terminal that can show one, as long as its block lasts.

    Lines printed through `console` appear above the bar.
    """

    def __init__(self, *columns: ProgressColumn, total: int | None = None, **fields: Any):
        """Takes what is shown.

        Args:
          columns: From left to right.
          total: How much there is to do, None where that is not known.
          fields: 'completed', and what the columns show by names of their own.
        """
        # A dumb terminal shows no bar: it gets the plain lines too.
        self._has_bar = console.is_terminal and not console.is_dumb_terminal
        self._bar = Progress(*columns, console=console, disable=not self._has_bar, transient=True)
        self._task = self._bar.add_task("", total=total, **fields)
        self._last_line = time.monotonic()

    def __enter__(self) -> Self:
        if self._has_bar:
            self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        # Else older releases of rich end what never began with an empty line.
        if self._has_bar:
            self._bar.stop()

    def update(self, **fields: Any) -> None:
        """Changes what is shown: 'completed', 'total', and fields of its own."""
        self._bar.update(self._task, **fields)

    def is_line_due(self, *, always: bool = False) -> bool:
        """Whether to print a line now, for want of a bar; if so, the next is due after a while."""
        now = time.monotonic()
        if self._has_bar or not (always or now - self._last_line >= _LINE_EVERY):
            return False
        self._last_line = now
        return True


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
