"""Finds a network within a file, whatever is built around it, and the head that it has there."""

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


def head(
    around: Mapping[str, Mapping[str, tuple[int, ...]]], width: int, kernel: str, inputs: int
) -> str:
    """Finds the one dense layer around a network that is a head on its pooled features.

    Args:
      around: Shapes of what is no part of the network, by layer and leaf.
      width: Of the pooled features.
      kernel: What a dense layer's kernel is called; beside it is a 'bias'.
      inputs: The kernel's axis of inputs, 0 or 1.

    Returns:
      The layer's name; '' if there is none, or it is not all that computes on the features.
    """
    heads = []
    for layer, shapes in around.items():
        sides = shapes.get(kernel, ())
        if set(shapes) == {kernel, "bias"} and len(sides) == 2:
            if sides[inputs] != width or shapes["bias"] != (sides[1 - inputs],):
                return ""
            heads.append(layer)
        elif any(len(shape) > 1 or shape == (width,) for shape in shapes.values()):
            return ""  # something else computes between the features and the classes
    return heads[0] if len(heads) == 1 else ""
