"""Axial slices of a chest, an abdomen and a head, drawn with ellipses.

The grey values are those of a wide soft-tissue window: air 0, lung about 45, fat about 95, water
120, muscle and organs 130 to 155, bone 215 and above.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

from tfds_builders.phantom.drawing import PIXEL, Canvas, Ellipse, Random

AIR, LUNG, FAT, FLUID, MUSCLE, BLOOD, BONE = 4.0, 42.0, 92.0, 116.0, 132.0, 142.0, 222.0


@dataclass(frozen=True)
class Anatomy:
    """One kind of slice.

    Attributes:
      name: For people and keys.
      draw: Draws onto a canvas, from a stream of the patient (the same for all slices), a stream
        of the slice, and the slice's height z in [-1, 1]; returns the body's outline and the
        organs in which lesions grow.
      full_contrast: Grey values by which the plainest lesion differs from its organ.
      brightest_lesion: Grey value that no lesion exceeds.
      dark_lesions: Share of the lesions that are darker than their organ.
    """

    name: str
    draw: Callable[[Canvas, Random, Random, float], tuple[Ellipse, list[Ellipse]]]
    full_contrast: float
    brightest_lesion: float
    dark_lesions: float


def _couch(canvas: Canvas, patient: Random) -> None:
    y = patient.uniform(0.80, 0.86)
    canvas.paint(Ellipse(0.0, y + 0.9, 1.35, 0.95), 70.0)
    canvas.paint(Ellipse(0.0, y + 0.935, 1.35, 0.95), 14.0)


def _vertebra(canvas: Canvas, x: float, y: float, size: float, slice_: Random) -> None:
    """Draws a vertebra; the body lies towards the front (upwards)."""
    for side in (-1, 1):  # transverse processes
        turn = side * slice_.uniform(0.12, 0.2)
        canvas.paint(Ellipse(x + side * 1.15 * size, y + 0.75 * size, size, 0.28 * size, turn), 200)
    canvas.paint(Ellipse(x, y + 1.6 * size, 0.2 * size, 0.75 * size), 205)  # spinous process
    canvas.paint(Ellipse(x, y + 0.85 * size, 0.8 * size, 0.62 * size), BONE)
    canvas.paint(Ellipse(x, y, size, 0.78 * size), BONE + 12)
    canvas.paint(Ellipse(x, y, 0.78 * size, 0.58 * size), 186)  # spongy bone
    canvas.paint(Ellipse(x, y + 0.85 * size, 0.46 * size, 0.38 * size), FLUID)


def _ribs(canvas: Canvas, cage: Ellipse, patient: Random, slice_: Random, z: float) -> None:
    """Draws ribs where the slice cuts them: short arcs that wander with height."""
    count = 9
    for side in (-1, 1):
        phase = patient.uniform() + 0.8 * z
        for number in range(count):
            # From the front (-y) to the back (+y) along one side of the cage.
            b = -0.86 + 1.72 * ((number + phase % 1.0) / count)
            a = side * math.sqrt(1 - b * b)
            x, y = cage.point(a, b)
            # The rim's slope there decides the rib's tilt; half angles suffice.
            tilt = side * b * 0.42
            length = slice_.uniform(0.05, 0.085)
            canvas.paint(Ellipse(x, y, 0.022, length, tilt), BONE, edge=PIXEL)
            canvas.paint(Ellipse(x, y, 0.008, 0.7 * length, tilt), 185, edge=PIXEL)


def _calcification(canvas: Canvas, where: Ellipse, slice_: Random) -> None:
    """A small, very dense grain, which both classes have."""
    x, y = where.point(slice_.uniform(-0.6, 0.6), slice_.uniform(-0.6, 0.6))
    radius = slice_.uniform(0.012, 0.026)
    canvas.paint(Ellipse(x, y, radius, radius * slice_.uniform(0.8, 1.2)), 235, edge=PIXEL)


def _vessels(canvas: Canvas, lung: Ellipse, hilum: tuple[float, float], slice_: Random) -> None:
    """Draws vessels that leave the hilum: thick and long near it, dots far out."""
    for _ in range(slice_.integer(13, 20)):
        a, b = slice_.uniform(-0.95, 0.95), slice_.uniform(-0.95, 0.95)
        if a * a + b * b > 0.85:
            continue
        x, y = lung.point(a, b)
        dx, dy = x - hilum[0], y - hilum[1]
        distance = math.sqrt(dx * dx + dy * dy) + 1e-6
        width = slice_.uniform(0.008, 0.02) + 0.012 * max(0.0, 1 - 3 * distance)
        length = width * slice_.uniform(1.0, 5.5)
        # tan(angle / 2) of the direction away from the hilum.
        turn = dy / (distance + abs(dx)) * (1 if dx >= 0 else -1)
        value = slice_.uniform(85, 135)
        canvas.paint(Ellipse(x, y, length, width, turn), value, edge=1.2 * PIXEL)


def chest(
    canvas: Canvas, patient: Random, slice_: Random, z: float
) -> tuple[Ellipse, list[Ellipse]]:
    """Draws lungs with vessels, heart, aorta, ribs, spine and sternum."""
    _couch(canvas, patient)
    body = Ellipse(0.0, 0.06, patient.uniform(0.86, 0.94), patient.uniform(0.62, 0.7))
    fat = patient.uniform(0.03, 0.075)
    if patient.chance(0.5) and z > 0.1:  # arms beside the upper chest
        for side in (-1, 1):
            canvas.paint(Ellipse(side * 0.97, 0.12, 0.13, 0.17), FAT)
            canvas.paint(Ellipse(side * 0.97, 0.12, 0.1, 0.14), MUSCLE)
            canvas.paint(Ellipse(side * 0.97, 0.12, 0.04, 0.04), BONE)
    canvas.paint(body, FAT)
    wall = body.grown(-fat)
    canvas.paint(wall, MUSCLE)
    cage = wall.grown(-0.075)
    canvas.paint(cage, FAT + 12)
    size = 1 - 0.16 * z * z - 0.06 * z
    lungs = []
    for side in (-1, 1):
        lung = Ellipse(
            side * patient.uniform(0.41, 0.45),
            0.05 + patient.uniform(-0.02, 0.02),
            patient.uniform(0.33, 0.37) * size,
            patient.uniform(0.46, 0.51) * size,
            side * patient.uniform(-0.05, 0.02),
        )
        canvas.paint(lung, LUNG + patient.uniform(-6, 8), inside=[cage])
        lungs.append(lung)
    for lung in lungs:
        hilum = (lung.x * 0.45, 0.04)
        _vessels(canvas, lung, hilum, slice_)
        canvas.paint(Ellipse(*hilum, 0.07, 0.12), BLOOD, edge=4 * PIXEL)
    heart = 0.6 + 0.4 * max(0.0, 0.6 - z)  # large low down, great vessels above
    canvas.paint(Ellipse(0.0, 0.06, 0.13, 0.42), FAT + 14, inside=[cage])
    canvas.paint(
        Ellipse(0.10 * heart, -0.14, 0.27 * heart, 0.23 * heart, 0.18), BLOOD, inside=[cage]
    )
    canvas.paint(Ellipse(0.16 * heart, -0.12, 0.13 * heart, 0.12 * heart, 0.18), BLOOD + 12)
    canvas.paint(Ellipse(0.12, 0.27, 0.065, 0.068), BLOOD + 6)
    canvas.paint(Ellipse(0.0, 0.17, 0.035, 0.042), AIR + 20)  # windpipe or main bronchus
    if slice_.chance(0.5):
        _calcification(canvas, Ellipse(0.12, 0.27, 0.065, 0.068), slice_)
    _ribs(canvas, cage.grown(0.03), patient, slice_, z)
    canvas.paint(Ellipse(0.0, cage.y - cage.ry - 0.012, 0.1, 0.03), BONE - 10)
    _vertebra(canvas, 0.0, 0.44, 0.115, slice_)
    return body, [lung.scaled(0.95) for lung in lungs]


def abdomen(
    canvas: Canvas, patient: Random, slice_: Random, z: float
) -> tuple[Ellipse, list[Ellipse]]:
    """Draws liver, spleen, stomach, kidneys, bowel, great vessels and spine."""
    _couch(canvas, patient)
    body = Ellipse(0.0, 0.08, patient.uniform(0.82, 0.92), patient.uniform(0.58, 0.68))
    canvas.paint(body, FAT)
    wall = body.grown(-patient.uniform(0.04, 0.1))
    canvas.paint(wall, MUSCLE - 4)
    cavity = wall.grown(-0.06)
    canvas.paint(cavity, FAT + 6)
    inside = [cavity]
    liver = Ellipse(
        -0.36 + patient.uniform(-0.03, 0.03),
        0.0 + patient.uniform(-0.04, 0.04),
        patient.uniform(0.37, 0.41) * (1 - 0.08 * z * z),
        patient.uniform(0.40, 0.45) * (1 - 0.08 * z * z),
        patient.uniform(-0.12, 0.12),
    )
    tissue = patient.uniform(136, 152)
    canvas.paint(liver, tissue, inside=inside)
    canvas.paint(Ellipse(-0.08, -0.24, 0.26, 0.14, 0.06), tissue, inside=inside)  # left lobe
    for _ in range(slice_.integer(4, 7)):  # vessels of the liver
        x, y = liver.point(slice_.uniform(-0.7, 0.7), slice_.uniform(-0.7, 0.7))
        canvas.paint(
            Ellipse(
                x,
                y,
                slice_.uniform(0.012, 0.055),
                slice_.uniform(0.01, 0.018),
                slice_.uniform(-0.9, 0.9),
            ),
            tissue + slice_.uniform(8, 16),
        )
    spleen = Ellipse(0.56, 0.12 + 0.04 * z, 0.16, patient.uniform(0.22, 0.27), -0.12)
    canvas.paint(spleen, tissue + patient.uniform(-8, 4), inside=inside)
    stomach = Ellipse(0.32, -0.18, patient.uniform(0.19, 0.25), patient.uniform(0.15, 0.2), -0.15)
    canvas.paint(stomach, MUSCLE + 4, inside=inside)
    canvas.paint(stomach.grown(-0.025), FLUID, inside=inside)
    bubble = Ellipse(stomach.x, stomach.y - 0.08, 0.13, 0.06 * slice_.uniform(0.6, 1.3))
    canvas.paint(bubble, AIR + 10, inside=[stomach.grown(-0.03)])
    for side in (-1, 1):
        if z < 0.55:
            kidney = Ellipse(side * 0.31, 0.37, 0.105, 0.135, side * 0.2)
            canvas.paint(kidney, tissue + 8, inside=inside)
            canvas.paint(Ellipse(side * 0.275, 0.37, 0.04, 0.06), FAT + 16)
    for _ in range(slice_.integer(3, 6)):  # bowel
        x, y = slice_.uniform(0.02, 0.45), slice_.uniform(-0.02, 0.18)
        radius = slice_.uniform(0.05, 0.085)
        canvas.paint(Ellipse(x, y, radius, radius * 0.85), MUSCLE + 2, inside=inside)
        gas = slice_.chance(0.35)
        canvas.paint(Ellipse(x, y, 0.5 * radius, 0.4 * radius), AIR + 25 if gas else FLUID)
    canvas.paint(Ellipse(-0.09, 0.22, 0.062, 0.05), BLOOD - 4)  # lower caval vein
    aorta = Ellipse(0.06, 0.24, 0.055, 0.055)
    canvas.paint(aorta, BLOOD + 6)
    if slice_.chance(0.5):
        _calcification(canvas, aorta, slice_)
    if slice_.chance(0.35):
        _calcification(canvas, liver, slice_)
    _ribs(canvas, cavity.grown(0.025), patient, slice_, z)
    _vertebra(canvas, 0.0, 0.42, 0.13, slice_)
    return body, [liver.scaled(0.86)]


def head(
    canvas: Canvas, patient: Random, slice_: Random, z: float
) -> tuple[Ellipse, list[Ellipse]]:
    """Draws skull, brain with grey and white matter, ventricles, falx and calcifications."""
    size = 1 - 0.1 * max(0.0, z)
    turn = patient.uniform(-0.06, 0.06)
    rx, ry = patient.uniform(0.64, 0.7) * size, patient.uniform(0.78, 0.85) * size
    body = Ellipse(0.0, 0.0, rx, ry, turn)
    rest = patient.uniform(0.84, 0.88)  # the head rest
    canvas.paint(Ellipse(0.0, 0.1, rest, rest + 0.02), 62.0)
    canvas.paint(Ellipse(0.0, 0.08, rest - 0.05, rest - 0.03), AIR)
    canvas.paint(Ellipse(0.0, -0.55, 1.2, 1.0), AIR)
    canvas.paint(body, MUSCLE - 22)
    canvas.paint(body.grown(-0.035), 246)
    thickness = patient.uniform(0.035, 0.06)
    canvas.paint(body.grown(-0.05), 232)
    brain = body.grown(-0.05 - thickness)
    canvas.paint(brain, FLUID - 8)
    cortex = patient.uniform(134, 142)
    canvas.paint(brain.grown(-0.014), cortex)
    for side in (-1, 1):  # white matter
        x, y = brain.point(side * 0.46, 0.0)
        canvas.paint(
            Ellipse(x, y, 0.36 * brain.rx, 0.72 * brain.ry, turn), cortex - 9, edge=5 * PIXEL
        )
    for _ in range(26):  # furrows
        angle = slice_.uniform(-1, 1)
        side = 1 if slice_.chance(0.5) else -1
        x, y = brain.point(side * math.sqrt(1 - angle * angle) * 0.93, angle * 0.93)
        canvas.paint(
            Ellipse(x, y, slice_.uniform(0.03, 0.07), 0.008, side * angle * 0.5 + turn),
            FLUID - 4,
            edge=PIXEL,
            opacity=0.8,
        )
    wide = patient.uniform(0.6, 1.25)
    for side in (-1, 1):  # ventricles: frontal and occipital horns, and thalami between
        for end, length in ((-0.24, 0.2), (0.26, 0.17)):
            x, y = brain.point(side * (0.16 + 0.12 * (end > 0)), end * (1 - 0.3 * z))
            horn = Ellipse(
                x, y, 0.055 * wide, length * (1 - 0.3 * abs(z)), side * -0.14 * (end / abs(end))
            )
            canvas.paint(horn, FLUID - 16, edge=2 * PIXEL)
        x, y = brain.point(side * 0.14, 0.04)
        canvas.paint(Ellipse(x, y, 0.07, 0.11, turn), cortex + 2, edge=2 * PIXEL)
    x, y = brain.point(0.0, -0.72)
    canvas.paint(Ellipse(x, y, 0.008, 0.2, turn), 156, edge=PIXEL)
    x, y = brain.point(0.0, 0.76)
    canvas.paint(Ellipse(x, y, 0.008, 0.16, turn), 156, edge=PIXEL)
    if slice_.chance(0.5):
        _calcification(canvas, Ellipse(*brain.point(0.0, 0.2), 0.03, 0.03), slice_)
    for side in (-1, 1):
        if slice_.chance(0.3):
            _calcification(canvas, Ellipse(*brain.point(side * 0.3, 0.3), 0.04, 0.05), slice_)
    return body, [
        Ellipse(*brain.point(side * 0.44, 0.0), 0.44 * brain.rx, 0.78 * brain.ry, turn)
        for side in (-1, 1)
    ]


ANATOMIES = (
    # A nodule of the lung is soft tissue, so it does not outshine the vessels it touches.
    Anatomy("chest", chest, full_contrast=105.0, brightest_lesion=BLOOD, dark_lesions=0.0),
    Anatomy("abdomen", abdomen, full_contrast=80.0, brightest_lesion=BONE, dark_lesions=0.6),
    Anatomy("head", head, full_contrast=80.0, brightest_lesion=BONE, dark_lesions=0.25),
)
