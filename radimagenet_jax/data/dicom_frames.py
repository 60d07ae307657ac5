"""Frames that pydicom does not decode, or not alone: streams of deflate, and single bits."""

import struct
import zlib

import numpy as np
from pydicom.dataset import Dataset
from pydicom.encaps import get_frame
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RLELossless,
)

# Transfer syntaxes of pixels that are stored as they are.
NATIVE = (
    *(ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian),
    DeflatedExplicitVRLittleEndian,
)

# Supplement 244: each frame is a stream of deflate.
_DEFLATED = UID("1.2.840.10008.1.2.8.1")


def is_known(dataset: Dataset, syntax: UID) -> bool:
    """Tells whether the frames of a file are decoded here."""
    is_one_bit = dataset.get("BitsAllocated") == 1 and dataset.get("SamplesPerPixel", 1) == 1
    return syntax == _DEFLATED or (is_one_bit and syntax in (RLELossless, *NATIVE))


def leave_one(dataset: Dataset, syntax: UID, index: int) -> None:
    """Puts one frame, decoded, in the place of all that a file has.

    The data set is then one of a single frame that is stored as it is.

    Args:
      dataset: With its pixel data.
      syntax: Its transfer syntax, one that `is_known`.
      index: Of the frame, from 0.

    Raises:
      ValueError, zlib.error, struct.error: If the frame is damaged.
    """
    count = int(dataset.get("NumberOfFrames") or 1)
    samples = dataset.get("SamplesPerPixel", 1)
    bits = dataset.Rows * dataset.Columns * samples * dataset.BitsAllocated
    size = (bits + 7) // 8
    if syntax in NATIVE:
        content = _cut(dataset.PixelData, index * bits, bits)
    else:
        frame = get_frame(dataset.PixelData, index, number_of_frames=count)
        content = _inflated(frame, size) if syntax == _DEFLATED else _unpacked(frame, size)
    dataset.PixelData = content.ljust(size + size % 2, b"\0")
    dataset.NumberOfFrames = 1
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset["PixelData"].VR = "OW" if dataset.BitsAllocated > 8 else "OB"


def grows_beyond(content: bytes, limit: int) -> bool:
    """Tells whether a stream of deflate inflates to more than so many bytes.

    Raises:
      zlib.error: If it is damaged.
    """
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    done = 0
    while not inflater.eof and done <= limit:
        part = inflater.decompress(content, 2**20)
        content = inflater.unconsumed_tail
        if not part:
            break
        done += len(part)
    return done > limit


def _inflated(content: bytes, limit: int) -> bytes:
    """Inflates at most so many bytes."""
    return zlib.decompressobj(-zlib.MAX_WBITS).decompress(content, limit)


def _cut(content: bytes, start: int, count: int) -> bytes:
    """Cuts single bits out of many: frames begin where the one before ends, amid a byte or not."""
    first = start // 8
    packed = np.frombuffer(content[first : (start + count + 7) // 8], np.uint8)
    found = np.unpackbits(packed, bitorder="little")[start - 8 * first :][:count]
    if len(found) < count:
        raise ValueError("the pixel data end too early")
    return np.packbits(found, bitorder="little").tobytes()


def _unpacked(frame: bytes, size: int) -> bytes:
    """Decodes the one segment of an RLE frame (PS3.5 G.3 to G.5) to so many bytes."""
    segments, position = struct.unpack_from("<II", frame)
    if segments != 1:
        raise ValueError(f"{segments} segments, where single bits have one")
    found = bytearray()
    while len(found) < size:
        if position >= len(frame):
            raise ValueError("the segment ends too early")
        head = frame[position]
        if head < 128:  # so many bytes as they are, and one more
            found += frame[position + 1 : position + 2 + head]
            position += 2 + head
        else:
            found += frame[position + 1 : position + 2] * (257 - head if head > 128 else 0)
            position += 2 if head > 128 else 1
    return bytes(found[:size])
