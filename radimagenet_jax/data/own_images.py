"""What users bring, as training reads it: PNG, JPEG, BMP, TIFF and DICOM, by content.

`read_image` gives pixels, `readable_image` the file that a data set keeps; decoded, it has the same
pixels. So an image that is scored is the image that was learnt from, bit for bit.
"""

from collections.abc import Sequence

import cv2
import numpy as np

from radimagenet_jax.data.dicom import DicomFile, Window, is_dicom
from radimagenet_jax.data.images import check_image
from radimagenet_jax.errors import DataError

_KEPT = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff")
DICOM_SUFFIXES = (".dcm", ".dicom", ".ima")


def read_image(
    encoded: bytes,
    *,
    name: str,
    windows: Sequence[Window] = (),
    frame: int | None = None,
    unwrap: bool = False,
) -> np.ndarray:
    """Verifies and decodes an image.

    Args:
      encoded: The file's bytes: PNG, JPEG, TIFF or BMP with 8 bits a channel, or DICOM.
      name: What to call the image in a message; its end tells a damaged DICOM file from a
        damaged picture.
      windows: For grey DICOM images, in place of the file's own; see `dicom.decode_dicom`.
      frame: For files with several, from 0.
      unwrap: See `dicom.decode_dicom`.

    Returns:
      (H, W, 1) uint8 where the image is grey, else (H, W, 3) uint8, RGB.

    Raises:
      DataError: If it cannot be read, has more than 8 bits a channel and is no DICOM, has several
        frames and none was chosen, or is given a window or a frame that it cannot have.
    """
    if means_dicom(encoded, name):
        return DicomFile(encoded, name=name).image(windows=windows, frame=frame, unwrap=unwrap)
    if windows:
        raise DataError(
            f"{name} is no DICOM file, and only these have grey values for a window; leave "
            "window_center and window_width empty."
        )
    return check_image(encoded, name=name, frame=frame)


def readable_image(
    encoded: bytes, *, name: str, window: Window | None = None, frame: int | None = None
) -> bytes:
    """Verifies an image and returns it as PNG or JPEG.

    Args:
      encoded: As for `read_image`. A PNG's or JPEG's bytes are kept.
      name: As for `read_image`.
      window: For grey DICOM images, in place of the file's own.
      frame: For files with several, from 0.

    Raises:
      DataError: As `read_image`.
    """
    windows = [window] if window else []
    image = read_image(encoded, name=name, windows=windows, frame=frame)
    is_kept = encoded.startswith(_KEPT) and not means_dicom(encoded, name)
    return encoded if is_kept else _png(image)


def means_dicom(encoded: bytes, name: str) -> bool:
    """Tells whether a file is read as DICOM: by its content, or, if it is damaged, by its name."""
    return is_dicom(encoded) or name.lower().endswith(DICOM_SUFFIXES)


def _png(image: np.ndarray) -> bytes:
    """Encodes (H, W, 1) or (H, W, 3) RGB uint8 without loss."""
    pixels = image if image.shape[-1] == 1 else cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    return cv2.imencode(".png", pixels)[1].tobytes()
