"""Activation maps over images: colours that can be read, and the same for every page.

What speaks for the class is warm, what speaks against it is cold, and what does neither leaves the
image as it is. The scale is the caller's, so that maps of several images can be compared.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

# At the ends of the scale; chosen to differ in lightness too, for readers who tell few colours.
WARM = (255, 120, 0)
COLD = (40, 110, 255)
# So much of an image is covered at the ends of the scale: what is below can still be seen.
_OPACITY = 0.65


def resized(raw: NDArray[np.floating], shape: tuple[int, int]) -> NDArray[np.float32]:
    """Interpolates a map bilinearly between the centres of its places, as `Network.cam` does.

    Args:
      raw: (h, w).
      shape: (H, W) of the result.
    """
    height, width = shape
    return cv2.resize(
        np.asarray(raw, np.float32), (width, height), interpolation=cv2.INTER_LINEAR
    ).astype(np.float32, copy=False)


def overlay(image: NDArray[np.uint8], raw: NDArray[np.floating], limit: float) -> NDArray[np.uint8]:
    """Draws a map over an image.

    Args:
      image: (H, W, 1 or 3) uint8, grey or RGB.
      raw: (h, w), in units of the logit.
      limit: What has the full colour; larger values are drawn as it is.

    Returns:
      (H, W, 3) uint8, RGB.
    """
    height, width = image.shape[:2]
    strength = np.clip(resized(raw, (height, width)) / max(limit, 1e-12), -1, 1)[..., None]
    colour = np.where(strength > 0, np.array(WARM, np.float32), np.array(COLD, np.float32))
    alpha = _OPACITY * np.abs(strength)
    return np.rint((1 - alpha) * image + alpha * colour).astype(np.uint8)


def outlined(
    image: NDArray[np.uint8], mask: NDArray[np.bool_], colour: tuple[int, int, int]
) -> NDArray[np.uint8]:
    """Draws the outline of a mask over an image, with a dark edge that sets it off.

    Args:
      image: (H, W, 3) uint8, RGB.
      mask: (H, W) bool.
      colour: RGB.

    Returns:
      (H, W, 3) uint8; a copy.
    """
    drawn = np.ascontiguousarray(image).copy()
    found, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(drawn, found, -1, (0, 0, 0), 4, cv2.LINE_AA)
    cv2.drawContours(drawn, found, -1, colour, 2, cv2.LINE_AA)
    return drawn


def common_limit(maps: NDArray[np.floating]) -> float:
    """The limit of a scale for several maps: 99.5 % of their places are within it.

    Args:
      maps: (N, h, w).
    """
    return float(np.quantile(np.abs(maps), 0.995)) if maps.size else 1.0


def gradient() -> str:
    """The scale as a CSS gradient over black, from the most cold to the most warm."""

    def colour(rgb: tuple[int, int, int]) -> str:
        return "rgb({}, {}, {})".format(*(round(_OPACITY * part) for part in rgb))

    return f"linear-gradient(to right, {colour(COLD)}, rgb(0, 0, 0), {colour(WARM)})"
