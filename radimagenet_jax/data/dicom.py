"""DICOM files to 8-bit images, by the standard's own chain of grey-value transformations.

Stored values go through the modality LUT or rescale (PS3.3 C.11.1), then the VOI LUT or a window
(C.11.2), and MONOCHROME1 is inverted last, so that bright always means a large value. Colour
becomes RGB. pydicom parses and decompresses; what it says about a file is never passed on, since
its messages may quote values, and a file's values may name a patient. The only words here about
a file are its name as the user gave it and figures of its pixels.
"""

import hashlib
import io
import logging
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import pydicom
from pydicom.dataset import Dataset
from pydicom.pixels import apply_color_lut, apply_modality_lut, get_decoder, pixel_array
from pydicom.uid import UID

from radimagenet_jax.data.images import MAX_PIXELS
from radimagenet_jax.errors import DataError

T = TypeVar("T")

# After a preamble of 128 bytes that may hold anything (PS3.10 7.1).
_MAGIC = b"DICM"
_MAGIC_OFFSET = 128
_COLOUR = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")
_GREY = ("MONOCHROME1", "MONOCHROME2")
# What frames of an enhanced multi-frame file have in functional groups (PS3.3 C.7.6.16.2).
_FRAME_GROUPS = ("PixelValueTransformationSequence", "FrameVOILUTSequence")

# pydicom's warnings and log lines quote values of a file, such as a malformed patient name. The
# filters are set once, since those of `warnings.catch_warnings` are shared between threads.
warnings.filterwarnings("ignore", module=r"pydicom(\.|$)")
logging.getLogger("pydicom").propagate = False


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


def is_dicom(encoded: bytes) -> bool:
    """Tells whether a file has DICOM's mark, whatever its name."""
    return encoded[_MAGIC_OFFSET : _MAGIC_OFFSET + len(_MAGIC)] == _MAGIC


def decode_dicom(
    encoded: bytes, *, name: str, windows: Sequence[Window] = (), frame: int | None = None
) -> np.ndarray:
    """Decodes one frame of a DICOM file.

    A grey image is shown through the given window. Without one, through the file's own VOI LUT,
    else through its first window (linear, linear exact or sigmoid). A file with neither is kept
    as it is where its values have 8 bits and no rescale; otherwise its smallest value becomes black
    and its largest white, pixel padding left out.

    Args:
      encoded: The file's bytes.
      name: What to call the file in a message.
      windows: None for the file's own, one, or three for the channels of a colour image. They are
        for grey images only.
      frame: From 0; may be None where the file has a single frame.

    Returns:
      (H, W, 1) uint8 where the image is grey, else (H, W, 3) uint8, RGB.

    Raises:
      DataError: If the file is empty, no DICOM, without pixels, cut short, damaged, implausibly
        large, compressed in a way that is not installed, has no such frame, or has several and
        `frame` is None. No message has any value of the file that may name a patient.
    """
    dataset = _read(encoded, name)
    count = _check_pixels(dataset, name)
    if frame is None and count > 1:
        raise DataError(
            f"{name} has {count} frames; choose one by its number, or save each as an image."
        )
    if not 0 <= (frame or 0) < count:
        raise DataError(f"{name} has no frame {frame}; choose one of 0 to {count - 1}.")
    return _decode_frame(dataset, frame or 0, name, windows)


def patient_pseudonym(encoded: bytes, *, name: str, salt: str) -> str:
    """Returns what images of one patient share, without telling who it is.

    It is the first 16 hexadecimal digits of SHA-256 over the salt and the file's PatientID. A
    PatientID can be guessed and tried, so a pseudonym with a salt that is public is only for files
    whose PatientID is a pseudonym already; otherwise it must not leave the program.

    Args:
      encoded: The file's bytes; its beginning up to the pixels is enough.
      name: What to call the file in a message.
      salt: Any text; one for each data set, so that pseudonyms of two sets cannot be linked.

    Returns:
      '' where the file has no PatientID.

    Raises:
      DataError: If the file is empty, no DICOM, or damaged before its pixels.
    """
    dataset = _read(encoded, name, stop_before_pixels=True, specific_tags=["PatientID"])
    identifier = str(_quietly(lambda: dataset.get("PatientID", ""), name) or "").strip()
    if not identifier:
        return ""
    return hashlib.sha256(f"{salt}\0{identifier}".encode()).hexdigest()[:16]


def _read(encoded: bytes, name: str, **options: Any) -> Dataset:
    if not encoded:
        raise DataError(f"{name} is empty; download or copy it again.")
    if not is_dicom(encoded):
        raise DataError(
            f"{name} is no DICOM file (the mark 'DICM' is missing); export or download it again."
        )
    return _quietly(lambda: pydicom.dcmread(io.BytesIO(encoded), **options), name)


def _quietly(action: Callable[[], T], name: str) -> T:
    """Runs what parses a file; which errors come of a damaged one is up to pydicom.

    The cause is cut off, since a traceback would print pydicom's message with values of the file.
    """
    try:
        return action()
    except Exception:
        raise DataError(f"{name} is cut short or damaged; download or copy it again.") from None


def _check_pixels(dataset: Dataset, name: str) -> int:
    """Checks what the header says of the pixels, before memory is taken; returns the frames."""
    has_pixels = _quietly(lambda: "PixelData" in dataset, name)
    if not has_pixels:
        raise DataError(
            f"{name} is DICOM without pixel data (a report or a plan, or it is cut short); copy it "
            "again or remove its row."
        )
    rows, columns = _number(dataset, "Rows", name), _number(dataset, "Columns", name)
    if rows < 1 or columns < 1 or rows * columns > MAX_PIXELS:
        raise DataError(
            f"{name} claims {columns} x {rows} pixels, where 1 to {MAX_PIXELS:,} are accepted; "
            "export it again or scale it down."
        )
    photometric = _text(dataset, "PhotometricInterpretation", name)
    if photometric not in (*_GREY, *_COLOUR, "PALETTE COLOR"):
        raise DataError(
            f"{name} has a colour space that cannot be read; it may be {', '.join(_GREY)}, "
            f"{', '.join(_COLOUR)} or PALETTE COLOR: export it again as one of these."
        )
    _check_syntax(dataset, name)
    count = _number(dataset, "NumberOfFrames", name, default=1) or 1  # 0 stands for one frame
    if count < 0:
        raise DataError(f"{name} claims {count} frames; export it again.")
    return count


def _check_syntax(dataset: Dataset, name: str) -> None:
    syntax = _quietly(lambda: UID(dataset.file_meta.TransferSyntaxUID), name)
    known = syntax.is_transfer_syntax and not syntax.is_private
    try:
        available = get_decoder(syntax).is_available
    except NotImplementedError:
        raise DataError(
            f"{name} is stored as {syntax.name if known else 'an unknown transfer syntax'}, which "
            "cannot be read as images; convert it to uncompressed DICOM or to PNG."
        ) from None
    if not available:
        raise DataError(
            f"{name} is compressed as {syntax.name}, whose decoder is not installed; "
            "pip install 'radimagenet-jax[dicom]'."
        )


def _number(dataset: Dataset, keyword: str, name: str, default: int | None = None) -> int:
    def read() -> int:
        value = dataset.get(keyword)
        return default if value is None and default is not None else int(value)

    return _quietly(read, name)


def _text(dataset: Dataset, keyword: str, name: str) -> str:
    return _quietly(lambda: str(dataset.get(keyword, "")).strip(), name)


def _decode_frame(dataset: Dataset, index: int, name: str, windows: Sequence[Window]) -> np.ndarray:
    if len(windows) not in (0, 1, 3):
        raise ValueError(f"an image is made of one window or of three, not of {len(windows)}")
    stored = _stored_values(dataset, index, name)
    if stored.ndim == 2 and _text(dataset, "PhotometricInterpretation", name) in _GREY:
        return _grey(dataset, stored, index, name, windows)
    if windows:
        raise DataError(
            f"{name} is a colour image, which grey-value windows are not for; leave them out or "
            "remove it."
        )
    return _quietly(lambda: _colour(dataset, stored), name)


def _stored_values(dataset: Dataset, index: int, name: str) -> np.ndarray:
    """Returns a frame's values as they are stored, colour as RGB: (H, W) or (H, W, 3)."""
    try:
        return pixel_array(dataset, index=index)
    except Exception:
        syntax = UID(dataset.file_meta.TransferSyntaxUID)
        remedy = "download or copy it again"
        if syntax.is_compressed and not syntax.is_deflated:
            remedy += (
                f", or, as it is compressed as {syntax.name}, install the decoders with "
                "pip install 'radimagenet-jax[dicom]'"
            )
        raise DataError(f"{name} is cut short or damaged in its pixels; {remedy}.") from None


def _colour(dataset: Dataset, stored: np.ndarray) -> np.ndarray:
    bits = int(dataset.BitsStored)
    if dataset.PhotometricInterpretation == "PALETTE COLOR":
        stored = apply_color_lut(stored, dataset)
        bits = 8 * stored.dtype.itemsize
        # Palettes of 16 bits are often filled with values of 8.
        if bits == 16 and stored.max(initial=0) < 256:
            bits = 8
    scaled = stored if bits <= 8 else stored >> (bits - 8)
    image = np.ascontiguousarray(scaled[..., :3].astype(np.uint8))
    if (image == image[..., :1]).all():
        return image[..., :1]
    return image


def _grey(
    dataset: Dataset, stored: np.ndarray, index: int, name: str, windows: Sequence[Window]
) -> np.ndarray:
    def shown() -> np.ndarray:
        tags = _frame_tags(dataset, index)
        values = apply_modality_lut(stored, tags).astype(np.float64)
        if windows:
            shades = [linear_window(values, window) for window in windows]
        else:
            shades = [_own_shades(tags, values, stored)]
        image = np.stack(shades, axis=-1)
        if tags.PhotometricInterpretation == "MONOCHROME1":
            image = 1 - image
        return np.floor(image * 255 + 0.5).astype(np.uint8)

    return _quietly(shown, name)


def linear_window(values: np.ndarray, window: Window) -> np.ndarray:
    """Returns the shades of the VOI LUT function LINEAR (PS3.3 C.11.2.1.2.1).

    Args:
      values: Any shape, in the units of the modality.
      window: At a width of 1 it is a threshold.

    Returns:
      The same shape, float64 from 0 (black) to 1 (white).
    """
    low = window.center - 0.5 - (window.width - 1) / 2
    if window.width == 1:
        return (values > low).astype(np.float64)
    return np.clip((values - low) / (window.width - 1), 0, 1)


def _own_shades(tags: Dataset, values: np.ndarray, stored: np.ndarray) -> np.ndarray:
    """Returns shades from 0 to 1 by what the file itself says of its display."""
    if tags.get("VOILUTSequence"):
        return _lut_shades(tags.VOILUTSequence[0], values)
    center, width = _first(tags.get("WindowCenter")), _first(tags.get("WindowWidth"))
    if center is not None and width is not None:
        return _window_shades(values, center, width, tags.get("VOILUTFunction") or "LINEAR")
    rescaled = "ModalityLUTSequence" in tags or not np.array_equal(values, stored)
    if int(tags.BitsStored) == 8 and not int(tags.PixelRepresentation) and not rescaled:
        return values / 255
    return _stretched(values, stored, tags)


def _window_shades(values: np.ndarray, center: float, width: float, function: str) -> np.ndarray:
    # PS3.3 C.11.2.1.2: LINEAR wants a width of at least 1, the two others one above 0.
    if function == "SIGMOID":
        return 1 / (1 + np.exp(-4 * (values - center) / width))
    if function == "LINEAR_EXACT":
        return np.clip((values - center) / width + 0.5, 0, 1)
    return linear_window(values, Window(center, max(width, 1.0)))


def _lut_shades(item: Dataset, values: np.ndarray) -> np.ndarray:
    entries, first, bits = (int(value) for value in item.LUTDescriptor)
    entries = entries or 2**16
    # The descriptor's second value is signed where the values are, which its VR may not tell.
    if first >= 2**15 and values.min(initial=0) < 0:
        first -= 2**16
    data = item.LUTData
    if isinstance(data, bytes):
        table = np.frombuffer(data, "<u1" if len(data) == entries else "<u2")
    else:
        table = np.asarray(data)
    places = np.clip(values - first, 0, entries - 1).astype(np.intp)
    return table[:entries].astype(np.float64)[places] / (2**bits - 1)


def _stretched(values: np.ndarray, stored: np.ndarray, tags: Dataset) -> np.ndarray:
    padding = _first(tags.get("PixelPaddingValue"))
    limit = _first(tags.get("PixelPaddingRangeLimit"))
    inside = np.ones(stored.shape, bool)
    if padding is not None:
        ends = sorted((padding, padding if limit is None else limit))
        inside = (stored < ends[0]) | (stored > ends[1])
    seen = values[inside] if inside.any() else values
    low, high = float(seen.min()), float(seen.max())
    if low == high:
        return np.zeros(values.shape)
    shades = np.clip((values - low) / (high - low), 0, 1)
    # Padding is background: black once MONOCHROME1 is inverted.
    shades[~inside] = 1.0 if tags.PhotometricInterpretation == "MONOCHROME1" else 0.0
    return shades


def _first(value: Any) -> float | None:
    """Returns the first of a tag's values, None where the tag is missing or empty."""
    if value is None or value == "":
        return None
    if isinstance(value, (list, tuple, pydicom.multival.MultiValue)):
        return float(value[0]) if len(value) else None
    return float(value)


def _frame_tags(dataset: Dataset, index: int) -> Dataset:
    """Returns the tags that a frame's grey values depend on, its functional groups included."""
    tags = Dataset()
    for keyword in (
        "PhotometricInterpretation", "BitsStored", "PixelRepresentation", "ModalityLUTSequence",
        "RescaleSlope", "RescaleIntercept", "VOILUTSequence", "WindowCenter", "WindowWidth",
        "VOILUTFunction", "PixelPaddingValue", "PixelPaddingRangeLimit",
    ):  # fmt: skip
        if keyword in dataset:
            tags[keyword] = dataset[keyword]
    shared = dataset.get("SharedFunctionalGroupsSequence") or []
    own = dataset.get("PerFrameFunctionalGroupsSequence") or []
    # A frame's own group goes before the shared one.
    for group in [*shared[:1], *own[index : index + 1]]:
        for sequence in _FRAME_GROUPS:
            for item in group.get(sequence) or []:
                tags.update({element.tag: element for element in item})
    return tags
