"""Building a data set in a test, and reading back all that was written."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

# Split to key to features; label by name, texts as str, images and masks as encoded bytes.
Examples = dict[str, dict[str, dict[str, Any]]]


def build(builder_class: type, folder: Path, source: Path, config: str) -> Any:
    """Builds one configuration below a folder, from a folder of manual downloads."""
    builder = builder_class(data_dir=folder / "data", config=config)
    builder.workers = 2
    builder.download_and_prepare(
        download_config=tfds.download.DownloadConfig(manual_dir=source),
        file_format="array_record",
    )
    return builder


def examples(builder: Any) -> Examples:
    """Reads what was built."""
    names = builder.info.features["label"].names
    decoders = {"image": tfds.decode.SkipDecoding()}
    found: Examples = {}
    for split in builder.info.splits:
        found[split] = {}
        for example in builder.as_data_source(split, decoders=decoders):
            example["label"] = names[int(example["label"])]
            example["patient"] = example["patient"].decode()
            found[split][example.pop("key").decode()] = example
    return found


def counts(found: Examples) -> dict[str, int]:
    """Examples a split."""
    return {split: len(rows) for split, rows in found.items()}


def notes(builder: Any) -> list[str]:
    """What a builder keeps for the readers of results."""
    return list(builder.info.metadata["notes"])


def encoded(pixels: np.ndarray, kind: str = "PNG") -> bytes:
    """An image file."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def pixels(encoded_image: bytes) -> np.ndarray:
    """An image file's pixels, as they are."""
    return np.asarray(Image.open(io.BytesIO(encoded_image)))
