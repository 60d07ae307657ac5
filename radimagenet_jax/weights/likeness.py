"""Where in a file a network is, and which: the one that has the most names in common with it."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from radimagenet_jax import models
from radimagenet_jax.errors import WeightsError

# Of all names of a file and a network, how many must be common before a mismatch
# is reported as a damaged file of that network, rather than as a strange file.
_LIKENESS = 0.5


class Place(NamedTuple):
    """Where a network is within a file.

    Attributes:
      architecture: Which it is.
      prefix: What stands before the names of its layers; '' for nothing.
      children: The network's children by their number, if numbers stand for their names.
    """

    architecture: str
    prefix: str
    children: tuple[tuple[str, str], ...] = ()


def likeliest(
    path: Path,
    asked: str,
    known: Sequence[str],
    likeness: Callable[[models.Architecture], Mapping[Place, float]],
    words: tuple[str, str, str, str],
) -> Place:
    """Finds a network within a file.

    Args:
      path: The file.
      asked: The architecture that it must be; '' takes any that is known.
      known: The architectures that have names of this scheme.
      likeness: The share of an architecture's names that the file has, 0 to 1, by place.
      words: For messages: whose file it is, what it has, what it should be, and how to save that.

    Returns:
      Where it is; if nothing is like what it must be, the start, where all of it is then missing.

    Raises:
      WeightsError: If there is none, or more than one.
    """
    writer, contents, wanted, alone = words
    scores = {
        place: score
        for name in ([asked] if asked else known)
        for place, score in likeness(models.architecture(name)).items()
    }
    best = max(scores.values(), default=0)
    if best < _LIKENESS and not asked:
        titles = ", ".join(models.architecture(name).title for name in known)
        raise WeightsError(
            f"{path} is a {writer} file of another network than {titles}: it has {contents}; give "
            f"the {wanted}."
        )
    found = [place for place, score in scores.items() if score == best]
    if len(found) > 1 and best >= _LIKENESS:
        places = ", ".join(sorted(repr(place.prefix) for place in found))
        raise WeightsError(
            f"{path} holds {len(found)} networks ({places}), and which one is meant cannot be "
            f"told; save {alone}."
        )
    return found[0] if found else Place(asked, "")
