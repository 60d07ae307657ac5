"""Errors that a person can put right, each told in one sentence."""

import contextlib
from collections.abc import Iterator

# A sentence, and a list of twenty of them: beyond that a terminal scrolls the beginning away.
LONGEST_LINE = 1500
LONGEST = 12_000
# Of what is cut the end stays too, since a sentence ends with the remedy.
_END = 300
_MOST_LINES = 1000
_END_OF_LINE = "\n"


def shown(text: str) -> str:
    r"""A text as it can be put on a terminal.

    Names come from files, archives and flags, and may hold what colours a terminal, renames its
    window, rings, or turns the direction of writing: all that is not printable is shown escaped,
    such as `\x1b`, but for the ends of lines. What is too long is cut, and says how long it was.
    """
    lines = text.split("\n", _MOST_LINES)
    if len(lines) == 1:
        return _fitted(text, LONGEST_LINE, len(text))
    return _fitted("\n".join(_fitted(x, LONGEST_LINE, len(x)) for x in lines), LONGEST, len(text))


def cut(text: str, most: int = 120) -> str:
    """A piece of somebody's text as a part of a sentence: of one line, printable and short."""
    piece = escaped(text[: most + 1])
    return piece if len(piece) <= most else f"{piece[: most - 3]}..."


def _fitted(text: str, longest: int, length: int) -> str:
    """A text escaped and cut; `length`: that it had."""
    if len(text) <= longest and len(whole := escaped(text, but=_END_OF_LINE)) <= longest:
        return whole
    told = f" ... ({length:,} characters) ... "
    head = escaped(text[:longest], but=_END_OF_LINE)[: longest - _END - len(told)]
    return head + told + escaped(text[-_END:], but=_END_OF_LINE)[-_END:]


def escaped(text: str, *, but: str = "") -> str:
    r"""A text with escapes such as `\x1b` for all that is not printable, except for `but`."""
    if text.isprintable():
        return text
    return "".join(
        letter
        if letter.isprintable() or letter in but
        else letter.encode("unicode_escape").decode("ascii")
        for letter in text
    )


class UserError(Exception):
    """Something the user can mend: the message says what is wrong, where, and what to do.

    Commands print it without a traceback and exit with code 1 (see `command.run`). As a text it is
    what `shown` makes of the message, whatever names are in it.
    """

    def __str__(self) -> str:
        """The message, as a terminal can show it."""
        return shown(super().__str__())


@contextlib.contextmanager
def telling(problem: str, kind: type[UserError], remedy: str) -> Iterator[None]:
    """Tells in a sentence what the system refuses in its block, such as a disk that is full.

    Args:
      problem: What does not go, such as 'out/a.json cannot be written'.
      kind: Of the error.
      remedy: What to do.

    Raises:
      UserError: Of the kind, in place of an `OSError`: '<problem> (<reason>); <remedy>.'
    """
    try:
        yield
    except OSError as error:
        raise kind(f"{problem} ({error.strerror or error}); {remedy}.") from error


class ConfigError(UserError):
    """A config, flag or working directory that contradicts itself or the machine."""


class DataError(UserError):
    """Source files or records that are missing, damaged or contradictory."""


class WeightsError(UserError):
    """A weight file that cannot be loaded whole, strictly and safely."""


class CheckpointError(UserError):
    """A checkpoint that could not be written or restored."""


class ExportError(UserError):
    """An exported file that cannot be made, or that computes something else than its network."""
