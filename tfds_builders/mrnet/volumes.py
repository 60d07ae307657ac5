"""MRNet's volumes: npy files (slices, 256, 256), of which single slices are read.

An npy file may hold pickled objects, which run code when they are loaded. Here only the header
is parsed, and the pixels are taken as bytes: nothing is ever unpickled.
"""

import math
import os
from dataclasses import dataclass
from typing import IO

import numpy as np
from numpy.lib import format as npy

from radimagenet_jax.data.source_files import SourceFile
from radimagenet_jax.errors import DataError

SIDE = 256


@dataclass(frozen=True)
class Volume:
    """A checked npy file.

    Attributes:
      file: Where it is.
      slices: How many slices it has.
      dtype: Of its pixels, an integer type.
      offset: Bytes before the first pixel.
    """

    file: SourceFile
    slices: int
    dtype: np.dtype
    offset: int


def open_volume(file: SourceFile) -> Volume:
    """Reads a volume's header and checks it against the file's length.

    Raises:
      DataError: If it is no npy file or cut short, holds anything but integers, or is not of shape
        (slices, 256, 256) in C order.
    """
    with file.open() as stream:
        try:
            shape, fortran_order, dtype = _read_header(stream)
        except ValueError as error:
            raise DataError(
                f"{file.shown} is not an npy file that can be read ({_first_line(error)}); "
                "download or copy it again."
            ) from error
        offset = stream.tell()
        length = stream.seek(0, os.SEEK_END)
    if dtype.kind not in "ui":
        raise DataError(
            f"{file.shown} holds values of type {dtype} where MRNet has 8-bit integers; download "
            "it again."
        )
    if len(shape) != 3 or shape[0] < 1 or shape[1:] != (SIDE, SIDE) or fortran_order:
        raise DataError(
            f"{file.shown} has the shape {shape}{' in Fortran order' if fortran_order else ''} "
            f"where MRNet has (slices, {SIDE}, {SIDE}); download it again."
        )
    expected = offset + math.prod(shape) * dtype.itemsize
    if length != expected:
        raise DataError(
            f"{file.shown} has {length:,} bytes where its header announces {expected:,}, so it is "
            "cut short or damaged; download or copy it again."
        )
    return Volume(file, shape[0], dtype, offset)


def read_slice(volume: Volume, index: int) -> np.ndarray:
    """Reads one slice.

    Args:
      volume: As `open_volume` returned it.
      index: From 0.

    Returns:
      (256, 256) uint8.

    Raises:
      DataError: If the file has changed, or its values do not fit into 8 bits.
    """
    size = SIDE * SIDE * volume.dtype.itemsize
    with volume.file.open() as stream:
        stream.seek(volume.offset + index * size)
        content = stream.read(size)
    if len(content) != size:
        raise DataError(f"{volume.file.shown} became shorter while it was read; copy it again.")
    pixels = np.frombuffer(content, volume.dtype).reshape(SIDE, SIDE)
    if pixels.min() < 0 or pixels.max() > 255:
        raise DataError(
            f"{volume.file.shown}, slice {index}: has values from {pixels.min()} to {pixels.max()} "
            "where MRNet has 0 to 255; download it again."
        )
    return pixels.astype(np.uint8)


def _read_header(stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype]:
    version = npy.read_magic(stream)
    if version == (1, 0):
        return npy.read_array_header_1_0(stream)
    if version == (2, 0):
        return npy.read_array_header_2_0(stream)
    raise ValueError(f"version {version[0]}.{version[1]} of the format is not known")


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0].rstrip(".:")
