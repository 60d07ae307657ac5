"""Patients with and without lesions, and how hard their lesions are to see.

The constants here set the difficulty. A change of any of them, or of the drawing, makes
another data set: raise the builder's VERSION with it.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from tfds_builders.phantom.anatomies import ANATOMIES, Anatomy
from tfds_builders.phantom.drawing import PIXEL, SIDE, Canvas, Ellipse, Random, coverage, smooth

SEED = 20210

# Radius of a lesion's largest section, in units of half the picture's side; a picture of 64
# pixels shows 32 of them to a unit, so 0.1 is 3.2 pixels there.
MIN_RADIUS, MAX_RADIUS = 0.12, 0.21
# Share of the anatomy's full contrast that a lesion has: MIN_CONTRAST + (1 - MIN_CONTRAST) *
# u ** CONTRAST_POWER for uniform u. A smaller minimum or a larger power gives more hard lesions.
MIN_CONTRAST, CONTRAST_POWER = 0.35, 0.75
# The first and last sections of a lesion are smaller than its largest by this factor.
END_SECTION = 0.75
# Standard deviation of the noise in grey values: grain of about 3 pixels, and finer.
COARSE_NOISE, FINE_NOISE = 4.0, 3.0
# Standard deviation of the horizontal streaks that thick bodies show.
STREAKS = 2.0
# Grey values by which beam hardening darkens the middle of a body.
CUPPING = 6.0
# Slices a patient, and share of the patients with a lesion (on some of their slices only).
SLICES = 4
PATIENTS_WITH_LESION = 0.9
MIN_LESION_SLICES, MAX_LESION_SLICES = 1, 3


@dataclass(frozen=True)
class Slice:
    """One picture.

    Attributes:
      key: `<patient>/<slice>`, unique.
      patient: `<split>-<anatomy>-<number>`.
      has_lesion: The label.
      pixels: (SIDE, SIDE) uint8.
    """

    key: str
    patient: str
    has_lesion: bool
    pixels: np.ndarray


@dataclass(frozen=True)
class _Lesion:
    """A lesion of one patient; its place is in its organ's own axes."""

    organ: int
    place: tuple[float, float]
    radius: float
    flatness: float
    turn: float
    amount: float
    ceiling: float
    edge: float
    first: int
    last: int

    def size_on(self, index: int) -> float:
        """Returns the section's relative size on a slice, 0 where there is none."""
        if not self.first <= index <= self.last:
            return 0.0
        middle = (self.first + self.last) / 2
        offset = abs(index - middle) / max(self.last - middle, 0.5)
        return 1 - (1 - END_SECTION) * offset * offset


def draw_split(split: str, patients: int) -> Iterator[Slice]:
    """Draws all slices of a split's patients; anatomies take turns.

    Args:
      split: 'train', 'val' or 'test'; each has patients of its own.
      patients: How many.
    """
    split_seed = ("train", "val", "test").index(split)
    for number in range(patients):
        anatomy = ANATOMIES[number % len(ANATOMIES)]
        name = f"{split}-{anatomy.name}-{number:03d}"
        yield from draw_patient(name, anatomy, (SEED, split_seed, number))


def draw_patient(name: str, anatomy: Anatomy, seeds: tuple[int, ...]) -> Iterator[Slice]:
    """Draws a patient's slices from top to bottom."""
    traits = Random(*seeds, 0)
    lesion = _draw_lesion(traits, anatomy) if traits.chance(PATIENTS_WITH_LESION) else None
    gain, offset = traits.uniform(0.92, 1.06), traits.uniform(-6, 6)
    shift = traits.uniform(-0.05, 0.05)
    middle, step = traits.uniform(-0.2, 0.2), traits.uniform(0.16, 0.24)
    for index in range(SLICES):
        canvas = Canvas()
        z = middle + (index - (SLICES - 1) / 2) * step
        # A stream of the anatomy restarts for each slice, so that the body is the same.
        body, organs = anatomy.draw(canvas, Random(*seeds, 1), Random(*seeds, 2, index), z)
        size = lesion.size_on(index) if lesion else 0.0
        if lesion and size:
            _paint_lesion(canvas, lesion, organs[lesion.organ % len(organs)], size)
        pixels = _scan(canvas, body, Random(*seeds, 3, index))
        pixels = np.roll(pixels, int(shift * SIDE / 2), axis=1) * gain + offset
        yield Slice(
            key=f"{name}/{index}",
            patient=name,
            has_lesion=size > 0,
            pixels=np.clip(pixels, 0.0, 255.0).astype(np.uint8),
        )


def _draw_lesion(traits: Random, anatomy: Anatomy) -> _Lesion:
    share = MIN_CONTRAST + (1 - MIN_CONTRAST) * _power(traits.uniform(), CONTRAST_POWER)
    sign = -1 if traits.chance(anatomy.dark_lesions) else 1
    length = traits.integer(MIN_LESION_SLICES, MAX_LESION_SLICES)
    first = traits.integer(0, SLICES - length)
    # Anywhere on a disc: points outside are folded back towards its middle.
    a, b = traits.uniform(-1, 1), traits.uniform(-1, 1)
    norm = max(1.0, math.sqrt(a * a + b * b))
    return _Lesion(
        organ=traits.integer(0, 1),
        place=(a / norm, b / norm),
        radius=traits.uniform(MIN_RADIUS, MAX_RADIUS),
        flatness=traits.uniform(0.7, 1.0),
        turn=traits.uniform(-1, 1),
        amount=sign * share * anatomy.full_contrast,
        ceiling=anatomy.brightest_lesion,
        edge=traits.uniform(2, 6) * PIXEL,
        first=first,
        last=first + length - 1,
    )


def _power(base: float, exponent: float) -> float:
    """Returns base ** exponent to 1/64 in the exponent, by square roots alone.

    `pow` of doubles is not rounded alike everywhere; products and square roots are.
    """
    whole = round(exponent * 64)
    root = base
    for _ in range(6):
        root = math.sqrt(root)
    result = 1.0
    for _ in range(whole):
        result *= root
    return result


def _paint_lesion(canvas: Canvas, lesion: _Lesion, organ: Ellipse, size: float) -> None:
    radius = lesion.radius * size
    # The whole lesion stays inside its organ, however small that is on this slice.
    room_x = max(0.0, 1 - lesion.radius / organ.rx)
    room_y = max(0.0, 1 - lesion.radius / organ.ry)
    x, y = organ.point(lesion.place[0] * room_x, lesion.place[1] * room_y)
    core = Ellipse(x, y, radius, radius * lesion.flatness, lesion.turn)
    # Most of the difference is added, so that vessels shine through as in real partial volume.
    canvas.add(core, 0.8 * lesion.amount, edge=lesion.edge, ceiling=lesion.ceiling)
    lobe = Ellipse(*core.point(0.35, 0.3), 0.6 * radius, 0.55 * radius, -lesion.turn)
    canvas.add(lobe, 0.2 * lesion.amount, edge=lesion.edge, ceiling=lesion.ceiling)


def _scan(canvas: Canvas, body: Ellipse, random: Random) -> np.ndarray:
    """Returns the canvas as a scanner shows it: cupped, streaked and noisy."""
    inside = coverage(body, 12 * PIXEL)
    coarse = smooth(smooth(random.noise(), across=1, down=1), across=1, down=1)
    # Smoothing twice with a window of 3 leaves 19/9 of the variance per axis: a factor of 19/9.
    coarse = coarse * np.float32(9 / 19)
    streaks = smooth(random.noise(), across=3)
    noise = COARSE_NOISE * coarse + FINE_NOISE * random.noise() + STREAKS * streaks
    # Little noise in the air about the body, as in scans.
    return canvas.pixels - CUPPING * inside * inside + noise * (0.25 + 0.75 * inside)
