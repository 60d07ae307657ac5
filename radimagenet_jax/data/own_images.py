"""What users bring, as training reads it: PNG, JPEG, BMP, TIFF and DICOM, by content.

`ImageFile` gives pixels, `readable_image` the file that a data set keeps; decoded, it has the same
pixels. So an image that is scored is the image that was learnt from, bit for bit.
"""

from collections.abc import Sequence

import numpy as np

from radimagenet_jax.data.dicom import DicomFile, Window, is_dicom
from radimagenet_jax.data.formats import DICOM_SUFFIXES, JPEG, PNG
from radimagenet_jax.data.images import check_image, count_pages, encode_png
from radimagenet_jax.errors import DataError


class ImageFile:
    """An image file that is opened once for all its frames.

    Attributes:
      is_dicom: Whether it is read as DICOM.
      takes_windows: Whether it is DICOM with grey values.
    """

    def __init__(self, encoded: bytes, *, name: str):
        """Opens a file.

        Args:
          encoded: Its bytes: PNG, JPEG, TIFF or BMP with 8 bits a channel, or DICOM.
          name: What to call it in a message; its end tells a damaged DICOM file from a damaged
            picture.

        Raises:
          DataError: If it is DICOM and cannot be read.
        """
        self._encoded, self._name = encoded, name
        self._dicom = DicomFile(encoded, name=name) if _means_dicom(encoded, name) else None
        self.is_dicom = self._dicom is not None
        self.takes_windows = self._dicom is not None and self._dicom.is_grey

    def count_frames(self) -> int:
        """Counts the images that it holds.

        Raises:
          DataError: If it is a damaged TIFF.
        """
        if self._dicom is not None:
            return self._dicom.frames
        return count_pages(self._encoded, name=self._name)

    def image(
        self,
        *,
        windows: Sequence[Window] = (),
        frame: int | None = None,
        unwrap: bool = False,
    ) -> np.ndarray:
        """Verifies and decodes one frame.

        Args:
          windows: For grey DICOM images, in place of the file's own; see `dicom.decode_dicom`.
          frame: For files with several, from 0.
          unwrap: See `dicom.decode_dicom`.

        Returns:
          (H, W, 1) uint8 where the image is grey, else (H, W, 3) uint8, RGB.

        Raises:
          DataError: If it cannot be read, has more than 8 bits a channel and is no DICOM, has
            several frames and none was chosen, or is given a window or a frame that it cannot have.
        """
        if self._dicom is not None:
            return self._dicom.image(windows=windows, frame=frame, unwrap=unwrap)
        if windows:
            raise DataError(
                f"{self._name} is no DICOM file, and only these have grey values for a window; "
                "leave window_center and window_width empty."
            )
        return check_image(self._encoded, name=self._name, frame=frame)


def readable_image(
    encoded: bytes, *, name: str, window: Window | None = None, frame: int | None = None
) -> bytes:
    """Verifies an image and returns it as PNG or JPEG.

    Args:
      encoded: As for `ImageFile`. A PNG's or JPEG's bytes are kept.
      name: As for `ImageFile`.
      window: For grey DICOM images, in place of the file's own.
      frame: For files with several, from 0.

    Raises:
      DataError: As `ImageFile.image`.
    """
    file = ImageFile(encoded, name=name)
    image = file.image(windows=[window] if window else [], frame=frame)
    return encoded if encoded.startswith((PNG, JPEG)) and not file.is_dicom else encode_png(image)


def _means_dicom(encoded: bytes, name: str) -> bool:
    """Tells whether a file is read as DICOM: by its content, or, if it is damaged, by its name."""
    return is_dicom(encoded) or name.lower().endswith(DICOM_SUFFIXES)
