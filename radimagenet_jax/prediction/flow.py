"""Images through a network: decoded ahead in threads, in batches, in the order of the entries."""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from radimagenet_jax.data.ahead import mapped
from radimagenet_jax.data.inputs import FRAMES, Entry, Failure, Part
from radimagenet_jax.errors import DataError
from radimagenet_jax.prediction.journal import Position

# More threads than this only wait for each other: pydicom holds the interpreter.
_MOST_THREADS = 16
# A group of images and failures ends here, whatever it holds: memory is bounded.
_LONGEST_GROUP = 1024


@dataclass(frozen=True)
class Batch:
    """Images and what the network made of them.

    Attributes:
      entries: B entries, which the images are of.
      keys: B keys.
      images: (B, S, S, 3) uint8.
      outputs: Name to (B, ...), such as 'scores' and 'pooled'.
    """

    entries: Sequence[Entry]
    keys: Sequence[str]
    images: NDArray[np.uint8]
    outputs: dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Result:
    """What came of a group of images.

    Attributes:
      batch: Those that were read, None if none was.
      failures: Those that could not be.
      position: Behind the group.
    """

    batch: Batch | None
    failures: Sequence[Failure]
    position: Position


@dataclass(frozen=True, slots=True)
class _Item:
    entry: Entry
    key: str
    image: NDArray[np.uint8] | DataError
    position: Position


def results(
    entries: Sequence[Entry],
    read: Callable[..., Part],
    apply: Callable[[NDArray[np.uint8]], dict[str, Any]],
    *,
    batch_size: int,
    start: Position,
) -> Iterator[Result]:
    """Reads entries and applies a network to them.

    While the network is at one batch, the next are decoded: two batches are ahead, never all.

    Args:
      entries: What to read.
      read: (entry, first=frame) -> images (S, S, 1 or 3) uint8, as `inputs.read`; it runs in
        threads.
      apply: (B, S, S, 3) uint8 -> name to (B, ...). It may return before it has computed.
      batch_size: Of what the network is given. The last batch is filled up with black images,
        whose outputs are dropped, so that the network is compiled once; a single one is not.
      start: Where to begin.

    Yields:
      Results, in the order of the entries.
    """
    groups = _groups(_items(entries, read, start, ahead=2 * batch_size), batch_size)
    waiting: tuple[list[_Item], NDArray[np.uint8], dict[str, Any]] | None = None
    is_first = True
    for group in groups:
        images = _stacked(group)
        outputs: dict[str, Any] = {}
        if len(images):
            missing = 0 if is_first else batch_size - len(images)
            outputs = apply(np.pad(images, ((0, missing), (0, 0), (0, 0), (0, 0))))
            is_first = False
        # What came of the group before is waited for while this one is computed.
        if waiting is not None:
            yield _result(*waiting)
        waiting = group, images, outputs
    if waiting is not None:
        yield _result(*waiting)


def _stacked(group: Sequence[_Item]) -> NDArray[np.uint8]:
    """The images of a group that were read: (B, S, S, 3)."""
    read = [item.image for item in group if not isinstance(item.image, DataError)]
    if not read:
        return np.empty((0, 1, 1, 3), np.uint8)
    return np.stack([np.broadcast_to(image, (*image.shape[:2], 3)) for image in read])


def _result(group: Sequence[_Item], images: NDArray[np.uint8], outputs: dict[str, Any]) -> Result:
    read = [item for item in group if not isinstance(item.image, DataError)]
    failures = [
        Failure(item.key, item.entry.file.shown, str(item.image))
        for item in group
        if isinstance(item.image, DataError)
    ]
    batch = None
    if read:
        kept = {name: np.asarray(values)[: len(read)] for name, values in outputs.items()}
        batch = Batch([item.entry for item in read], [item.key for item in read], images, kept)
    return Result(batch, failures, group[-1].position)


def _groups(items: Iterable[_Item], size: int) -> Iterator[list[_Item]]:
    """Groups of up to `size` images, with the failures among them."""
    group: list[_Item] = []
    images = 0
    for item in items:
        group.append(item)
        images += not isinstance(item.image, DataError)
        if images == size or len(group) == _LONGEST_GROUP:
            yield group
            group, images = [], 0
    if group:
        yield group


def threads() -> int:
    """How many images are decoded at a time."""
    return min(os.cpu_count() or 1, _MOST_THREADS)


def _items(
    entries: Sequence[Entry], read: Callable[..., Part], start: Position, *, ahead: int
) -> Iterator[_Item]:
    workers = threads()
    begins = (
        Position(place, start.frames if place == start.entries else 0)
        for place in range(start.entries, len(entries))
    )

    def read_at(at: Position) -> tuple[Position, Part]:
        return at, read(entries[at.entries], first=at.frames)

    with ThreadPoolExecutor(workers) as pool:
        for at, part in mapped(read_at, begins, workers=pool, ahead=ahead + workers):
            yield from _of_part(entries[at.entries], at.entries, part, at.frames)
            # Of a file with many frames, some are read at a time.
            frames = range(at.frames + FRAMES, part.frames, FRAMES)
            later = (Position(at.entries, frame) for frame in frames)
            for then, more in mapped(read_at, later, workers=pool, ahead=workers):
                yield from _of_part(entries[then.entries], then.entries, more, then.frames)


def _of_part(entry: Entry, place: int, part: Part, first: int) -> Iterator[_Item]:
    for frame, (key, image) in enumerate(part.images.items(), start=first):
        is_last = frame + 1 >= part.frames
        yield _Item(
            entry, key, image, Position(place + 1) if is_last else Position(place, frame + 1)
        )
