"""DICOM files to 8-bit images: what is in a file, whether it can be read, and its pixels.

How grey values are shown is in `dicom_display`; colour becomes RGB. pydicom parses and
decompresses; what it says about a file is never passed on, since its messages may quote values,
and a file's values may name a patient. The only words here about a file are its name as the user
gave it, names of the standard, and figures of its pixels.
"""

import contextlib
import hashlib
import importlib.util
import io
import logging
import struct
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import pydicom
from pydicom.dataset import Dataset
from pydicom.pixels import apply_color_lut, get_decoder, pixel_array
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    RLELossless,
)

from radimagenet_jax.data import dicom_frames, native_worker
from radimagenet_jax.data.dicom_display import KEYWORDS, Window, grey_image
from radimagenet_jax.data.dicom_signature import MAGIC, MAGIC_OFFSET, is_dicom
from radimagenet_jax.data.images import MAX_PIXELS
from radimagenet_jax.data.source_files import SourceFile
from radimagenet_jax.errors import DataError

__all__ = [
    "DicomFile",
    "Header",
    "Window",
    "decode_dicom",
    "header_of",
    "is_dicom",
    "pseudonym",
    "read_header",
]

T = TypeVar("T")

_COLOUR = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")
_GREY = ("MONOCHROME1", "MONOCHROME2")
_PIXELS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
# What frames of an enhanced multi-frame file have in functional groups (PS3.3 C.7.6.16.2).
_FRAME_GROUPS = ("PixelValueTransformationSequence", "FrameVOILUTSequence")
# Decoded in this process: by pydicom in Python, and by the library of all JPEG files.
_SAFE_PLUGINS = {
    **dict.fromkeys(dicom_frames.NATIVE, ""),
    RLELossless: "pydicom",
    JPEGBaseline8Bit: "pillow",
}
# The packages of the extra 'dicom', by the module that each is imported by.
_EXTRA_MODULES = ("gdcm", "pylibjpeg", "openjpeg")
# A deflated file may grow so far; images do by a factor of 3.
_MAX_INFLATED = 256 * 2**20

# pydicom's warnings and log lines quote values of a file, such as a malformed patient name. The
# filters are set once, since those of `warnings.catch_warnings` are shared between threads.
warnings.filterwarnings("ignore", module=r"pydicom(\.|$)")
logging.getLogger("pydicom").propagate = False


@dataclass(frozen=True)
class Header:
    """What a file says before its pixels that data sets ask for.

    Attributes:
      patient: The PatientID as it is, which must not leave the program, '' where there is none.
      may_wrap: Whether negative values may be stored wrapped around at 12 bits, as in slices of
        some scanners: unsigned, 12 bits, and no intercept to make them negative.
    """

    patient: str
    may_wrap: bool


def decode_dicom(
    encoded: bytes,
    *,
    name: str,
    windows: Sequence[Window] = (),
    frame: int | None = None,
    unwrap: bool = False,
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
      unwrap: Make negative again what wrapped around at 12 bits, in files that may have such
        values (see `Header`); others are shown as without it.

    Returns:
      (H, W, 1) uint8 where the image is grey, else (H, W, 3) uint8, RGB.

    Raises:
      DataError: If the file is empty, no DICOM, without pixels, cut short, damaged, implausibly
        large, compressed in a way that is not installed, says what is senseless of how it is to
        be shown, has no such frame, or has several and `frame` is None. No message has any value
        of the file that may name a patient.
    """
    return DicomFile(encoded, name=name).image(windows=windows, frame=frame, unwrap=unwrap)


class DicomFile:
    """A DICOM file that is parsed once for all its frames.

    Attributes:
      frames: How many images it holds.
      is_grey: Whether it has grey values, which windows are for.
    """

    def __init__(self, encoded: bytes, *, name: str):
        """Parses what comes with the pixels.

        Args:
          encoded: The file's bytes.
          name: What to call the file in a message.

        Raises:
          DataError: As `decode_dicom`, for all but the pixels themselves.
        """
        self._encoded, self._name = encoded, name
        self._dataset = _read(io.BytesIO(encoded), name)
        self.frames = _check_pixels(self._dataset, name)
        self.is_grey = _text(self._dataset, "PhotometricInterpretation", name) in _GREY

    def image(
        self,
        *,
        windows: Sequence[Window] = (),
        frame: int | None = None,
        unwrap: bool = False,
    ) -> np.ndarray:
        """Decodes one frame; arguments, result and errors are those of `decode_dicom`."""
        name, count = self._name, self.frames
        if frame is None and count > 1:
            raise DataError(
                f"{name} has {count} frames; choose one by its number, or save each as an image."
            )
        if not 0 <= (frame or 0) < count:
            raise DataError(f"{name} has no frame {frame}; choose one of 0 to {count - 1}.")
        if len(windows) not in (0, 1, 3):
            raise ValueError(f"an image is made of one window or of three, not of {len(windows)}")
        dataset = self._dataset
        if dicom_frames.is_known(dataset, _syntax(dataset, name)):
            # Decoding puts the frame into its place.
            dataset = _read(io.BytesIO(self._encoded), name)
        stored = _stored_values(dataset, self._encoded, frame or 0, name)
        if stored.ndim == 2 and self.is_grey:
            return _quietly(
                lambda: grey_image(
                    stored,
                    _frame_tags(dataset, frame or 0),
                    name,
                    windows=windows,
                    little_endian=dataset.original_encoding[1] is not False,
                    unwrap=unwrap and _may_wrap(dataset),
                ),
                name,
            )
        if windows:
            raise DataError(
                f"{name} is a colour image, which grey-value windows are not for; leave them out "
                "or remove it."
            )
        return _quietly(lambda: _colour(dataset, stored), name)


def read_header(encoded: bytes, *, name: str) -> Header:
    """Returns what data sets ask of a file before they decode it.

    Args:
      encoded: The file's bytes; its beginning up to the pixels is enough.
      name: What to call the file in a message.

    Raises:
      DataError: If the file is empty, no DICOM, or damaged before its pixels.
    """
    return _header(io.BytesIO(encoded), name)


def _header(stream: io.BytesIO, name: str) -> Header:
    """Reads a header; the stream then stands at the pixels, or at its end where it has none."""
    tags = ["PatientID", *_WRAP_TAGS]
    dataset = _read(stream, name, stop_before_pixels=True, specific_tags=tags)
    patient = str(_quietly(lambda: dataset.get("PatientID", ""), name) or "").strip()
    may_wrap = _quietly(lambda: _may_wrap(dataset), name)
    return Header(patient, may_wrap)


def header_of(file: SourceFile, *, beginning: int) -> Header | None:
    """Reads a file's header, None of other files and where it cannot be read.

    An image that cannot be read is told of when its pixels are.

    Args:
      file: Any file.
      beginning: Bytes that mostly hold all that comes before the pixels; else the rest is read.
    """
    try:
        with file.open() as stream:
            start = stream.read(beginning)
            if not is_dicom(start):
                return None
            begun = io.BytesIO(start)
            with contextlib.suppress(DataError):
                header = _header(begun, file.shown)
                # pydicom ends without a word where an element reaches beyond what is there.
                if begun.tell() < len(start) or len(start) < beginning:
                    return header
            return read_header(start + stream.read(), name=file.shown)
    except DataError:
        return None


def pseudonym(patient: str, salt: str) -> str:
    """Returns what images of one patient share, without telling who it is.

    A PatientID can be guessed and tried, so a pseudonym with a salt that is public is only for
    files whose PatientID is a pseudonym already; otherwise it must not leave the program.

    Args:
      patient: The PatientID.
      salt: Any text; one for each data set, so that pseudonyms of two sets cannot be linked.

    Returns:
      The first 16 hexadecimal digits of SHA-256 over the salt and the PatientID.
    """
    return hashlib.sha256(f"{salt}\0{patient}".encode()).hexdigest()[:16]


_WRAP_TAGS = ("BitsStored", "PixelRepresentation", "RescaleIntercept")
# A file whose intercept is below has its negative values from there.
_LEAST_INTERCEPT = -100


def _may_wrap(dataset: Dataset) -> bool:
    bits, sign, intercept = (dataset.get(keyword) for keyword in _WRAP_TAGS)
    return bits == 12 and sign == 0 and float(intercept or 0) > _LEAST_INTERCEPT


def _read(stream: io.BytesIO, name: str, **options: Any) -> Dataset:
    encoded = stream.getvalue()
    if not encoded:
        raise DataError(f"{name} is empty; download or copy it again.")
    if not is_dicom(encoded):
        raise DataError(
            f"{name} is no DICOM file (neither the mark 'DICM' nor a data set begins it); export "
            "or download it again."
        )
    _check_inflated(encoded, name)
    dataset = _quietly(lambda: pydicom.dcmread(stream, force=True, **options), name)
    if not hasattr(dataset, "file_meta"):
        dataset.file_meta = pydicom.dataset.FileMetaDataset()
    if not dataset.file_meta.get("TransferSyntaxUID"):
        # A file that does not say it is uncompressed, as pydicom found its values to be written.
        implicit, little = dataset.original_encoding
        plain = ExplicitVRLittleEndian if little else ExplicitVRBigEndian
        dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else plain
    return dataset


def _check_inflated(encoded: bytes, name: str) -> None:
    """Refuses a deflated file that grows beyond all proportion, before pydicom inflates it."""
    if f"{DeflatedExplicitVRLittleEndian}".encode() not in encoded[:4096]:
        return
    # The group length comes first (PS3.10 7.1) and counts from behind itself.
    start = MAGIC_OFFSET + len(MAGIC)
    if encoded[start : start + 8] != b"\x02\0\0\0UL\x04\0" or len(encoded) < start + 12:
        raise DataError(_damaged(name))
    start += 12 + struct.unpack_from("<I", encoded, start + 8)[0]
    if _quietly(lambda: dicom_frames.grows_beyond(encoded[start:], _MAX_INFLATED), name):
        raise DataError(
            f"{name} would expand to more than {_MAX_INFLATED:,} bytes; export it without "
            "compression."
        )


def _damaged(name: str) -> str:
    return f"{name} is cut short or damaged; download or copy it again."


def _quietly(action: Callable[[], T], name: str) -> T:
    """Runs what parses a file; which errors come of a damaged one is up to pydicom.

    The cause is cut off, since a traceback would print pydicom's message with values of the file.
    """
    try:
        return action()
    except DataError:
        raise
    except Exception:
        raise DataError(_damaged(name)) from None


def _check_pixels(dataset: Dataset, name: str) -> int:
    """Checks what the header says of the pixels, before memory is taken; returns the frames."""
    if not _quietly(lambda: any(keyword in dataset for keyword in _PIXELS), name):
        raise DataError(
            f"{name} is DICOM without pixel data ({_kind(dataset, name)}); copy it again or "
            "remove its row."
        )
    rows, columns = _number(dataset, "Rows", name), _number(dataset, "Columns", name)
    samples = _number(dataset, "SamplesPerPixel", name, default=1)
    if samples not in (1, 3):
        raise DataError(
            f"{name} has {samples} values a pixel, where 1 or 3 are read; export it again."
        )
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


def _kind(dataset: Dataset, name: str) -> str:
    """Returns what a file without pixels is, in the standard's words."""

    def read() -> str:
        meta = getattr(dataset, "file_meta", Dataset())
        uid = dataset.get("SOPClassUID") or meta.get("MediaStorageSOPClassUID") or ""
        known = UID(str(uid))
        return known.name if known.name != known else "a report or a plan"

    return f"{_quietly(read, name)}, or it is cut short"


def _check_syntax(dataset: Dataset, name: str) -> None:
    syntax = _syntax(dataset, name)
    if dicom_frames.is_known(dataset, syntax):
        return
    known = syntax.is_transfer_syntax and not syntax.is_private
    try:
        available = get_decoder(syntax).is_available
    except NotImplementedError:
        raise DataError(
            f"{name} is stored as {syntax.name if known else 'an unknown transfer syntax'}, which "
            "cannot be read as images; convert it to uncompressed DICOM or to PNG."
        ) from None
    bits = dataset.get("BitsStored")
    if syntax == JPEGExtended12Bit and bits != 8:
        raise DataError(
            f"{name} is compressed as JPEG with {bits} bits a value, which no decoder here reads; "
            "convert it to uncompressed DICOM."
        )
    if not available:
        raise DataError(f"{name} is compressed as {syntax.name}, {_advice()}.")


def _syntax(dataset: Dataset, name: str) -> UID:
    return _quietly(lambda: UID(dataset.file_meta.TransferSyntaxUID), name)


def _advice() -> str:
    """Returns what to do about a compression without its decoder."""
    missing = [one for one in _EXTRA_MODULES if importlib.util.find_spec(one) is None]
    if missing:
        return "whose decoder is not installed; pip install 'radimagenet-jax[dicom]'"
    return "which no decoder here reads; convert it to uncompressed DICOM or to PNG"


def _number(dataset: Dataset, keyword: str, name: str, default: int | None = None) -> int:
    try:
        value = dataset.get(keyword)
        return default if value is None and default is not None else int(value)
    except Exception:  # as in `_quietly`
        raise DataError(
            f"{name} is cut short or damaged (its {keyword} is missing or no whole number); "
            "download or copy it again."
        ) from None


def _text(dataset: Dataset, keyword: str, name: str) -> str:
    return _quietly(lambda: str(dataset.get(keyword, "")).strip(), name)


def _stored_values(dataset: Dataset, encoded: bytes, index: int, name: str) -> np.ndarray:
    """Returns a frame's values as they are stored, colour as RGB: (H, W) or (H, W, 3)."""
    syntax = _syntax(dataset, name)
    if dicom_frames.is_known(dataset, syntax):
        _quietly(lambda: dicom_frames.leave_one(dataset, syntax, index), name)
        index = 0
    elif syntax not in _SAFE_PLUGINS:
        return native_worker.decode(
            f"{__name__}:decode_stored", encoded, name=name, arguments=(index, name)
        )
    try:
        return pixel_array(dataset, index=index, decoding_plugin=_SAFE_PLUGINS.get(syntax, ""))
    except Exception:
        raise _damaged_pixels(syntax, name) from None


def decode_stored(encoded: bytes, index: int, name: str) -> np.ndarray:
    """Decodes a frame in this process; `decode_dicom` does so in a worker.

    Returns:
      (H, W) or (H, W, 3) as stored, colour as RGB.

    Raises:
      DataError: If that fails.
    """
    dataset = _read(io.BytesIO(encoded), name)
    try:
        return pixel_array(dataset, index=index)
    except Exception:
        raise _damaged_pixels(_syntax(dataset, name), name) from None


def _damaged_pixels(syntax: UID, name: str) -> DataError:
    remedy = "download or copy it again"
    if syntax not in _SAFE_PLUGINS and syntax.is_compressed:
        remedy += f", or, as it is compressed as {syntax.name}, convert it to uncompressed DICOM"
        if "not installed" in (advice := _advice()):
            remedy += f" or install the other decoders:{advice.partition(';')[2]}"
    return DataError(f"{name} is cut short or damaged in its pixels; {remedy}.")


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


def _frame_tags(dataset: Dataset, index: int) -> Dataset:
    """Returns the tags that a frame's grey values depend on, its functional groups included."""
    tags = Dataset()
    for keyword in KEYWORDS:
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
