"""Images on which an export is compared with the network: drawn ones, or a person's own."""

import numpy as np

from radimagenet_jax.data import images, inputs
from radimagenet_jax.errors import DataError
from tfds_builders.phantom import patients

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


def read(place: str, size: int) -> np.ndarray:
    """Reads up to ten images, spread over those that are found.

    Args:
      place: A folder, a file, a pattern or a table, as `data.inputs.find` takes it.
      size: Side that they are resized to, with nearest neighbour.

    Returns:
      (N, size, size, 3) uint8, RGB.

    Raises:
      DataError: If there are none, or one cannot be read.
    """
    found = inputs.find(place, flag="--images")
    if not found.entries:
        raise DataError(found.failures[0].problem)
    spread = np.linspace(0, len(found.entries) - 1, min(COUNT, len(found.entries)))
    read = []
    for entry in (found.entries[round(each)] for each in spread):
        first = next(iter(inputs.read(entry, size).images.values()))
        if isinstance(first, DataError):
            raise first
        read.append(np.broadcast_to(first, (size, size, 3)))
    return np.stack(read)
