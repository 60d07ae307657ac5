"""What is wrong with a set of images: copies, contradictions, leaks, empty pictures.

Images are compared by what they show, not by their files' bytes. An exact copy has the same
decoded pixels. A near copy has nearly the same difference hash (64 bits: whether brightness rises
from each of 8 x 8 cells to the next) and, to confirm it, nearly the same 32 x 32 thumbnail.
"""

import hashlib
import io
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
from PIL import Image

from radimagenet_jax.data.dicom import decode_dicom, is_dicom
from radimagenet_jax.data.formats import SUFFIXES
from radimagenet_jax.data.images import check_image, decode
from radimagenet_jax.errors import DataError

# Two hashes may differ in this many of their 64 bits, and two thumbnails must correlate this much.
# Rescaled, recompressed and slightly cropped copies do; so may neighbouring slices and frames
# of one examination. In COVID-CT two pictures are in both classes, at 0.994 and 0.986.
MAX_HASH_DISTANCE = 4
MIN_CORRELATION = 0.985
# An image whose grey values spread less than this shows nothing, and resembles everything.
MIN_CONTRAST = 1.0

_THUMBNAIL = 32
# Hashes at a distance of 4 agree in at least one of five bands of their bits.
_BANDS = ((0, 13), (13, 13), (26, 13), (39, 13), (52, 12))
# Pairs compared at once: 64 MB of differences.
_BLOCK = 2048


@dataclass(frozen=True, slots=True)
class Picture:
    """One image, examined.

    Attributes:
      key: Its name in the data set, or its path in a folder.
      split: 'train', 'val', 'test', or '' in a folder.
      label: Name of its class, or of its folder.
      patient: A pseudonym, '' where unknown.
      size: (width, height) in pixels, (0, 0) if it cannot be read.
      mode: Pillow's name of its pixels' kind (L, RGB, RGBA, P ...), or DICOM.
      problem: Why it cannot be read, or ''.
      wrong_suffix: The format of a file whose name claims another, or ''.
      digest: SHA-256 of its shape and decoded pixels, b'' if it cannot be read.
      contrast: Standard deviation of its grey values, 0 to 127.5.
      hash: Difference hash.
      thumbnail: (32, 32) uint8, or None if it cannot be read.
    """

    key: str
    split: str
    label: str
    patient: str
    size: tuple[int, int] = (0, 0)
    mode: str = ""
    problem: str = ""
    wrong_suffix: str = ""
    digest: bytes = b""
    contrast: float = 0.0
    hash: int = 0
    thumbnail: np.ndarray | None = field(default=None, repr=False)

    @property
    def is_empty(self) -> bool:
        """Whether it can be read and shows nothing."""
        return not self.problem and self.contrast < MIN_CONTRAST


def pixels_of(encoded: bytes, key: str) -> np.ndarray:
    """Decodes an image file, DICOM or any other that `images.decode` reads.

    Returns:
      (H, W, 1 or 3) uint8.

    Raises:
      DataError: If it cannot be read.
    """
    if is_dicom(encoded):
        return decode_dicom(encoded, name=f"'{key}'")
    return decode(encoded, name=f"'{key}'")


def examine(encoded: bytes, key: str, split: str, label: str, patient: str) -> Picture:
    """Examines one image; one that cannot be read is a finding, not an error.

    Args:
      encoded: The file's bytes: DICOM, or whatever `images.decode` reads.
      key: See `Picture`, as all that follow.
      split: Its split.
      label: Its class.
      patient: Its patient.
    """
    try:
        if is_dicom(encoded):
            mode, kind = "DICOM", ""
        else:
            check_image(encoded, name=f"'{key}'")
            with Image.open(io.BytesIO(encoded)) as opened:
                mode, kind = opened.mode, opened.format or ""
        pixels = pixels_of(encoded, key)
    except DataError as error:
        return Picture(key, split, label, patient, problem=str(error))
    grey = pixels[..., 0] if pixels.shape[-1] == 1 else cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    cells = cv2.resize(grey, (9, 8), interpolation=cv2.INTER_AREA).astype(np.int16)
    bits = np.packbits(cells[:, 1:] > cells[:, :-1])
    suffix = key[key.rfind(".") :].lower() if "." in key else ""
    claimed = next((name for name, known in SUFFIXES.items() if suffix in known), kind)
    shape = np.array(pixels.shape, np.int64).tobytes()
    return Picture(
        key,
        split,
        label,
        patient,
        size=(pixels.shape[1], pixels.shape[0]),
        mode=mode,
        wrong_suffix=kind if kind and claimed != kind else "",
        digest=hashlib.sha256(shape + np.ascontiguousarray(pixels).tobytes()).digest(),
        contrast=float(grey.std()),
        hash=int.from_bytes(bits.tobytes(), "big"),
        thumbnail=cv2.resize(grey, (_THUMBNAIL, _THUMBNAIL), interpolation=cv2.INTER_AREA),
    )


# Pictures that show the same.
Group = tuple[Picture, ...]


@dataclass(frozen=True)
class Findings:
    """What an audit found.

    Attributes:
      pictures: All of them.
      exact: Groups of pictures with the same pixels, the largest first.
      near: Groups of pictures that are nearly the same; of exact copies only the first is in them.
    """

    pictures: tuple[Picture, ...]
    exact: tuple[Group, ...]
    near: tuple[Group, ...]

    @property
    def unreadable(self) -> Group:
        """Pictures that cannot be read."""
        return tuple(picture for picture in self.pictures if picture.problem)

    @property
    def empty(self) -> Group:
        """Pictures that show nothing."""
        return tuple(picture for picture in self.pictures if picture.is_empty)

    @property
    def wrong_suffixes(self) -> Group:
        """Files whose names claim another format."""
        return tuple(picture for picture in self.pictures if picture.wrong_suffix)

    @property
    def shared_patients(self) -> dict[str, tuple[str, ...]]:
        """Patients in more than one split, with those splits."""
        splits: dict[str, set[str]] = defaultdict(set)
        for picture in self.pictures:
            if picture.patient:
                splits[picture.patient].add(picture.split)
        return {who: tuple(sorted(found)) for who, found in splits.items() if len(found) > 1}

    @property
    def class_counts(self) -> dict[str, dict[str, int]]:
        """Number of pictures by class, then by split."""
        counts: dict[str, dict[str, int]] = {}
        for picture in self.pictures:
            of_class = counts.setdefault(picture.label, {})
            of_class[picture.split] = of_class.get(picture.split, 0) + 1
        return dict(sorted(counts.items()))

    @property
    def sizes(self) -> Counter[tuple[int, int]]:
        """Number of readable pictures by (width, height)."""
        return Counter(picture.size for picture in self.pictures if not picture.problem)

    @property
    def modes(self) -> Counter[str]:
        """Number of readable pictures by mode."""
        return Counter(picture.mode for picture in self.pictures if not picture.problem)

    def to_json(self) -> dict[str, Any]:
        """Returns the findings as plain values, every group in full."""
        return {
            "images": len(self.pictures),
            "class_counts": self.class_counts,
            "sizes": {f"{width}x{height}": n for (width, height), n in self.sizes.most_common()},
            "modes": dict(self.modes.most_common()),
            "unreadable": {picture.key: picture.problem for picture in self.unreadable},
            "wrong_suffixes": {
                picture.key: picture.wrong_suffix for picture in self.wrong_suffixes
            },
            "empty": [picture.key for picture in self.empty],
            "patients_in_several_splits": self.shared_patients,
            "exact_duplicates": [_described(group) for group in self.exact],
            "near_duplicates": [_described(group) for group in self.near],
        }


def is_contradictory(group: Group) -> bool:
    """Whether pictures that show the same are of different classes."""
    return len({picture.label for picture in group}) > 1


def is_leaking(group: Group) -> bool:
    """Whether pictures that show the same are in different splits."""
    return len({picture.split for picture in group}) > 1


def find(pictures: Sequence[Picture]) -> Findings:
    """Compares pictures with each other.

    Args:
      pictures: Of `examine`, in any order.
    """
    by_digest: dict[bytes, list[Picture]] = defaultdict(list)
    for picture in pictures:
        if not picture.problem and not picture.is_empty:
            by_digest[picture.digest].append(picture)
    exact = [tuple(group) for group in by_digest.values() if len(group) > 1]
    near = _near([group[0] for group in by_digest.values()])
    return Findings(tuple(pictures), _sorted(exact), _sorted(near))


def _sorted(groups: Sequence[Group]) -> tuple[Group, ...]:
    """What matters most first: contradictions, then leaks, then the largest groups."""

    def rank(group: Group) -> tuple[bool, bool, int, str]:
        return not is_contradictory(group), not is_leaking(group), -len(group), group[0].key

    return tuple(sorted(groups, key=rank))


def _near(pictures: Sequence[Picture]) -> list[Group]:
    """Groups of nearly equal pictures, all of them different."""
    if len(pictures) < 2:
        return []
    hashes = np.array([picture.hash for picture in pictures], np.uint64)
    thumbnails = np.stack([np.asarray(picture.thumbnail).ravel() for picture in pictures])
    leader = list(range(len(pictures)))

    def root(place: int) -> int:
        while leader[place] != place:
            leader[place] = leader[leader[place]]
            place = leader[place]
        return place

    for first, second in _close_pairs(hashes):
        same = _correlations(thumbnails[first], thumbnails[second]) >= MIN_CORRELATION
        for one, other in zip(first[same].tolist(), second[same].tolist(), strict=True):
            leader[root(one)] = root(other)
    groups: dict[int, list[Picture]] = defaultdict(list)
    for place, picture in enumerate(pictures):
        groups[root(place)].append(picture)
    return [tuple(group) for group in groups.values() if len(group) > 1]


def _close_pairs(hashes: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Places of hashes that differ in few bits, a block at a time; a pair may come again."""
    for shift, width in _BANDS:
        band = (hashes >> np.uint64(shift)) & np.uint64((1 << width) - 1)
        order = np.argsort(band, kind="stable")
        starts = np.flatnonzero(np.diff(band[order], prepend=band[order[0]] + np.uint64(1)))
        for bucket in np.split(order, starts[1:]):
            for start in range(0, len(bucket), _BLOCK):
                rows = bucket[start : start + _BLOCK]
                for begin in range(start, len(bucket), _BLOCK):
                    columns = bucket[begin : begin + _BLOCK]
                    differing = np.bitwise_count(hashes[rows][:, None] ^ hashes[columns][None])
                    first, second = np.nonzero(differing <= MAX_HASH_DISTANCE)
                    once = rows[first] < columns[second] if begin == start else slice(None)
                    if len(chosen := rows[first][once]):
                        yield chosen, columns[second][once]


def _correlations(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Pearson's correlation of thumbnails (N, 1024) uint8, row by row."""
    a = first.astype(np.float32) - first.mean(axis=1, dtype=np.float32, keepdims=True)
    b = second.astype(np.float32) - second.mean(axis=1, dtype=np.float32, keepdims=True)
    norms = np.sqrt(np.sum(a * a, axis=1) * np.sum(b * b, axis=1))
    return np.sum(a * b, axis=1) / np.maximum(norms, np.finfo(np.float32).tiny)


def _described(group: Group) -> list[dict[str, str]]:
    return [
        {
            "key": picture.key,
            "split": picture.split,
            "label": picture.label,
            "patient": picture.patient,
        }
        for picture in group
    ]
