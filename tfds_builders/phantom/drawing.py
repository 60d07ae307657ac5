"""Drawing soft-edged ellipses, with arithmetic that gives the same pixels everywhere.

Only operations that IEEE 754 rounds exactly are used (+, -, *, /, square root), and random
numbers are made from Philox's raw 64-bit output, which NumPy keeps stable, while its
distributions may change between versions. So no sine, no exponential, no `Generator`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

# Pixels along a side. One unit of length is half of a side: the canvas is [-1, 1] x [-1, 1].
SIDE = 128
PIXEL = 2 / SIDE
_AXIS = ((np.arange(SIDE) + 0.5) * PIXEL - 1).astype(np.float32)


class Random:
    """A stream of random numbers that depends on its seeds alone.

    Args:
      *seeds: Non-negative integers; equal seeds give equal streams.
    """

    def __init__(self, *seeds: int):
        self._bits = np.random.Philox(np.random.SeedSequence(seeds))

    def uniform(self, low: float = 0.0, high: float = 1.0) -> float:
        """Returns a number in [low, high)."""
        # The upper 53 bits, which a double holds exactly.
        return low + (high - low) * ((self._bits.random_raw() >> 11) * 2.0**-53)

    def integer(self, low: int, high: int) -> int:
        """Returns an integer from low to high, both included."""
        return low + int(self.uniform() * (high - low + 1))

    def chance(self, probability: float) -> bool:
        """Returns True with the given probability."""
        return self.uniform() < probability

    def noise(self) -> np.ndarray:
        """Returns (SIDE, SIDE) float32, nearly normal of mean 0 and variance 1.

        Each value is the sum of four independent 16-bit integers.
        """
        raw = np.asarray(self._bits.random_raw(SIDE * SIDE), np.uint64).reshape(SIDE, SIDE)
        low = np.uint64(0xFFFF)
        total = raw & low
        for shift in (16, 32, 48):
            total = total + ((raw >> np.uint64(shift)) & low)
        # Four uniform integers 0..65535 have the mean 2 * 65535 and 4 * (65536**2 - 1) / 12.
        deviation = math.sqrt((65536.0**2 - 1) / 3)
        return (total.astype(np.float32) - np.float32(131070)) * np.float32(1 / deviation)


@dataclass(frozen=True)
class Ellipse:
    """An ellipse on the canvas.

    Attributes:
      x: Centre, to the right, in units of half a side.
      y: Centre, downwards.
      rx: Half axis that lies along x before turning.
      ry: Half axis that lies along y before turning.
      turn: Tangent of half the angle of turning, clockwise on the screen; it gives the sine
        and cosine without calling either.
    """

    x: float
    y: float
    rx: float
    ry: float
    turn: float = 0.0

    @property
    def direction(self) -> tuple[float, float]:
        """Cosine and sine of the angle of turning."""
        square = self.turn * self.turn
        return (1 - square) / (1 + square), 2 * self.turn / (1 + square)

    def point(self, a: float, b: float) -> tuple[float, float]:
        """Returns the place at (a, b) in the ellipse's own axes, the rim being at radius 1."""
        cosine, sine = self.direction
        along, across = a * self.rx, b * self.ry
        return self.x + along * cosine - across * sine, self.y + along * sine + across * cosine

    def scaled(self, factor: float) -> "Ellipse":
        """Returns the ellipse grown or shrunk about its centre."""
        return replace(self, rx=self.rx * factor, ry=self.ry * factor)

    def grown(self, margin: float) -> "Ellipse":
        """Returns the ellipse with both half axes longer by a margin."""
        return replace(self, rx=self.rx + margin, ry=self.ry + margin)

    def holds(self, x: float, y: float) -> bool:
        """Returns whether a point lies inside."""
        cosine, sine = self.direction
        along = ((x - self.x) * cosine + (y - self.y) * sine) / self.rx
        across = ((y - self.y) * cosine - (x - self.x) * sine) / self.ry
        return along * along + across * across < 1


class Canvas:
    """Grey values under construction, float32 (SIDE, SIDE), 0..255 being what is shown."""

    def __init__(self, value: float = 0.0):
        self.pixels = np.full((SIDE, SIDE), value, np.float32)

    def paint(
        self,
        shape: Ellipse,
        value: float,
        *,
        edge: float = 1.5 * PIXEL,
        opacity: float = 1.0,
        inside: Sequence[Ellipse] = (),
    ) -> None:
        """Blends an ellipse in.

        Args:
          shape: What to paint.
          value: Its grey value.
          edge: Width of the soft rim.
          opacity: 0 leaves the canvas alone, 1 covers it.
          inside: Ellipses that all clip the shape.
        """
        rows, columns = _window(shape, edge)
        cover = _coverage(shape, rows, columns, edge)
        for clip in inside:
            cover *= _coverage(clip, rows, columns, edge)
        if opacity != 1:
            cover *= opacity
        window = self.pixels[rows, columns]
        cover *= value - window
        window += cover

    def add(self, shape: Ellipse, amount: float, *, edge: float, ceiling: float) -> None:
        """Adds a grey value inside an ellipse, so that what is below shows through.

        Args:
          shape: Where.
          amount: Grey value, negative to darken.
          edge: Width of the soft rim.
          ceiling: No pixel is raised above this; brighter ones stay as they are.
        """
        rows, columns = _window(shape, edge)
        window = self.pixels[rows, columns]
        raised = window + amount * _coverage(shape, rows, columns, edge)
        window[...] = np.minimum(raised, np.maximum(window, ceiling))


def coverage(shape: Ellipse, edge: float) -> np.ndarray:
    """Returns (SIDE, SIDE) float32: how much of each pixel an ellipse covers, 0..1."""
    everything = slice(0, SIDE)
    return _coverage(shape, everything, everything, edge)


def smooth(field: np.ndarray, *, across: int = 0, down: int = 0) -> np.ndarray:
    """Averages over a centred window with wrapping, keeping the variance of white noise.

    Args:
      field: (H, W).
      across: The window is 3 ** across pixels wide.
      down: The window is 3 ** down pixels high.
    """
    for axis, power in ((1, across), (0, down)):
        for k in range(power):
            # A window of 3 ** k, at three places side by side, is one of 3 ** (k + 1).
            sides = np.roll(field, 3**k, axis) + np.roll(field, -(3**k), axis)
            field = (field + sides) * np.float32(1 / math.sqrt(3))
    return field


def _window(shape: Ellipse, edge: float) -> tuple[slice, slice]:
    """Returns the rows and columns that an ellipse may touch."""
    reach = max(shape.rx, shape.ry) + edge
    bounds = []
    for centre in (shape.y, shape.x):
        first = int((centre - reach + 1) / PIXEL)
        last = int((centre + reach + 1) / PIXEL) + 1
        bounds.append(slice(min(max(first, 0), SIDE), min(max(last, 0), SIDE)))
    return bounds[0], bounds[1]


def _coverage(shape: Ellipse, rows: slice, columns: slice, edge: float) -> np.ndarray:
    cosine, sine = shape.direction
    dx, dy = _AXIS[columns] - shape.x, _AXIS[rows] - shape.y
    # In place from here on: this is where nearly all of the time goes.
    square = (dy * (sine / shape.rx))[:, None] + dx * (cosine / shape.rx)
    square *= square
    across = (dy * (cosine / shape.ry))[:, None] - dx * (sine / shape.ry)
    across *= across
    square += across
    slope = min(shape.rx, shape.ry) / edge
    depth = np.sqrt(square, out=square)
    depth *= -slope
    depth += slope + 0.5
    np.maximum(depth, 0.0, out=depth)
    np.minimum(depth, 1.0, out=depth)
    # The smooth step 3 d^2 - 2 d^3.
    steep = 3.0 - 2.0 * depth
    depth *= depth
    depth *= steep
    return depth
