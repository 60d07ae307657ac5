"""localisation.html: one self-contained page on whether a network looks at the lesion."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray
from PIL import Image

from radimagenet_jax.reports import figures, overlays, pages, provenance, svg
from radimagenet_jax.reports.provenance import Provenance
from radimagenet_jax.statistics import intervals, localisation
from radimagenet_jax.statistics.localisation import (
    MAXIMUM,
    QUANTILE,
    THRESHOLDS,
    Estimate,
    Judged,
    Threshold,
)

# Images of each of the three groups.
EXAMPLES = 4
_SIDE = 256  # pixels of a picture's longer side: shown at two thirds, so sharp on dense screens
LESION = (0, 235, 255)
REGION = (255, 225, 60)
_FAMILIES = {MAXIMUM: "fraction of the map’s maximum", QUANTILE: "quantile of the map"}
_WORDS = {
    "better": "better than a disc in the middle of the image",
    "worse": "worse than a disc in the middle of the image",
    "undecided": "not told apart from a disc in the middle of the image",
}


@dataclass(frozen=True)
class Tested:
    """The N test images that have a lesion.

    Attributes:
      keys: Their names.
      patients: Pseudonyms, '' where not known.
      labels: Names of their classes.
      maps: (N, h, w) float32, >= 0, in units of the logit.
      read: Gives the image (H, W, 1 or 3) uint8 and the mask (H, W) bool of a number.
    """

    keys: Sequence[str]
    patients: Sequence[str]
    labels: Sequence[str]
    maps: NDArray[np.float32]
    read: Callable[[int], tuple[NDArray[np.uint8], NDArray[np.bool_]]]


@dataclass(frozen=True)
class Compared:
    """The kinds of map that are compared; the first of `judged` is the run's own.

    Attributes:
      judged: By name.
      differences: Mean test Dice of the first minus that of another, by the other's name.
      disc: Name of the disc in the middle.
      against: Name of another run's maps; '' for none.
    """

    judged: Mapping[str, Judged]
    differences: Mapping[str, Estimate]
    disc: str
    against: str = ""

    @property
    def own(self) -> Judged:
        """The run's own maps."""
        return next(iter(self.judged.values()))


def write(
    path: Path,
    compared: Compared,
    tested: Tested,
    facts: Mapping[str, Any],
    record: Provenance,
) -> Path:
    """Writes the page; it appears whole or not at all.

    Args:
      path: Where to.
      compared: The kinds of map and their figures.
      tested: The images.
      facts: 'dataset', 'of' (the class), 'run', 'against' (None or the other run), 'image_size',
        'counts' (split to images with and without a lesion), 'disc_share', 'notes' (sentences to be
        read with the figures) and 'further' (rows of name and text on where the page comes from).
      record: What the page was made by.

    Raises:
      DataError: If it cannot be written.
    """
    own, patients = compared.own, tested.patients
    groups = localisation.units(patients)
    with svg.drawing():
        curves = [Markup(each) for each in _curves(own, compared.judged[compared.disc])]
    return pages.write(
        path,
        "localisation.html",
        facts=facts,
        record=record,
        model=provenance.title(record),
        lead=provenance.application(record, f"{len(patients):,} test images with a lesion"),
        grid=tested.maps.shape[1:],
        groups=groups,
        over=intervals.in_words(groups.patients, groups.unknown),
        headline=_headline(compared, patients),
        rows=rows(compared, patients),
        against=comparison(compared) if compared.against else "",
        classes=_classes(compared, tested),
        curves=curves,
        threshold=in_words(own.threshold),
        values=(THRESHOLDS[0].value, THRESHOLDS[-1].value, len(THRESHOLDS) // 2),
        strips=_strips(own, tested),
        gradient=overlays.gradient(),
        colours={
            "lesion": "rgb({}, {}, {})".format(*LESION),
            "region": "rgb({}, {}, {})".format(*REGION),
        },
    )


def in_words(threshold: Threshold | None) -> str:
    """A threshold, as a table says it; '' for none."""
    if threshold is None:
        return ""
    if threshold.family == MAXIMUM:
        return f"{100 * threshold.value:.0f} % of the map’s maximum"
    return f"the highest {100 * (1 - threshold.value):.0f} % of the map"


def sentence(compared: Compared, patients: Sequence[str]) -> str:
    """What was found, in one sentence."""
    dice = localisation.mean(compared.own.column("test", "dice"), patients)
    disc = compared.judged[compared.disc].column("test", "dice").mean()
    difference = compared.differences[compared.disc]
    return (
        f"The maps have a mean Dice of {dice.value:.3f}{_between(dice)}, "
        f"{_WORDS[localisation.verdict(difference)]}, which has {disc:.3f} (difference "
        f"{_signed(difference.value)}{_between(difference, '; ')})."
    )


def comparison(compared: Compared) -> str:
    """What was found of the two runs, in one sentence."""
    own, other = compared.own, compared.judged[compared.against]
    difference = compared.differences[compared.against]
    means = [float(one.column("test", "dice").mean()) for one in (own, other)]
    size = f"{_signed(difference.value)}{_between(difference)}"
    both = f"mean Dice {means[0]:.3f} against {means[1]:.3f}, a difference of {size}"
    verdict = localisation.verdict(difference)
    if verdict == "undecided":
        return f"These images do not tell the {own.title} and the {other.title} apart: {both}."
    ahead, behind = (own, other) if verdict == "better" else (other, own)
    return f"The {ahead.title} overlap the lesions better than the {behind.title}: {both}."


def rows(compared: Compared, patients: Sequence[str]) -> list[dict[str, Any]]:
    """The table of all kinds of map: 'title', 'threshold', and `Estimate`s on test.

    These are 'dice', 'iou', 'points' and 'difference', which is None for the run's own maps.
    """
    return [
        {
            "title": one.title,
            "threshold": in_words(one.threshold) or "none",
            "dice": localisation.mean(one.column("test", "dice"), patients),
            "iou": localisation.mean(one.column("test", "iou"), patients),
            "points": localisation.share(one.test.points, patients),
            "difference": compared.differences.get(name),
        }
        for name, one in compared.judged.items()
    ]


def _headline(compared: Compared, patients: Sequence[str]) -> dict[str, Any]:
    own, disc = compared.own, compared.judged[compared.disc]
    dice = localisation.mean(own.column("test", "dice"), patients)
    difference = compared.differences[compared.disc]
    return {
        "dice": dice,
        "disc": float(disc.column("test", "dice").mean()),
        "difference": difference,
        "sign": _signed(difference.value),
        "words": _WORDS[localisation.verdict(difference)],
        "verdict": localisation.verdict(difference),
        "points": float(own.test.points.mean()),
        "low": None if dice.low is None else max(0.0, dice.low),
        "high": None if dice.high is None else min(1.0, dice.high),
    }


def _classes(compared: Compared, tested: Tested) -> list[dict[str, Any]]:
    """The run's maps and the disc by the images' class."""
    own, disc = compared.own, compared.judged[compared.disc]
    found = []
    for label in sorted(set(tested.labels)):
        members = [number for number, name in enumerate(tested.labels) if name == label]
        patients = [tested.patients[number] for number in members]
        found.append(
            {
                "label": label,
                "count": len(members),
                "dice": localisation.mean(own.column("test", "dice")[members], patients),
                "disc": localisation.mean(disc.column("test", "dice")[members], patients),
                "points": localisation.share(own.test.points[members], patients),
                "silent": int((own.test.region[members].max(axis=1) == 0).sum()),
            }
        )
    return found


def _curves(own: Judged, disc: Judged) -> list[str]:
    """The sweep of each family of thresholds."""
    val, test = own.val.dice.mean(axis=0), own.test.dice.mean(axis=0)
    line = float(disc.val.dice.mean())
    top = min(1.0, 1.1 * max(val.max(), test.max(), line, 0.1))
    drawn = []
    for family, label in _FAMILIES.items():
        columns = [at for at, one in enumerate(THRESHOLDS) if one.family == family]
        x = [THRESHOLDS[at].value for at in columns]
        chosen = None
        if own.threshold is not None and own.threshold.family == family:
            chosen = own.threshold.value, float(val[own.at])
        curves = {svg.SECONDARY: (x, test[columns]), svg.PRIMARY: (x, val[columns])}
        drawn.append(
            figures.threshold_curve(
                f"sweep-{family}",
                label.replace("’", "'"),
                curves,
                line=line,
                chosen=chosen,
                top=top,
            )
        )
    return drawn


def select(dice: NDArray[np.float64]) -> dict[str, list[int]]:
    """Numbers of the images with the highest, the middle and the lowest Dice, no image twice.

    Args:
      dice: (N,) of the images.
    """
    order = np.argsort(-dice, kind="stable")
    n = min(EXAMPLES, max(1, len(order) // 3))
    middle = (len(order) - n) // 2
    groups = {"Best": order[:n], "Middle": order[middle : middle + n], "Worst": order[-n:]}
    chosen: dict[str, list[int]] = {}
    for title, members in groups.items():
        seen = {number for group in chosen.values() for number in group}
        if kept := [number for number in members.tolist() if number not in seen]:
            chosen[title] = kept
    return chosen


def _strips(own: Judged, tested: Tested) -> list[dict[str, Any]]:
    dice = own.column("test", "dice")
    return [
        {
            "title": title,
            "tiles": [
                {
                    "key": tested.keys[number],
                    "patient": tested.patients[number],
                    "label": tested.labels[number],
                    "dice": float(dice[number]),
                    "highest": float(tested.maps[number].max()),
                    "points": bool(own.test.points[number]),
                    "pictures": _pictures(tested, number, own.threshold),
                }
                for number in members
            ],
        }
        for title, members in select(dice).items()
    ]


def _pictures(tested: Tested, number: int, threshold: Threshold | None) -> list[tuple[str, str]]:
    """Of one image: itself, with the map, with lesion and region; (description, data URI) each."""
    image, mask = tested.read(number)
    raw = tested.maps[number]
    region = np.zeros_like(mask)
    if threshold is not None:
        region = localisation.region(overlays.resized(raw, mask.shape), threshold)
    height, width = mask.shape
    scale = _SIDE / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    small = cv2.resize(image, size, interpolation=how).astype(np.uint8, copy=False)
    small = small[..., None] if small.ndim == 2 else small  # OpenCV drops a single channel
    lesion, found = (
        cv2.resize(each.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST).astype(bool)
        for each in (mask, region)
    )
    rgb = np.broadcast_to(small, (*small.shape[:2], 3))
    both = overlays.outlined(overlays.outlined(rgb, found, REGION), lesion, LESION)
    pictures = {
        "image": small[..., 0] if small.shape[-1] == 1 else small,
        # On a scale of its own, as its threshold is.
        "map": overlays.overlay(small, raw, float(raw.max())),
        "lesion and region": both,
    }
    return [(name, pages.data_uri(Image.fromarray(each))) for name, each in pictures.items()]


def _signed(value: float) -> str:
    return f"{value:+.3f}".replace("-", "−")


def _between(estimate: Estimate, before: str = " (") -> str:
    """An interval in words, '' if there is none."""
    if estimate.low is None or estimate.high is None:
        return ""
    between = f"95 % interval {estimate.low:.3f} to {estimate.high:.3f}".replace("-", "−")
    return f"{before}{between}{')' if before == ' (' else ''}"
