"""Single images of all kinds, as training reads them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from radimagenet_jax.data.dicom import Window, decode_dicom, is_dicom
from radimagenet_jax.data.images import check_image, resize_nearest
from radimagenet_jax.errors import DataError
from radimagenet_jax.files import expanded

_DICOM_SUFFIXES = (".dcm", ".dicom", ".ima")


def read_image(
    path: str | Path, *, window: tuple[float, float] | None = None, frame: int | None = None
) -> NDArray[np.uint8]:
    """Reads an image file as the preparation of a data set does.

    Args:
      path: A PNG, JPEG, BMP or TIFF of 8 bits a channel, or a DICOM file, whatever its name.
      window: Centre and width, in Hounsfield units for CT, in place of those of a DICOM file.
      frame: Of a file with several, from 0.

    Returns:
      (H, W, 1) grey or (H, W, 3) RGB, uint8.

    Raises:
      DataError: If the file is missing, damaged or no image, or is given a window or a frame that
        it cannot have.
    """
    path = expanded(path)
    try:
        encoded = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from error
    chosen = None if window is None else Window(*window)
    return pixels(encoded, name=str(path), window=chosen, frame=frame)


def pixels(
    encoded: bytes, *, name: str, window: Window | None = None, frame: int | None = None
) -> NDArray[np.uint8]:
    """Verifies and decodes an image.

    Args:
      encoded: The file's bytes: DICOM, PNG or JPEG; or TIFF or BMP with 8 bits a channel.
      name: What to call the image in a message; its end tells a damaged DICOM file from a
        damaged picture.
      window: For grey DICOM images, in place of the file's own.
      frame: For files with several, from 0.

    Returns:
      (H, W, 1) grey or (H, W, 3) RGB, uint8.

    Raises:
      DataError: If it cannot be read, has more than 8 bits a channel and is no DICOM, has several
        frames and none was chosen, or is given a window or a frame that it cannot have.
    """
    if is_dicom(encoded) or name.lower().endswith(_DICOM_SUFFIXES):
        windows = [window] if window else []
        return decode_dicom(encoded, name=name, windows=windows, frame=frame)
    if window:
        raise DataError(
            f"{name} is no DICOM file, and only these have grey values for a window; leave the "
            "window out."
        )
    return check_image(encoded, name=name, frame=frame)


def from_array(image: Any, name: str) -> NDArray[np.uint8]:
    """Checks an image that somebody has in memory.

    Args:
      image: (H, W), (H, W, 1) or (H, W, 3), uint8.
      name: What to call it in a message.

    Returns:
      (H, W, 1 or 3) uint8.

    Raises:
      DataError: If it is of another shape or dtype, or empty.
    """
    array = np.asarray(image)
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or array.shape[-1] not in (1, 3) or 0 in array.shape:
        raise DataError(
            f"{name} has the shape {np.shape(image)}; give (H, W), (H, W, 1) or (H, W, 3)."
        )
    if array.dtype != np.uint8:
        raise DataError(
            f"{name} is {array.dtype.name}, not uint8 of 0..255; scale it first, with the window "
            "that a reader would choose."
        )
    return array


def each(images: Any, size: int) -> Iterator[tuple[str, NDArray[np.uint8]]]:
    """Yields a key and the pixels (S, S, 1 or 3) of each of several images.

    Args:
      images: Paths of files, or arrays as `from_array` takes them; one array (N, H, W, C) too.
      size: S, to which they are resized by nearest neighbour.

    Raises:
      DataError: As `read_image` and `from_array` do.
    """
    for number, image in enumerate(images):
        if isinstance(image, str | Path):
            yield str(image), resize_nearest(read_image(image), size)
        else:
            yield str(number), resize_nearest(from_array(image, f"image {number}"), size)
