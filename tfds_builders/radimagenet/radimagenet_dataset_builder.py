"""RadImageNet (Mei et al. 2022) as a TensorFlow Datasets builder that needs no TensorFlow."""

import functools
import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import tensorflow_datasets as tfds

from radimagenet_jax.data.ahead import mapped
from radimagenet_jax.data.image_builder import Example, ImageBuilder
from radimagenet_jax.data.images import check_image, encode_grey
from radimagenet_jax.data.problems import Problems
from radimagenet_jax.data.source_files import SourceFile
from radimagenet_jax.data.splits import SPLITS
from radimagenet_jax.data.tables import iterate_csv
from radimagenet_jax.errors import DataError
from tfds_builders.radimagenet.listing import (
    ANATOMIES,
    IMAGES,
    MODALITIES,
    Entry,
    Examples,
    Listing,
    entry_of,
)

# Of identical files, the one in the first of these splits is kept: removing duplicates never takes
# an image out of the published test set for the sake of the training set.
_KEPT_FIRST = ("test", "val", "train")
_FILES_AHEAD = 64  # for each thread that takes digests


class Builder(ImageBuilder):
    """CT, MR and ultrasound images in 165 classes; see README.md beside this file."""

    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS: ClassVar[list[tfds.core.BuilderConfig]] = [
        tfds.core.BuilderConfig(
            name="published", description="Every row of the released tables, as it is."
        ),
        tfds.core.BuilderConfig(
            name="clean",
            description="Without exact duplicates and without images of one grey value only.",
        ),
    ]
    TERMS = (
        "RadImageNet is given on request for research under a data use agreement; neither images "
        "nor tables may be passed on (https://www.radimagenet.com)."
    )
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        "request access at https://www.radimagenet.com, accept its data use agreement, and put "
        f"the unpacked folder {IMAGES} (with CT, MR and US) there, beside RadiologyAI_train.csv, "
        "RadiologyAI_val.csv and RadiologyAI_test.csv"
    )
    HOMEPAGE = "https://www.radimagenet.com"

    def class_names(self) -> Sequence[str]:
        return class_names()

    def extra_features(self) -> dict[str, Any]:
        return {
            "modality": tfds.features.ClassLabel(names=list(MODALITIES)),
            "anatomy": tfds.features.ClassLabel(names=list(ANATOMIES)),
        }

    def find_examples(self, root: Path, problems: Problems) -> Mapping[str, Sequence[Example]]:
        home = _home(root)
        labels = {name: index for index, name in enumerate(class_names())}
        listings = {split: _read_table(home, split, labels, problems) for split in SPLITS}
        _check_repeated(listings, problems)
        _check_files(home, listings, problems)
        is_clean = self.builder_config.name == "clean"
        make = functools.partial(_example, home, is_clean)
        if is_clean and not problems.count and self.left_out is None:
            self.left_out = self._duplicates(home, listings)
        return {
            split: Examples(listing, _kept(listing, self.left_out), make)
            for split, listing in listings.items()
        }

    def _duplicates(self, home: Path, listings: Mapping[str, Listing]) -> frozenset[str]:
        """Finds the keys whose files are there before, byte for byte, and says how many."""
        digests = {split: _digests(home, listings[split], self.workers) for split in _KEPT_FIRST}
        every = np.concatenate(list(digests.values()))
        offsets = np.cumsum([0, *(len(each) for each in digests.values())])
        # The stable sort of unique gives the first place of each picture, in the splits' order.
        _, places, groups = np.unique(every, return_index=True, return_inverse=True)
        is_first = np.zeros(len(every), bool)
        is_first[places] = True
        labels = np.concatenate(
            [np.array([e.label for e in listings[split]], np.uint8) for split in _KEPT_FIRST]
        )
        contradictory = int(np.sum(~is_first & (labels != labels[places][groups])))
        dropped: list[str] = []
        counts: dict[str, int] = {}
        for split, start, end in zip(_KEPT_FIRST, offsets[:-1], offsets[1:], strict=True):
            repeated = np.flatnonzero(~is_first[start:end])
            counts[split] = len(repeated)
            dropped += [listings[split][int(place)].key for place in repeated]
        if dropped:
            removed = ", ".join(f"{counts[split]:,} from {split}" for split in SPLITS)
            self.notes.append(
                f"{len(dropped):,} files that repeat another byte for byte were left out "
                f"({removed}), {contradictory:,} of them under another label; images of one "
                "grey value only were left out too."
            )
        return frozenset(dropped)


@functools.cache
def class_names() -> tuple[str, ...]:
    """The 165 classes as `<modality>-<anatomy>-<class>`, sorted by code point.

    The owners define no order of indices; this one is ours, and part of every weight file's labels.
    """
    path = Path(__file__).with_name("classes.txt")
    return tuple(path.read_text(encoding="utf-8").split())


def _home(root: Path) -> Path:
    """Finds the folder with the tables: the root, or one folder in it."""
    name = _table("train")
    found = [
        path.parent for path in (root / name, *sorted(root.glob(f"*/{name}"))) if path.is_file()
    ]
    if not found:
        raise DataError(f"{root} has no {name}; {Builder.MANUAL_DOWNLOAD_INSTRUCTIONS}.")
    home = found[0]
    if not (home / IMAGES).is_dir():
        packed = " (the zip beside it must be unpacked)" if any(home.glob("*.zip")) else ""
        raise DataError(
            f"{home} has no folder {IMAGES}{packed}; {Builder.MANUAL_DOWNLOAD_INSTRUCTIONS}."
        )
    return home


def _table(split: str) -> str:
    return f"RadiologyAI_{split}.csv"


def _read_table(home: Path, split: str, labels: dict[str, int], problems: Problems) -> Listing:
    path = home / _table(split)
    if not path.is_file():
        raise DataError(f"{home} has no {path.name}; {Builder.MANUAL_DOWNLOAD_INSTRUCTIONS}.")
    listing = Listing(path.name)
    for row in iterate_csv(SourceFile.at(path), ["filename", "label"]):
        with problems.collecting():
            listing.append(entry_of(row, labels))
    return listing


def _check_repeated(listings: Mapping[str, Listing], problems: Problems) -> None:
    """Notes keys that are listed twice, in one table or in two."""
    hashes = np.concatenate([listing.hashes() for listing in listings.values()])
    in_sequence = np.sort(hashes)
    twice = in_sequence[1:][in_sequence[1:] == in_sequence[:-1]]
    del in_sequence
    suspects = np.flatnonzero(np.isin(hashes, twice)) if len(twice) else np.zeros(0, np.int64)
    starts = np.cumsum([0, *(len(each) for each in listings.values())])
    in_order = list(listings.values())

    first: dict[str, str] = {}
    for place in suspects:
        number = int(np.searchsorted(starts, place, side="right")) - 1
        table = in_order[number]
        entry = table[int(place - starts[number])]
        if entry.key in first:
            problems.add(
                f"{table.table}, row {entry.line}: '{entry.key}' is listed before, in "
                f"{first[entry.key]}; download the tables again."
            )
        first.setdefault(entry.key, f"{table.table}, row {entry.line}")


def _check_files(home: Path, listings: Mapping[str, Listing], problems: Problems) -> None:
    """Notes rows whose file is not there, listing each folder once."""
    for listing in listings.values():
        for number, folder in enumerate(listing.folders):
            places = listing.places_in(number)
            try:
                there = set(os.listdir(home / folder))
            except OSError as error:
                problems.add(
                    f"{home / folder} cannot be listed ({error.strerror}), and {listing.table} "
                    f"has {len(places):,} images in it; unpack {IMAGES} again."
                )
                continue
            for place in places:
                entry = listing[int(place)]
                if entry.key.rpartition("/")[2] not in there:
                    problems.add(
                        f"{listing.table}, row {entry.line}: there is no file {home / entry.key}; "
                        f"unpack {IMAGES} again, or remove the row."
                    )


def _kept(listing: Listing, left_out: frozenset[str] | None) -> np.ndarray:
    if not left_out:
        return np.arange(len(listing), dtype=np.uint32)
    kept = (place for place, entry in enumerate(listing) if entry.key not in left_out)
    return np.fromiter(kept, np.uint32)


def _example(home: Path, is_clean: bool, entry: Entry) -> Example:
    name = class_names()[entry.label]
    return Example(entry.key, name, functools.partial(_read, home / entry.key, name, is_clean))


def _read(path: Path, class_name: str, is_clean: bool) -> dict[str, Any]:
    encoded = SourceFile.at(path).read()
    image = check_image(encoded, name=str(path))
    if is_clean and (image == image.flat[0]).all():
        return {}
    if image.shape[-1] == 1:
        encoded = encode_grey(image)  # a third of the pixels to read and decode at every step
    modality, anatomy, _ = class_name.split("-", 2)
    return {"image": encoded, "modality": modality, "anatomy": anatomy}


def _digests(home: Path, listing: Listing, workers: int) -> np.ndarray:
    """Returns (N,) uint64, of each file's bytes.

    64 of the digest's bits tell 1.35 million files apart, up to one chance in twenty million.
    """

    def digest(entry: Entry) -> int:
        content = SourceFile.at(home / entry.key).read()
        return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "little")

    found = mapped(digest, listing, workers=workers, ahead=_FILES_AHEAD * workers)
    return np.fromiter(found, np.uint64, len(listing))
