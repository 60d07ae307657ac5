"""What users bring, as what training reads: PNG and JPEG are kept, everything else becomes PNG."""

import cv2
import numpy as np

from radimagenet_jax.data.dicom import Window
from radimagenet_jax.data.reading import pixels

_KEPT = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff")


def readable_image(
    encoded: bytes, *, name: str, window: Window | None = None, frame: int | None = None
) -> bytes:
    """Verifies an image and returns it as PNG or JPEG.

    Args:
      encoded: A PNG or JPEG, whose bytes are kept; or a DICOM file, or a TIFF or BMP with 8 bits a
        channel.
      name: What to call the image in a message; its end tells a damaged DICOM file from a
        damaged picture.
      window: For grey DICOM images, in place of the file's own.
      frame: For files with several, from 0.

    Raises:
      DataError: If it cannot be read, has more than 8 bits a channel and is no DICOM, has several
        frames and none was chosen, or is given a window or a frame that it cannot have.
    """
    image = pixels(encoded, name=name, window=window, frame=frame)
    return encoded if encoded.startswith(_KEPT) else _png(image)


def _png(image: np.ndarray) -> bytes:
    """Encodes (H, W, 1) or (H, W, 3) RGB uint8 without loss."""
    pixels = image if image.shape[-1] == 1 else cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    return cv2.imencode(".png", pixels)[1].tobytes()
