"""Numbers and lists as parts of an English sentence."""

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

T = TypeVar("T")


def counted(count: int, noun: str, plural: str = "") -> str:
    """A number with its noun: '1 image', '1,024 images'.

    Args:
      count: How many.
      noun: Of one of them.
      plural: Of several; '' for the noun with an s.
    """
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"


def listed(values: Iterable[object]) -> str:
    """Values, one or more, as a sentence lists them: 'a', 'a and b', 'a, b and c'."""
    *most, last = map(str, values)
    return f"{', '.join(most)} and {last}" if most else last


def some(
    names: Sequence[T], most: int, each: Callable[[T], str] = str, further: str = "more"
) -> str:
    """The first few of what may be many: 'a, b and 1,234 more'.

    Args:
      names: All of them.
      most: How many are named.
      each: One as it is shown.
      further: What stands behind the number of the others.
    """
    shown, left = ", ".join(map(each, names[:most])), len(names) - most
    return shown if left <= 0 else f"{shown} and {left:,} {further}"
