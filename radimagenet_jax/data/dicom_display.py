"""Grey values of a DICOM file to shades, by the standard's chain (PS3.3 C.11).

Stored values go through the modality LUT or rescale (C.11.1), then the VOI LUT or a window
(C.11.2), and MONOCHROME1 or the presentation shape INVERSE turns the shades over. A file has far
more pixels than values, so the chain is computed once for each value and looked up.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue

from radimagenet_jax.errors import DataError

# Pixels that are worked on at a time.
_BLOCK = 2**22
# Tags as messages name them.
_TAGS = {
    "RescaleSlope": "(0028,1053)",
    "RescaleIntercept": "(0028,1052)",
    "WindowCenter": "(0028,1050)",
    "WindowWidth": "(0028,1051)",
    "VOILUTFunction": "(0028,1056)",
    "PixelPaddingValue": "(0028,0120)",
    "PixelPaddingRangeLimit": "(0028,0121)",
    "LUTDescriptor": "(0028,3002)",
    "LUTData": "(0028,3006)",
}
# What a grey value depends on.
KEYWORDS = (
    "PhotometricInterpretation", "BitsStored", "PixelRepresentation", "ModalityLUTSequence",
    "RescaleSlope", "RescaleIntercept", "VOILUTSequence", "WindowCenter", "WindowWidth",
    "VOILUTFunction", "PixelPaddingValue", "PixelPaddingRangeLimit", "PresentationLUTShape",
)  # fmt: skip
# Values of 12 bits from here on are negative ones that wrapped around: a CT scanner's -1000 HU,
# air, is stored as 3096, and no tissue reaches that (bone ends near 2000, metal is cut off).
WRAPPED_FROM = 3096
_WRAP = 4096


@dataclass(frozen=True)
class Window:
    """A grey-value window in the units of the modality, Hounsfield units for CT.

    Attributes:
      center: Its middle.
      width: From black to white, at least 1.
    """

    center: float
    width: float

    def __post_init__(self) -> None:
        if not (np.isfinite(self.center) and np.isfinite(self.width) and self.width >= 1):
            raise DataError(
                f"the window with centre {self.center:g} and width {self.width:g} is none; give a "
                "width of at least 1."
            )


def grey_image(
    stored: np.ndarray,
    tags: Dataset,
    name: str,
    *,
    windows: Sequence[Window] = (),
    little_endian: bool = True,
    unwrap: bool = False,
) -> np.ndarray:
    """Returns an image as it is shown.

    Args:
      stored: (H, W) integers or floats as they are stored.
      tags: Those of `KEYWORDS` that the frame has.
      name: What to call the file in a message.
      windows: None for the file's own display, one, or three for the channels.
      little_endian: Byte order of the file's tables.
      unwrap: Take values from `WRAPPED_FROM` on for negative ones.

    Returns:
      (H, W, 1 or 3) uint8.

    Raises:
      DataError: If a tag that the shades depend on is senseless; the message has the tag.
    """
    display = _Display(stored, tags, name, little_endian, unwrap)
    functions = [display.through(window) for window in windows] or [display.own()]
    image = np.empty((*stored.shape, len(functions)), np.uint8)
    for channel, function in enumerate(functions):
        display.write(function, image[..., channel])
    return image


# From values in the units of the modality, and which of them are padding, to shades from 0 to 1.
_Function = Callable[[np.ndarray, np.ndarray], np.ndarray]


class _Display:
    def __init__(
        self, stored: np.ndarray, tags: Dataset, name: str, little_endian: bool, unwrap: bool
    ) -> None:
        self._stored, self._tags, self._name = stored, tags, name
        self._little_endian, self._unwrap = little_endian, unwrap
        self._lowest, self._highest = stored.min(), stored.max()
        # Values of 16 bits are looked up, wider ones computed one by one.
        self._has_table = stored.dtype.kind in "iu" and (
            int(self._highest) - int(self._lowest) < 2**16
        )
        self._padding = self._padding_range()
        self._to_values, self._is_rescaled = self._modality()
        shape = _text(tags, "PresentationLUTShape")
        self._is_inverse = (
            _text(tags, "PhotometricInterpretation") == "MONOCHROME1" or shape == "INVERSE"
        )

    def through(self, window: Window) -> _Function:
        """Returns a given window."""
        return lambda values, padding: linear_window(values, window.center, window.width)

    def own(self) -> _Function:
        """Returns what the file itself says of its display."""
        if self._tags.get("VOILUTSequence"):
            return self._voi_table(self._tags.VOILUTSequence[0])
        center, width = self._number("WindowCenter"), self._number("WindowWidth")
        if center is not None and width is not None:
            return self._window(center, width)
        is_byte = self._number("BitsStored") == 8 and not self._number("PixelRepresentation")
        if is_byte and not self._is_rescaled and not self._unwrap:
            return lambda values, padding: values / 255
        return self._stretched()

    def write(self, function: _Function, image: np.ndarray) -> None:
        """Writes the shades of all pixels, as 8 bits, to (H, W) uint8."""
        if self._has_table:
            table = self._bytes(function, self._all_values())
            for rows, block in self._blocks():
                image[rows] = table[self._places(block)]
        else:
            for rows, block in self._blocks():
                image[rows] = self._bytes(function, block)

    def _bytes(self, function: _Function, stored: np.ndarray) -> np.ndarray:
        with np.errstate(over="ignore", invalid="ignore"):
            shades = np.nan_to_num(function(self._to_values(stored), self._is_padding(stored)))
        if self._is_inverse:
            shades = 1 - shades
        return np.floor(np.clip(shades, 0, 1) * 255 + 0.5).astype(np.uint8)

    def _blocks(self) -> Iterator[tuple[slice, np.ndarray]]:
        step = max(1, _BLOCK // max(1, self._stored.shape[1]))
        for start in range(0, len(self._stored), step):
            rows = slice(start, start + step)
            yield rows, self._stored[rows]

    def _all_values(self) -> np.ndarray:
        """Every stored value from the lowest to the highest, once."""
        return np.arange(int(self._lowest), int(self._highest) + 1, dtype=np.int64)

    def _places(self, block: np.ndarray) -> np.ndarray:
        return block.astype(np.int64) - int(self._lowest)

    def _modality(self) -> tuple[Callable[[np.ndarray], np.ndarray], bool]:
        """Returns what makes values of the modality's units, and whether they differ."""
        if self._tags.get("ModalityLUTSequence"):
            first, table, _ = self._table(self._tags.ModalityLUTSequence[0])
            if first >= 2**15 and self._lowest < 0:
                first -= 2**16
            return lambda stored: _looked_up(table, self._unwrapped(stored) - first), True
        slope, intercept = self._number("RescaleSlope"), self._number("RescaleIntercept")
        if slope == 0:
            raise self._senseless("RescaleSlope", "is 0, which makes all values one")
        slope = 1.0 if slope is None else slope
        intercept = intercept or 0.0
        return (
            lambda stored: self._unwrapped(stored) * slope + intercept,
            (slope, intercept) != (1.0, 0.0),
        )

    def _unwrapped(self, stored: np.ndarray) -> np.ndarray:
        values = stored.astype(np.float64)
        return np.where(values >= WRAPPED_FROM, values - _WRAP, values) if self._unwrap else values

    def _window(self, center: float, width: float) -> _Function:
        # PS3.3 C.11.2.1.2: LINEAR wants a width of at least 1, the two others one above 0.
        function = _text(self._tags, "VOILUTFunction") or "LINEAR"
        if width <= 0:
            raise self._senseless("WindowWidth", "is 0 or less, which shows nothing")
        if function == "SIGMOID":
            return lambda values, padding: 1 / (1 + np.exp(-4 * (values - center) / width))
        if function == "LINEAR_EXACT" or (function == "LINEAR" and width < 1):
            # A map of fractions, such as one from 0 to 1, cannot be shown by LINEAR; who writes
            # a width below 1 for it means the exact form.
            return lambda values, padding: np.clip((values - center) / width + 0.5, 0, 1)
        if function == "LINEAR":
            return lambda values, padding: linear_window(values, center, width)
        raise self._senseless(
            "VOILUTFunction", "is none of LINEAR, LINEAR_EXACT and SIGMOID", "correct it"
        )

    def _voi_table(self, item: Dataset) -> _Function:
        first, table, bits = self._table(item)
        extent = self._to_values(np.array([self._lowest, self._highest]))
        if first >= 2**15 and extent.min() < 0:
            first -= 2**16
        return lambda values, padding: _looked_up(table, values - first) / (2**bits - 1)

    def _table(self, item: Dataset) -> tuple[int, np.ndarray, int]:
        """Returns a LUT's first value, its entries as float64, and their bits (PS3.3 C.11.1.1)."""
        try:
            entries, first, bits = (int(value) for value in item.LUTDescriptor)
        except Exception:  # as many kinds as pydicom has of values
            raise self._senseless("LUTDescriptor", "is not three numbers") from None
        # Its numbers are unsigned, which its VR does not always tell; 0 stands for 65,536.
        entries, first = (entries & 0xFFFF) or 2**16, first & 0xFFFF
        if not 1 <= bits <= 16:
            raise self._senseless("LUTDescriptor", f"says {bits} bits an entry, not 8 to 16")
        data = item.get("LUTData")
        if isinstance(data, (bytes, bytearray)):
            is_byte = bits <= 8 and len(data) <= entries + 1
            kind = "u1" if is_byte else f"{'<' if self._little_endian else '>'}u2"
            table = np.frombuffer(data[: len(data) // 2 * 2] if not is_byte else data, kind)
        else:
            try:
                table = np.atleast_1d(np.asarray(data, np.int64)) & 0xFFFF
            except (TypeError, ValueError, OverflowError):
                table = np.zeros(0)
        if len(table) < entries:
            raise self._senseless(
                "LUTData", f"has {len(table)} entries where its LUTDescriptor has {entries}"
            )
        return first, table[:entries].astype(np.float64), bits

    def _stretched(self) -> _Function:
        """The smallest value that is no padding becomes black, the largest white."""
        extents = [extent for values in self._seen() if (extent := _extent(values))]
        if not extents:
            return lambda values, padding: np.zeros(values.shape)
        low, high = min(low for low, _ in extents), max(high for _, high in extents)
        if low == high:
            return lambda values, padding: np.zeros(values.shape)
        # Padding is background: black once the shades are turned over.
        background = float(self._is_inverse)
        return lambda values, padding: np.where(
            padding, background, np.clip((values - low) / (high - low), 0, 1)
        )

    def _seen(self) -> list[np.ndarray]:
        """Values of the image in pieces, padding left out unless there is nothing else."""
        if self._has_table:
            everything = self._all_values()
            is_there = np.zeros(len(everything), bool)
            for _, block in self._blocks():
                is_there[self._places(block)] = True
            pieces = [everything[is_there]]
        else:
            pieces = [block.ravel() for _, block in self._blocks()]
        inside = [piece[~self._is_padding(piece)] for piece in pieces]
        chosen = inside if any(len(piece) for piece in inside) else pieces
        return [self._to_values(piece) for piece in chosen]

    def _padding_range(self) -> tuple[float, float] | None:
        padding = self._number("PixelPaddingValue")
        if padding is None:
            return None
        limit = self._number("PixelPaddingRangeLimit")
        low, high = sorted((padding, padding if limit is None else limit))
        return low, high

    def _is_padding(self, stored: np.ndarray) -> np.ndarray:
        if self._padding is None:
            return np.zeros(stored.shape, bool)
        return (stored >= self._padding[0]) & (stored <= self._padding[1])

    def _number(self, keyword: str) -> float | None:
        """Returns the first of a tag's values, None where the tag is missing or empty."""
        try:
            value = self._tags.get(keyword)
            if isinstance(value, (list, tuple, MultiValue)):
                value = value[0] if len(value) else None
            if value is None or value == "":
                return None
            number = float(value)
        except Exception:  # as many kinds as pydicom has of values
            raise self._senseless(keyword, "is no number") from None
        if not np.isfinite(number):
            raise self._senseless(keyword, "is not finite")
        return number

    def _senseless(self, keyword: str, what: str, remedy: str = "") -> DataError:
        tag = f" {_TAGS[keyword]}" if keyword in _TAGS else ""
        return DataError(
            f"{self._name} cannot be shown: its {keyword}{tag} {what}; "
            f"{remedy or 'correct or remove the tag'}, or export the file again."
        )


def linear_window(values: np.ndarray, center: float, width: float) -> np.ndarray:
    """Returns the shades of the VOI LUT function LINEAR (PS3.3 C.11.2.1.2.1).

    Args:
      values: Any shape, in the units of the modality.
      center: The window's.
      width: At least 1; at 1 it is a threshold.

    Returns:
      The same shape, float64 from 0 (black) to 1 (white).
    """
    low = center - 0.5 - (width - 1) / 2
    if width == 1:
        return (values > low).astype(np.float64)
    return np.clip((values - low) / (width - 1), 0, 1)


def _looked_up(table: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Values before a table's first entry are its first, those behind its last are its last."""
    return table[np.clip(np.nan_to_num(places), 0, len(table) - 1).astype(np.intp)]


def _extent(values: np.ndarray) -> tuple[float, float] | None:
    """The smallest and largest of finite values, None where there are none."""
    finite = values if values.dtype.kind in "iu" else values[np.isfinite(values)]
    return (float(finite.min()), float(finite.max())) if len(finite) else None


def _text(tags: Dataset, keyword: str) -> str:
    value: Any = tags.get(keyword)
    return "" if value is None else str(value).strip().upper()
