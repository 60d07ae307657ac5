"""Single images of all kinds, as training reads them."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from radimagenet_jax.data import inputs
from radimagenet_jax.data.dicom import Window
from radimagenet_jax.data.images import resize_nearest
from radimagenet_jax.data.own_images import ImageFile
from radimagenet_jax.errors import DataError
from radimagenet_jax.files import expanded


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
    windows = [] if window is None else [Window(*window)]
    return ImageFile(encoded, name=str(path)).image(windows=windows, frame=frame)


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


def each(
    images: Any, size: int, windows: Sequence[tuple[float, float]] = (), *, unwrap: bool = False
) -> Iterator[tuple[str, NDArray[np.uint8]]]:
    """Yields a key and the pixels (S, S, 1 or 3) of each of several images.

    Args:
      images: Paths of files, folders, patterns or tables, as `inputs.find` takes them, or arrays as
        `from_array` does; one path or one array (N, H, W, C) too.
      size: S, to which they are resized by nearest neighbour.
      windows: Centre and width of those that DICOM files are shown through, one or three.
      unwrap: See `dicom.decode_dicom`.

    Raises:
      DataError: If anything that is found cannot be read, or an array is not as it must be.
    """
    how = inputs.Reading(tuple(Window(*window) for window in windows), unwrap)
    for number, image in enumerate([images] if isinstance(images, str | Path) else images):
        if isinstance(image, str | Path):
            yield from _found(str(image), size, how)
        else:
            yield str(number), resize_nearest(from_array(image, f"image {number}"), size)


def _found(path: str, size: int, how: inputs.Reading) -> Iterator[tuple[str, NDArray[np.uint8]]]:
    if not expanded(path).exists() and not set("*?[") & set(path):
        raise DataError(f"{path} cannot be read: there is no such file or folder.")
    found = inputs.find(path)
    if found.failures:
        raise DataError(found.failures[0].problem)
    is_one = len(found.entries) == 1 and expanded(path).is_file()
    for entry in found.entries:
        first, frames = 0, 1
        while first < frames:
            part = inputs.read(entry, size, how, first=first)
            frames = part.frames
            for key, image in part.images.items():
                if isinstance(image, DataError):
                    raise image
                # A file that is asked for by its path is called so.
                yield path + key.removeprefix(entry.key) if is_one else key, image
            first += inputs.FRAMES
