"""Data sets for training, in memory or streamed: validated, with a fingerprint."""

import hashlib
import os
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from radimagenet_jax.console import warn
from radimagenet_jax.data import decoded
from radimagenet_jax.data.images import decode, resize_nearest
from radimagenet_jax.data.positive import positive_by_name
from radimagenet_jax.data.preparation import prepare
from radimagenet_jax.data.registry import DEFAULT_DATA_DIR, damaged
from radimagenet_jax.data.streaming import Record, RecordSource, StreamedSplit, read_index
from radimagenet_jax.errors import ConfigError, DataError
from radimagenet_jax.wording import counted

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Split:
    """One split, decoded, in the order in which it is stored.

    Attributes:
      images: (N, S, S, C) uint8, C 1 when the whole data set is grey, else 3 (RGB).
      labels: (N,) int32, an index into the class names.
      keys: N unique names.
      patients: N pseudonyms, '' where the patient is unknown.
      ids: (N,) uint32, the CRC-32 of each key in UTF-8: what the random draws of an example
        depend on, whatever its place in the order.
    """

    images: np.ndarray
    labels: np.ndarray
    keys: tuple[str, ...]
    patients: tuple[str, ...]
    ids: np.ndarray

    def __len__(self) -> int:
        return len(self.keys)

    def read(self, places: Sequence[int] | np.ndarray) -> np.ndarray:
        """Returns (B, S, S, C) uint8, the images at B places."""
        return self.images[np.asarray(places)]


@dataclass(frozen=True)
class Dataset:
    """A data set, its splits in memory or streamed.

    Attributes:
      name: As it was asked for.
      train: Training split.
      val: Validation split.
      test: Test split.
      class_names: In the order of the labels.
      terms: One sentence on what the data may be used for.
      fingerprint: SHA-256 over every example's split, key, label, patient and encoded bytes,
        in the splits' order; it does not depend on the image size.
      notes: Sentences on what a reader of the results should know about the data: what its builder
        says of the split, identical images with two labels or in two splits, patients in two
        splits, unknown patients.
    """

    name: str
    train: Split | StreamedSplit
    val: Split | StreamedSplit
    test: Split | StreamedSplit
    class_names: tuple[str, ...]
    terms: str
    fingerprint: str
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Stored(Record):
    """One example as it is stored, with its image."""

    encoded: bytes


def load(
    name: str,
    data_dir: str | Path = DEFAULT_DATA_DIR,
    image_size: int = 224,
    *,
    streaming: str = "false",
    memory: int = 0,
) -> Dataset:
    """Opens a data set, and prepares it first where that has not been done.

    In memory, all images are decoded and resized by nearest neighbour at once. Streamed, they are
    read when they are asked for, with the same result.

    Args:
      name: A name of `registry.names()`, or `<name>/<configuration>`.
      data_dir: The TFDS data directory.
      image_size: Side S of the images in pixels.
      streaming: 'false', in memory; 'true', from the encoded records; 'decoded', from decoded ones,
        which are written first where they are missing; or 'auto': in memory if they fit there, else
        from the decoded records if there are any, else from the encoded ones.
      memory: Bytes that the decoded images of all splits may take, for 'auto'. They are counted
        with one channel, or three if the first training image has colour.

    Raises:
      DataError: If the source of an unprepared data set is missing or bad, if prepared files
        are damaged, or if records contradict each other or what the builder declares.
    """
    built = prepare(name, data_dir)
    folder = Path(built.data_dir)
    if not (folder / "dataset_info.json").is_file():
        raise damaged(folder, "it has no dataset_info.json")
    if built.info.file_format.value != "array_record":
        raise DataError(
            f"the data set in {folder} was written as {built.info.file_format.value}, which cannot "
            "be read at random without TensorFlow; delete this folder and prepare it again, or "
            "give `tfds build` --file_format=array_record."
        )
    class_names = tuple(built.info.features["label"].names)
    sources = {split: RecordSource(built, split) for split in SPLITS}
    stored: dict[str, Sequence[Record]] = {}
    splits: Mapping[str, Split | StreamedSplit]
    if streaming in ("true", "decoded") or (
        streaming == "auto" and _decoded_size(sources, image_size) > memory
    ):
        indices = {split: read_index(source) for split, source in sources.items()}
        stored = {split: records for split, (records, _) in indices.items()}
        _check_records(folder, stored, class_names)
        channels = max(channels for _, channels in indices.values())
        streamed = {
            split: StreamedSplit(sources[split], image_size, channels, **_columns(records))
            for split, records in stored.items()
        }
        fingerprint = _fingerprint(stored)
        if streaming != "true":
            streamed = _with_pixels(streamed, folder, fingerprint, must=streaming == "decoded")
        splits = streamed
    else:
        held = {split: _read_split(source) for split, source in sources.items()}
        stored = dict(held)
        _check_records(folder, stored, class_names)
        images = _decode(folder, held, image_size)
        splits = {split: Split(images[split], **_columns(stored[split])) for split in stored}
        fingerprint = _fingerprint(stored)
    return Dataset(
        name=name,
        train=splits["train"],
        val=splits["val"],
        test=splits["test"],
        class_names=class_names,
        terms=built.TERMS,
        fingerprint=fingerprint,
        notes=(*(built.info.metadata or {}).get("notes", ()), *_notes(stored)),
    )


def positive_class(name: str, class_names: Sequence[str], dataset: str) -> int:
    """Index of the class whose AUROC is reported.

    Args:
      name: Of the class; '' for the one that `positive_by_name` takes.
      class_names: In index order.
      dataset: The data set's name, for the message.

    Raises:
      ConfigError: If the data set has no such class.
    """
    if not name:
        return positive_by_name(class_names)
    if name not in class_names:
        raise ConfigError(
            f"config.dataset.positive is {name!r}, but {dataset} has the classes "
            f"{', '.join(class_names)}."
        )
    return list(class_names).index(name)


def _decoded_size(sources: Mapping[str, RecordSource], size: int) -> int:
    """Bytes that all images take when they are decoded."""
    first = sources["train"].read([0])[0]
    channels = decode(first["image"], name=f"'{first['key'].decode()}'").shape[-1]
    return sum(source.count for source in sources.values()) * size * size * channels


def _with_pixels(
    splits: Mapping[str, StreamedSplit], folder: Path, fingerprint: str, *, must: bool
) -> dict[str, StreamedSplit]:
    """Returns the splits as they read decoded records, if these are there or must be."""
    first = splits["train"]
    encoded = decoded.Encoded(
        folder,
        fingerprint,
        first.image_size,
        first.channels,
        {name: len(split) for name, split in splits.items()},
        {name: split.read for name, split in splits.items()},
    )
    if must:
        decoded.write(encoded)
    elif not decoded.is_there(encoded):
        return dict(splits)
    try:
        pixels = decoded.open_pixels(encoded)
    except DataError as error:
        if must:
            raise
        warn(f"encoded records are read: {error}")
        return dict(splits)
    return {name: replace(split, pixels=pixels[name]) for name, split in splits.items()}


def _read_split(source: RecordSource) -> list[_Stored]:
    return [
        _Stored(
            key=example["key"].decode(),
            patient=example["patient"].decode(),
            label=int(example["label"]),
            digest=hashlib.sha256(example["image"]).digest(),
            encoded=example["image"],
        )
        for example in source.read(range(source.count))
    ]


def _check_records(
    folder: Path, stored: Mapping[str, Sequence[Record]], class_names: Sequence[str]
) -> None:
    seen: dict[str, str] = {}
    for split, examples in stored.items():
        for example in examples:
            if example.key in seen:
                raise damaged(
                    folder,
                    f"the key '{example.key}' is in {seen[example.key]} and again in {split}",
                )
            seen[example.key] = split
            if not 0 <= example.label < len(class_names):
                raise damaged(folder, f"'{example.key}' has the unknown label {example.label}")
        if split != "train" and len(class_names) > 2:
            continue  # rare classes of many may be missing there; the figures say so
        counts = Counter(example.label for example in examples)
        for label, class_name in enumerate(class_names):
            if not counts[label]:
                raise DataError(
                    f"the {split} split in {folder} has no image of the class '{class_name}', so "
                    "nothing can be learnt or measured; complete its source and prepare it again."
                )


def _decode(
    folder: Path, stored: Mapping[str, Sequence[_Stored]], size: int
) -> dict[str, np.ndarray]:
    """Returns each split's images (N, S, S, C), with one channel if no image has colour."""

    def one(example: _Stored) -> np.ndarray:
        try:
            return resize_nearest(decode(example.encoded, name=f"'{example.key}'"), size)
        except DataError as error:
            raise damaged(folder, error) from error

    images: dict[str, list[np.ndarray]] = {}
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for split, examples in stored.items():
            images[split] = list(pool.map(one, examples))
    channels = max(image.shape[-1] for each in images.values() for image in each)
    return {split: _stack(each, (size, size, channels)) for split, each in images.items()}


def _stack(images: Sequence[np.ndarray], shape: tuple[int, int, int]) -> np.ndarray:
    stacked = np.empty((len(images), *shape), np.uint8)
    for place, image in zip(stacked, images, strict=True):
        place[...] = image  # a grey image fills all three channels of a colour set
    return stacked


def _columns(examples: Sequence[Record]) -> dict[str, Any]:
    """The fields that splits in memory and streamed ones share."""
    return {
        "labels": np.array([example.label for example in examples], np.int32),
        "keys": tuple(example.key for example in examples),
        "patients": tuple(example.patient for example in examples),
        "ids": np.array([zlib.crc32(example.key.encode()) for example in examples], np.uint32),
    }


def _fingerprint(stored: Mapping[str, Sequence[Record]]) -> str:
    digest = hashlib.sha256()
    for split, examples in stored.items():
        for example in examples:
            for field in (split, example.key, str(example.label), example.patient):
                # The length before each field keeps ('ab', 'c') apart from ('a', 'bc').
                encoded = field.encode()
                digest.update(len(encoded).to_bytes(8, "little") + encoded)
            digest.update(example.digest)
    return digest.hexdigest()


def _notes(stored: Mapping[str, Sequence[Record]]) -> tuple[str, ...]:
    notes = []
    labels: dict[bytes, set[int]] = {}
    image_splits: dict[bytes, set[str]] = {}
    patient_splits: dict[str, set[str]] = {}
    for split, examples in stored.items():
        for example in examples:
            labels.setdefault(example.digest, set()).add(example.label)
            image_splits.setdefault(example.digest, set()).add(split)
            if example.patient:
                patient_splits.setdefault(example.patient, set()).add(split)
    if contradictory := sum(len(found) > 1 for found in labels.values()):
        are = counted(contradictory, "image file is", "image files are")
        notes.append(f"{are} there with more than one label.")
    if leaked := sum(len(found) > 1 for found in image_splits.values()):
        are = counted(leaked, "image file is", "image files are")
        notes.append(f"{are} in more than one split.")
    if shared := sum(len(found) > 1 for found in patient_splits.values()):
        notes.append(f"{counted(shared, 'patient is', 'patients are')} in more than one split.")
    every = [example for examples in stored.values() for example in examples]
    if unknown := sum(not example.patient for example in every):
        notes.append(
            f"the patient of {unknown:,} of {len(every):,} images is unknown; images of one "
            "patient count as independent there."
        )
    return tuple(notes)
