"""audit.html: one self-contained page on what an audit found, with the pictures concerned."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from radimagenet_jax.data.inspection import (
    MAX_HASH_DISTANCE,
    MIN_CONTRAST,
    MIN_CORRELATION,
    Findings,
    Group,
    Picture,
    is_contradictory,
    is_leaking,
)
from radimagenet_jax.reports import pages
from radimagenet_jax.reports.provenance import Provenance

GROUPS_SHOWN = 24
PICTURES_SHOWN = 8
ROWS_SHOWN = 40


def write(
    path: Path,
    findings: Findings,
    pixels: Callable[[Picture], np.ndarray | None],
    facts: Mapping[str, str],
    record: Provenance,
) -> Path:
    """Writes the page.

    Args:
      path: Where to.
      findings: Of `inspection.find`.
      pixels: Returns a picture's (H, W, 1 or 3) uint8 pixels, or None; it is asked for those that
        are shown only.
      facts: What was audited and how, name to text; 'title' heads the page.
      record: What the page was made by.

    Raises:
      OSError: If it cannot be written; nothing is left then.
    """

    def tiles(pictures: Sequence[Picture]) -> list[dict[str, Any]]:
        return [
            {
                "picture": picture,
                "image": pages.photograph(pixels(picture)),
                "caption": " · ".join(filter(None, (picture.split, picture.label))),
            }
            for picture in pictures[:PICTURES_SHOWN]
        ]

    def shown(groups: Sequence[Group]) -> list[dict[str, Any]]:
        return [
            {
                "tiles": tiles(group),
                "count": len(group),
                "contradictory": is_contradictory(group),
                "leaking": is_leaking(group),
            }
            for group in groups[:GROUPS_SHOWN]
        ]

    splits = sorted({picture.split for picture in findings.pictures}, key=_split_order)
    return pages.write(
        path,
        "audit.html",
        facts=facts,
        record=record,
        headline=headline(findings),
        splits=splits,
        class_counts=findings.class_counts,
        sizes=findings.sizes.most_common(ROWS_SHOWN),
        different_sizes=len(findings.sizes),
        modes=findings.modes.most_common(),
        unreadable=findings.unreadable,
        wrong_suffixes=findings.wrong_suffixes,
        empty=tiles(findings.empty),
        empty_count=len(findings.empty),
        shared_patients=sorted(findings.shared_patients.items()),
        kinds=[
            ("Exact copies", "The same pixels.", len(findings.exact), shown(findings.exact)),
            (
                "Near copies",
                f"Difference hashes within {MAX_HASH_DISTANCE} of 64 bits and thumbnails with "
                f"a correlation of {MIN_CORRELATION} at least; of exact copies the first only.",
                len(findings.near),
                shown(findings.near),
            ),
        ],
        min_contrast=MIN_CONTRAST,
        groups_shown=GROUPS_SHOWN,
        rows_shown=ROWS_SHOWN,
    )


def headline(findings: Findings) -> list[tuple[str, int, bool]]:
    """What the table on the terminal and the top of the page say.

    Returns:
      Rows of (name, number, whether the number speaks against the set).
    """
    groups = (*findings.exact, *findings.near)
    rows = [
        ("images", len(findings.pictures), False),
        ("images that cannot be read", len(findings.unreadable), True),
        ("empty images", len(findings.empty), True),
        ("groups of exact copies", len(findings.exact), True),
        ("groups of near copies", len(findings.near), True),
        ("groups of copies in several splits", sum(map(is_leaking, groups)), True),
        ("groups of copies with different labels", sum(map(is_contradictory, groups)), True),
        ("patients in several splits", len(findings.shared_patients), True),
        ("files whose suffix names another format", len(findings.wrong_suffixes), True),
        ("sizes", len(findings.sizes), False),
    ]
    return [(name, number, is_fault and number > 0) for name, number, is_fault in rows]


def _split_order(split: str) -> tuple[int, str]:
    order = ("train", "val", "test")
    return (order.index(split) if split in order else len(order), split)
