"""Masks of lesions beside images: what is stored, and how outlines become one.

A data set with masks has the feature `mask`: an encoded 8-bit PNG of 0 (background) and 255
(lesion) in the image's size, or no bytes at all where an image has no mask. It is not decoded
unless somebody asks for it, so that training does not pay for it.
"""

from collections.abc import Callable, Sequence

import cv2
import numpy as np
import tensorflow_datasets as tfds

from radimagenet_jax.data.images import check_image, decode, encode_png
from radimagenet_jax.data.source_files import SourceFile
from radimagenet_jax.errors import DataError

NO_MASK = b""


def mask_feature() -> tfds.features.Tensor:
    """Returns the TFDS feature of a mask."""
    return tfds.features.Tensor(
        shape=(),
        dtype=np.object_,
        doc="An encoded PNG of 0 and 255 in the image's size; empty where there is no mask.",
    )


def encode_mask(mask: np.ndarray) -> bytes:
    """Encodes a mask.

    Args:
      mask: (H, W) bool, True in the lesion.

    Returns:
      A PNG of one 8-bit channel, 0 and 255.
    """
    return encode_png(mask.astype(np.uint8) * 255)


def decode_mask(encoded: bytes, *, name: str, shape: tuple[int, ...] | None = None) -> np.ndarray:
    """Decodes the feature `mask` of a prepared data set, where it is not empty.

    Args:
      encoded: As `encode_mask` made it.
      name: What to call the mask in a message.
      shape: Height and width of its image; None where they are not known.

    Returns:
      (H, W) bool, True in the lesion.

    Raises:
      DataError: If it is damaged or of another size.
    """
    mask = decode(encoded, name=name).max(axis=-1) > 0
    if shape is not None and mask.shape != shape:
        raise DataError(f"{name} has the size {mask.shape} where its image has {shape}")
    return mask


def read_mask(encoded: bytes, *, name: str, shape: tuple[int, int]) -> np.ndarray:
    """Reads a mask file of any format that images may have.

    Args:
      encoded: The file's bytes; black is background, everything else is lesion.
      name: What to call the file in a message.
      shape: Height and width of the image that it belongs to.

    Returns:
      (H, W) bool.

    Raises:
      DataError: If it is no readable image, or of another size.
    """
    mask = check_image(encoded, name=name, is_mask=True).any(axis=-1)
    if mask.shape != shape:
        raise DataError(
            f"{name} has {mask.shape[1]} x {mask.shape[0]} pixels where its image has "
            f"{shape[1]} x {shape[0]}; download both again."
        )
    return mask


def fill_outlines(
    outlines: Sequence[Sequence[tuple[float, float]]], shape: tuple[int, int]
) -> np.ndarray:
    """Fills closed outlines.

    Args:
      outlines: For each lesion its points (x, y) in pixels, x to the right and y down, the
        centre of the first pixel at (0, 0); they are rounded to pixels. Points outside of the image
        are fine.
      shape: Height and width of the image.

    Returns:
      (H, W) bool, True inside and on an outline; several lesions are merged.
    """
    mask = np.zeros(shape, np.uint8)
    for outline in outlines:
        points = np.rint(np.asarray(outline, np.float64)).astype(np.int32)
        cv2.fillPoly(mask, [points.reshape(-1, 1, 2)], 1)
    return mask.astype(bool)


def masked(file: SourceFile, masks: Sequence[SourceFile]) -> Callable[[], dict[str, bytes]]:
    """Returns an `Example.read` for an image as its owners gave it and its masks, merged."""

    def read() -> dict[str, bytes]:
        encoded = file.read()
        height, width = check_image(encoded, name=file.shown).shape[:2]
        if not masks:
            return {"image": encoded, "mask": NO_MASK}
        lesions = [read_mask(one.read(), name=one.shown, shape=(height, width)) for one in masks]
        return {"image": encoded, "mask": encode_mask(np.logical_or.reduce(lesions))}

    return read
