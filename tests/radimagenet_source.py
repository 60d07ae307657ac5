"""A small data set in the layout in which RadImageNet is released."""

import argparse
import csv
import io
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from tfds_builders.radimagenet.radimagenet_dataset_builder import class_names

SPLITS = ("train", "val", "test")
# Of the released images, about.
SHARES = {"train": 0.889, "val": 0.037, "test": 0.074}


def write_source(
    root: Path,
    images: int,
    size: int = 32,
    *,
    seed: int = 0,
    classes: Sequence[str] | None = None,
    skew: float = 1.0,
) -> dict[str, list[tuple[str, str]]]:
    """Writes images with a texture of their class, and the three tables.

    Args:
      root: The data set's folder of manual downloads.
      images: How many in all, about; each class has three at least in each split.
      size: Side of the images.
      seed: Of the noise.
      classes: Class names, all 165 by default.
      skew: Class sizes fall as rank ** -skew, in an order drawn by the seed.

    Returns:
      The tables' rows (filename, label) by split.
    """
    names = class_names() if classes is None else tuple(classes)
    rng = np.random.default_rng(seed)
    share = rng.permutation(np.arange(1.0, len(names) + 1) ** -skew)
    counts = share / share.sum() * images
    tables: dict[str, list[tuple[str, str]]] = {split: [] for split in SPLITS}
    for name, count in zip(names, counts, strict=True):
        folder, label = place(name)
        (root / folder).mkdir(parents=True, exist_ok=True)
        stem = "usn" if name.startswith("US") else name.split("-")[1]
        number = 0
        for split in SPLITS:
            for _ in range(max(3, round(count * SHARES[split]))):
                path = f"{folder}/{stem}{number:06d}.png"  # stems repeat across classes
                (root / path).write_bytes(png(texture(name, rng, size)))
                tables[split].append((path, label))
                number += 1
    for split, rows in tables.items():
        tables[split] = [rows[i] for i in rng.permutation(len(rows))]
        write_table(root, split, tables[split])
    return tables


def write_table(root: Path, split: str, rows: Sequence[tuple[str, str]]) -> None:
    """Writes RadiologyAI_<split>.csv."""
    with (root / f"RadiologyAI_{split}.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("filename", "label"), *rows])


def texture(name: str, rng: np.random.Generator, size: int) -> np.ndarray:
    """A grey image (size, size) uint8: a grating of the class's direction and wavelength."""
    index = class_names().index(name)
    angle = np.pi * (index % 15) / 15
    wavelength = 3 * 1.22 ** (index // 15)
    y, x = np.mgrid[:size, :size]
    phase = rng.uniform(0, 2 * np.pi)
    wave = np.sin(2 * np.pi * (x * np.cos(angle) + y * np.sin(angle)) / wavelength + phase)
    noise = rng.normal(0, 35, (size, size))
    return np.clip(128 + 45 * wave + noise, 0, 255).astype(np.uint8)


def png(image: np.ndarray, *, colour: bool = True) -> bytes:
    """A PNG of a grey image, with three equal channels as most of the released ones."""
    pixels = np.repeat(image[..., None], 3, -1) if colour else image
    buffer = io.BytesIO(cv2.imencode(".png", pixels)[1])
    return buffer.getvalue()


def place(name: str) -> tuple[str, str]:
    """Folder and label of a class in the release."""
    modality, anatomy, finding = name.split("-", 2)
    label = f"{anatomy}-{finding}"
    if modality == "US":
        return f"radiology_ai/US/{finding}", label
    folder = {"mriabd": "abd"}.get(anatomy, anatomy)
    return f"radiology_ai/{modality}/{folder}/{finding}", label


def main() -> None:
    """`python -m tests.radimagenet_source --root=DIR --images=N --size=PIXELS` writes a set."""
    parser = argparse.ArgumentParser(prog="python -m tests.radimagenet_source")
    parser.add_argument("--root", type=Path, required=True, help="the folder of manual downloads")
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--size", type=int, default=32)
    options = parser.parse_args()
    tables = write_source(options.root, options.images, options.size)
    print({split: len(rows) for split, rows in tables.items()})


if __name__ == "__main__":
    main()
