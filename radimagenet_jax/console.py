"""What every part of the project says to a person, and how it fails."""

import contextlib
import logging
import os.path
import re
import textwrap
from collections.abc import Iterator
from typing import Any

from rich.console import Console
from rich.text import Text

from radimagenet_jax.errors import shown

_LONGEST_NAME = 12  # words that a path is looked for in
_FOLDER = re.compile(r"[^/~.'\"(][^/:]*/")  # a word within a path: no path begins with it
_ENDS = ",;:."  # of a part of a sentence: no path goes on behind
_NO_BREAK = "\ue000"  # of the private use area: it is in no text of ours, and is no space


class _PlainConsole(Console):
    r"""A console that takes texts as they are: no markup, no emoji codes, no terminal escapes.

    Names of files, classes and data sets are in most of what is said, and `[red]`, `:skull:` and
    `\x1b]0;` are names as well. Styles are given as arguments.
    """

    def say(self, message: str, start: str = "", style: str = "") -> None:
        """Prints a sentence, on a terminal with its lines broken between words.

        Args:
          message: The sentence.
          start: What comes before it, in the style.
          style: Of rich.
        """
        text = shown(f"{start} {message}" if start else message)
        if self.is_terminal:
            text = wrapped(text, self.width)
        self.print(Text(text[: len(start)], style), Text(text[len(start) :]), sep="")

    def render_str(self, text: str, **options: Any) -> Text:
        """See `rich.console.Console`; texts, cells and titles all come by here."""
        return super().render_str(shown(text), **(options | {"markup": False, "emoji": False}))


def wrapped(text: str, width: int) -> str:
    """Breaks a text's lines between words, where they are longer than a terminal is wide.

    A path or an address stays whole, so that it can be taken from the terminal: a longer one runs
    on. Spaces within a path are told by the file that is there, or by a slash after them.

    Args:
      text: To be printed.
      width: In columns, > 0.
    """
    return "\n".join(
        textwrap.fill(
            _without_breaks(line),
            width,
            break_long_words=False,
            break_on_hyphens=False,
            replace_whitespace=False,
        ).replace(_NO_BREAK, " ")
        if len(line) > width
        else line
        for line in text.split("\n")
    )


def _without_breaks(line: str) -> str:
    """A line with spaces of its own kind within paths: whose files are there, or to a folder's."""
    words = line.split(" ")
    done: list[str] = []
    while words:
        taken = 1
        for count in range(min(len(words), _LONGEST_NAME), 1, -1):
            if "/" not in words[0] or any(word[-1:] in _ENDS for word in words[: count - 1]):
                continue
            if _FOLDER.match(words[count - 1]) or os.path.lexists(
                " ".join(words[:count]).strip(f"'\"({_ENDS}")
            ):
                taken = count
                break
        done.append(_NO_BREAK.join(words[:taken]))
        words = words[taken:]
    return " ".join(done)


# Everything for people goes to standard error, so that standard output stays
# free for results (JSON, paths) that another program may read.
console = _PlainConsole(stderr=True, highlight=False, soft_wrap=True)


def warn(message: str) -> None:
    """Prints one warning sentence."""
    console.say(message, "warning:", "bold yellow")


def fail(message: str) -> None:
    """Prints one error sentence, in every process of a run."""
    console.quiet = False
    console.say(message, "error:", "bold red")


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
