"""Pixels beside the encoded records: decoded once for an image size, so that reading is a copy.

`decoded_<S>` in the folder of a prepared data set holds a file for each split and a page that says
what they are of. A file has an entry of one length for each example, in the order of the records:
its pixels, as the encoded record gives them, and their CRC-32. The folder gets its name when it is
complete; until then it is called `decoded_<S>.unfinished`, and a later run goes on with it.
"""

import contextlib
import json
import os
import shutil
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import PIL

from radimagenet_jax import locks, own_files
from radimagenet_jax.console import console
from radimagenet_jax.data.ahead import mapped
from radimagenet_jax.data.preparation import progress_bar
from radimagenet_jax.errors import DataError
from radimagenet_jax.files import force_to_disk

_PAGE = "decoded.json"
_VERSION = 1
_FORM = {"version": int, "fingerprint": str, "size": int, "channels": int}
_CHECK = np.dtype("<u4")
# Examples that a thread decodes, or a check reads, at a time.
_PORTION = 32
# Of each split, decoded again whenever the pixels are opened: other decoders give other pixels.
_COMPARED = 8

# Decodes examples by their places: (B, S, S, C) uint8.
Decode = Callable[[Sequence[int]], np.ndarray]


@dataclass(frozen=True)
class Encoded:
    """The records that pixels are made of.

    Attributes:
      folder: Of the prepared data set.
      fingerprint: Of the data set.
      size: Side S of the images in pixels.
      channels: C of all of them, 1 or 3.
      counts: Number of examples by split.
      decode: What decodes a split's examples, by split.
    """

    folder: Path
    fingerprint: str
    size: int
    channels: int
    counts: Mapping[str, int]
    decode: Mapping[str, Decode]

    @property
    def place(self) -> Path:
        """The folder for the pixels."""
        return self.folder / f"decoded_{self.size}"

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of an image."""
        return self.size, self.size, self.channels

    @property
    def entry(self) -> np.dtype[Any]:
        """What a file holds of an example."""
        return np.dtype([("pixels", np.uint8, self.shape), ("check", _CHECK)])

    @property
    def page(self) -> dict[str, Any]:
        """What is written down of the pixels."""
        return {
            "version": _VERSION,
            "fingerprint": self.fingerprint,
            "size": self.size,
            "channels": self.channels,
            "decoders": f"OpenCV {cv2.__version__}, Pillow {PIL.__version__}",
        }


class Pixels:
    """The decoded images of a split, at random access. Threads may share them."""

    def __init__(self, path: Path, shape: tuple[int, int, int], count: int):
        """Opens a split's file.

        Args:
          path: The file.
          shape: (S, S, C) of an image.
          count: Number of examples.

        Raises:
          DataError: If it is missing or has not so many.
        """
        self._path, self._shape = path, shape
        self._length = int(np.prod(shape)) + _CHECK.itemsize
        try:
            self._file = path.open("rb", buffering=0)
        except OSError as error:
            raise _of_no_use(path.parent, f"{path.name}: {error.strerror}") from error
        found, expected = os.fstat(self._file.fileno()).st_size, count * self._length
        if found != expected:
            raise _of_no_use(
                path.parent, f"{path.name} has {found:,} bytes where {expected:,} were written"
            )

    def read(self, places: Sequence[int] | np.ndarray) -> np.ndarray:
        """Copies examples out of the file.

        Args:
          places: B indices into the split.

        Returns:
          (B, S, S, C) uint8.

        Raises:
          DataError: If what is read is not what was written.
        """
        # Not by a memory map: where a disk fails or a file shrinks, that kills the process.
        images = np.empty((len(places), *self._shape), np.uint8)
        check = np.empty(1, _CHECK)
        handle = self._file.fileno()
        for image, place in zip(images, np.asarray(places).tolist(), strict=True):
            try:
                got = os.preadv(handle, [image.data, check.data], place * self._length)
            except OSError as error:
                raise _of_no_use(
                    self._path.parent, f"{self._path.name}: {error.strerror}"
                ) from error
            if got != self._length or zlib.crc32(image.data) != check[0]:
                raise _of_no_use(
                    self._path.parent, f"{self._path.name} is damaged at example {place}"
                )
        return images


def is_there(encoded: Encoded) -> bool:
    """Whether pixels of this size were written, of whatever records."""
    return encoded.place.is_dir()


def open_pixels(encoded: Encoded) -> dict[str, Pixels]:
    """Opens the pixels that `write` has written, by split.

    Raises:
      DataError: If they are not, or no longer, those that the encoded records give.
    """
    place = encoded.place
    written = own_files.read_json(place / _PAGE, _FORM, f"delete {place} to have it made anew")
    for name in _FORM:
        if written[name] != (value := encoded.page[name]):
            raise _of_no_use(place, f"its {name} is {written[name]}, that of the records {value}")
    pixels = {}
    for split, count in encoded.counts.items():
        pixels[split] = Pixels(place / f"{split}.pixels", encoded.shape, count)
        compared = np.unique(np.linspace(0, count - 1, _COMPARED).astype(int)).tolist()
        if not np.array_equal(pixels[split].read(compared), encoded.decode[split](compared)):
            raise _of_no_use(place, f"{split}: decoding gives other pixels today")
    return pixels


def write(encoded: Encoded) -> None:
    """Decodes all examples and keeps their pixels, if that has not been done.

    One process at a time writes into a data set's folder; others wait for it. A run that is
    stopped or killed leaves what it has written in `decoded_<S>.unfinished`, which the next one
    goes on with.

    Raises:
      DataError: If there is no room, or the folder cannot be written, or records are damaged.
    """
    if is_there(encoded):
        return
    unfinished = encoded.place.with_name(f"{encoded.place.name}.unfinished")
    try:
        with _sole_writer(encoded.folder):
            if not is_there(encoded):  # another process may have written it meanwhile
                _write(encoded, unfinished)
    except BaseException as error:
        kept = ""
        if unfinished.is_dir():
            kept = f"what was decoded is kept in {unfinished}, and the same command goes on there"
            if not isinstance(error, OSError):
                console.print(f"{kept}.")
        if isinstance(error, OSError):
            raise DataError(
                f"{encoded.place} cannot be written ({error.strerror or error}); make room or mend "
                f"its rights{f' ({kept})' if kept else ''}, or read encoded records: "
                "config.dataset.streaming=true."
            ) from error
        raise


def _write(encoded: Encoded, unfinished: Path) -> None:
    page, text = unfinished / _PAGE, json.dumps(encoded.page, indent=2) + "\n"
    if unfinished.is_dir() and not (page.is_file() and page.read_bytes() == text.encode()):
        shutil.rmtree(unfinished)  # of other records or decoders
    _check_room(encoded, unfinished)
    unfinished.mkdir(exist_ok=True)
    page.write_text(text, encoding="utf-8")
    total = sum(encoded.counts.values())
    with progress_bar("decoding images") as report:
        done = 0
        for split, count in encoded.counts.items():
            for more in _write_split(encoded, split, count, unfinished / f"{split}.pixels"):
                done += more
                report(done, total)
    force_to_disk(page, unfinished)
    unfinished.rename(encoded.place)
    force_to_disk(encoded.folder)


def _check_room(encoded: Encoded, unfinished: Path) -> None:
    """Says how much disk is needed.

    Raises:
      DataError: If there is less.
    """
    total = sum(encoded.counts.values())
    there = sum(path.stat().st_size for path in unfinished.glob("*.pixels"))
    needed = max(0, total * encoded.entry.itemsize - there)
    free = shutil.disk_usage(encoded.folder).free
    side = encoded.size
    if needed > free:
        raise DataError(
            f"{total:,} images of {side} x {side} pixels need {_amount(needed)} more in "
            f"{encoded.folder}, which has {_amount(free)} free; make room, or read encoded "
            "records: config.dataset.streaming=true."
        )
    console.print(
        f"decoding {total:,} images of {side} x {side} pixels into {encoded.place}: it takes "
        f"{_amount(needed)} of {_amount(free)} that are free"
    )


def _write_split(encoded: Encoded, split: str, count: int, path: Path) -> Iterator[int]:
    """Writes what a split's file lacks; yields how many examples are done more."""
    path.touch()
    with path.open("r+b") as file:
        first = _whole_entries(file.fileno(), encoded.entry, count)
        file.truncate(first * encoded.entry.itemsize)
        file.seek(0, os.SEEK_END)
        yield first

        def decode(start: int) -> np.ndarray:
            places = range(start, min(start + _PORTION, count))
            entries = np.empty(len(places), encoded.entry)
            entries["pixels"] = encoded.decode[split](places)
            entries["check"] = [zlib.crc32(image.data) for image in entries["pixels"]]
            return entries

        workers = os.cpu_count() or 1
        starts = range(first, count, _PORTION)
        for entries in mapped(decode, starts, workers=workers, ahead=2 * workers):
            file.write(entries.data)
            yield len(entries)
        file.flush()
        os.fsync(file.fileno())


def _whole_entries(handle: int, entry: np.dtype[Any], most: int) -> int:
    """Counts the entries at the beginning of a file that are whole and true."""
    for place in range(most):
        found = os.pread(handle, entry.itemsize, place * entry.itemsize)
        pixels, check = found[: -_CHECK.itemsize], found[-_CHECK.itemsize :]
        if len(found) != entry.itemsize or zlib.crc32(pixels) != int.from_bytes(check, "little"):
            return place
    return most


@contextlib.contextmanager
def _sole_writer(folder: Path) -> Iterator[None]:
    """Holds the only right to write pixels in a folder; the system releases it after a kill."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        if not locks.take(handle, folder):
            console.print(f"waiting for another process that decodes images into {folder}")
            locks.take(handle, folder, wait=True)
        yield
    finally:
        os.close(handle)


def _amount(size: int) -> str:
    """Bytes as people say them."""
    return f"{size / 1e9:,.1f} GB" if size >= 1e9 else f"{size / 1e6:,.1f} MB"


def _of_no_use(place: Path, reason: str) -> DataError:
    return DataError(
        f"the decoded images in {place} are of no use ({reason}); delete this folder to have it "
        "made anew."
    )
