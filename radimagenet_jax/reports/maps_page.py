"""maps.html: activation maps to leaf through, image by image, the surest for the class first."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from markupsafe import Markup

from radimagenet_jax.reports import overlays, pages, provenance
from radimagenet_jax.reports.provenance import Provenance
from radimagenet_jax.wording import counted

PAGE = "maps.html"
# Images a page: as many as a browser loads at once.
_ON_A_PAGE = 60


@dataclass(frozen=True)
class Card:
    """One image of the page.

    Attributes:
      key: Its name.
      image: Path of the picture, relative to the page.
      overlay: Path of the same with its map.
      score: Of the class that the map is for, in [0, 1].
      called: Name of the class with the highest score.
      label: Name of its true class, '' where not known.
    """

    key: str
    image: str
    overlay: str
    score: float
    called: str
    label: str = ""


@dataclass(frozen=True)
class Shown:
    """What the page says of all its images.

    Attributes:
      of: Name of the class that the maps are for.
      limit: Of the colour scale, in units of the logit.
      facts: What was mapped and by what, name to text; 'title' heads the page.
      record: What the page was made by.
    """

    of: str
    limit: float
    facts: Mapping[str, str]
    record: Provenance = field(default_factory=Provenance)


def write(folder: Path, cards: Sequence[Card], shown: Shown) -> Path:
    """Writes the page, and further ones for more than 60 images.

    Args:
      folder: Where the pages go, beside the pictures.
      cards: The images, which are shown in the order of their scores.
      shown: What the page says of them.

    Returns:
      The first page.

    Raises:
      DataError: If a page cannot be written.
    """
    ordered = sorted(cards, key=lambda card: (-card.score, card.key))
    count = max(1, math.ceil(len(ordered) / _ON_A_PAGE))
    names = [PAGE, *(f"maps-{number}.html" for number in range(2, count + 1))]
    images = f"{counted(len(cards), 'image')} of {shown.facts['title']}"
    for number, name in enumerate(names):
        start = number * _ON_A_PAGE
        pages.write(
            folder / name,
            "maps.html",
            facts=shown.facts,
            of=shown.of,
            limit=shown.limit,
            record=shown.record,
            beside=provenance.title(shown.record),
            lead=provenance.application(shown.record, images),
            gradient=Markup(overlays.gradient()),
            cards=ordered[start : start + _ON_A_PAGE],
            first=start + 1,
            total=len(ordered),
            names=names,
            number=number,
        )
    return folder / PAGE
