"""The owners' XML file of a case: its TI-RADS category and the outlines of its nodules.

Its form, shortened:

    <case><number>100</number><age>53</age><sex>F</sex> ... <tirads>4b</tirads> ...
      <mark><image>1</image>
        <svg>[{"points": [{"x": 252, "y": 58}, ...], "annotation": {}, "regionType": "freehand"}]
        </svg></mark></case>
"""

import json
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass

from radimagenet_jax.data.source_files import SourceFile
from radimagenet_jax.errors import DataError

# TI-RADS categories as they are written in the files, and the published classes.
LABELS = {
    "2": "benign",
    "3": "benign",
    "4a": "malignant",
    "4b": "malignant",
    "4c": "malignant",
    "5": "malignant",
}

Outline = tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Case:
    """What a case's XML file says.

    Attributes:
      label: 'benign' or 'malignant', '' where the file has no TI-RADS category.
      outlines: The nodules' outlines by the number of the image, each a sequence of points (x, y)
        in pixels.
      unreadable: Numbers of the images whose outlines are no list of points.
    """

    label: str
    outlines: dict[int, list[Outline]]
    unreadable: tuple[int, ...]


def read_case(file: SourceFile) -> Case:
    """Reads a case's XML file.

    Raises:
      DataError: If it is no XML, declares a document type (which none of the owners' files does,
        and which can be used to exhaust memory), or has an unknown TI-RADS category.
    """
    content = file.read()
    if b"<!DOCTYPE" in content or b"<!ENTITY" in content:
        raise DataError(
            f"{file.shown} is refused: it declares a document type; download it from its owners "
            "again."
        )
    try:
        root = ElementTree.fromstring(content)
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise DataError(
            f"{file.shown} is no valid XML ({error}); download or copy it again."
        ) from error
    tirads = (root.findtext(".//tirads") or "").strip().lower()
    if tirads and tirads not in LABELS:
        raise DataError(
            f"{file.shown} has the unknown TI-RADS category '{tirads}'; known are "
            f"{', '.join(LABELS)}. Download it again."
        )
    outlines: dict[int, list[Outline]] = {}
    unreadable: list[int] = []
    for mark in root.iter("mark"):
        number = (mark.findtext("image") or "").strip()
        if not number.isdecimal():
            raise DataError(
                f"{file.shown} marks an image without a number ('{number}'); download it again."
            )
        text = (mark.findtext("svg") or "").strip()
        try:
            found = _outlines(text)
        except (ValueError, TypeError, KeyError, RecursionError):
            unreadable.append(int(number))
            continue
        outlines.setdefault(int(number), []).extend(found)
    return Case(LABELS.get(tirads, ""), outlines, tuple(unreadable))


def _outlines(text: str) -> list[Outline]:
    """Returns the outlines of a mark's JSON; fewer than three points enclose nothing."""
    regions = json.loads(text) if text else []
    found = [
        tuple((float(point["x"]), float(point["y"])) for point in region["points"])
        for region in regions
    ]
    # Of a coordinate that no pixel can have, such as NaN, nothing can be drawn.
    if any(abs(value) > 1e5 or value != value for each in found for xy in each for value in xy):
        raise ValueError("a point is far outside of every image")
    return [outline for outline in found if len(outline) >= 3]
