"""Images on which an export is compared with the network: drawn ones, or a person's own."""

from pathlib import Path

import numpy as np

from radimagenet_jax.data import images
from radimagenet_jax.errors import DataError
from tfds_builders.phantom import patients

_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")
# Batches of 1, 3, 3 and 3: as many as show a fault, and seconds of a network.
COUNT = 10


def drawn(size: int) -> np.ndarray:
    """Draws (10, size, size, 3) uint8, the same every time.

    Six grey phantoms with tissue and noise, black, white, a ramp of all grey values, and noise in
    colour, of which no channel equals another.
    """
    slices = list(patients.draw_split("test", 6))[1 :: patients.SLICES]  # one of each patient
    grey = [images.resize_nearest(one.pixels[..., None], size) for one in slices]
    ramp = np.linspace(0, 255, size, dtype=np.uint8)
    found = [
        *(np.broadcast_to(one, (size, size, 3)) for one in grey),
        np.zeros((size, size, 3), np.uint8),
        np.full((size, size, 3), 255, np.uint8),
        np.broadcast_to(ramp[:, None], (size, size, 3)),
        np.random.default_rng(0).integers(0, 256, (size, size, 3), np.uint8),
    ]
    return np.stack(found)


def read(folder: Path, size: int) -> np.ndarray:
    """Reads up to ten images, spread over a folder and those below it.

    Args:
      folder: With PNG, JPEG, BMP or TIFF files.
      size: Side that they are resized to, with nearest neighbour.

    Returns:
      (N, size, size, 3) uint8, RGB.

    Raises:
      DataError: If there are none, or one cannot be read.
    """
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in _SUFFIXES)
    if not paths:
        raise DataError(
            f"--images={folder}: no image there; give a folder with {', '.join(_SUFFIXES)} files, "
            "or leave it out to compare on drawn ones."
        )
    spread = np.linspace(0, len(paths) - 1, min(COUNT, len(paths)))
    return np.stack([_read(paths[round(place)], size) for place in spread])


def _read(path: Path, size: int) -> np.ndarray:
    try:
        encoded = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from error
    images.check_image(encoded, name=str(path))
    image = images.resize_nearest(images.decode(encoded, name=str(path)), size)
    return np.broadcast_to(image, (size, size, 3))
