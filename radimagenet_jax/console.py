"""What every part of the project says to a person, and how it fails."""

import contextlib
import logging
from collections.abc import Iterator
from typing import Any

from rich.console import Console
from rich.text import Text

from radimagenet_jax.errors import shown


class _PlainConsole(Console):
    r"""A console that takes texts as they are: no markup, no emoji codes, no terminal escapes.

    Names of files, classes and data sets are in most of what is said, and `[red]`, `:skull:` and
    `\x1b]0;` are names as well. Styles are given as arguments.
    """

    def render_str(self, text: str, **options: Any) -> Text:
        """See `rich.console.Console`; texts, cells and titles all come by here."""
        return super().render_str(shown(text), **(options | {"markup": False, "emoji": False}))


# Everything for people goes to standard error, so that standard output stays
# free for results (JSON, paths) that another program may read.
console = _PlainConsole(stderr=True, highlight=False, soft_wrap=True, markup=False, emoji=False)


def warn(message: str) -> None:
    """Prints one warning sentence."""
    console.print("warning:", style="bold yellow", end=" ")
    console.print(message)


def fail(message: str) -> None:
    """Prints one error sentence, in every process of a run."""
    console.quiet = False
    console.print("error:", style="bold red", end=" ")
    console.print(message)


@contextlib.contextmanager
def hushed(logger_name: str) -> Iterator[None]:
    """Keeps from the terminal what a library logs of errors that we tell in a sentence ourselves.

    Args:
      logger_name: Of the library's logger.
    """
    logger = logging.getLogger(logger_name)
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)
