"""From a run to figures: its maps and what else could be at their place, each by the same steps."""

import zlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from radimagenet_jax.data.lesions import Lesions
from radimagenet_jax.localisation.runs import SPLITS, Run
from radimagenet_jax.reports.overlays import resized
from radimagenet_jax.statistics import localisation
from radimagenet_jax.statistics.localisation import Estimate, Judged, Overlap

MAP, AGAINST, DISC, RANDOM, GRID = "map", "against", "disc", "random", "grid"
_SEED = 0
_BATCH = 32
# Of the random maps' smoothing, in places of the grid: neighbours depend on each other, as those of
# a network's map do.
_SMOOTH = 1.0


@dataclass(frozen=True)
class Measured:
    """What was found of a run.

    Attributes:
      judged: Each kind of map by name: `MAP`, perhaps `AGAINST`, then `DISC`, `RANDOM`, `GRID`.
      differences: Mean Dice of `MAP` minus that of another kind on the same test images, by name.
      maps: The run's maps of the test images, (N, h, w) float32 in units of the logit, >= 0.
      disc_share: Area of the disc, as a share of the image.
    """

    judged: Mapping[str, Judged]
    differences: Mapping[str, Estimate]
    maps: NDArray[np.float32]
    disc_share: float


def measure(run: Run, other: Run | None, advance: Callable[[int], None]) -> Measured:
    """Measures the maps of a run beside those of another one and the baselines.

    Args:
      run: The run.
      other: The one that it is compared with, tested on the same lesions; None for none.
      advance: Is told how many images of `steps` have been done.
    """
    # ---------------------------------------------------------------- Maps, by kind and split
    maps = {split: {MAP: activations(run, split, advance)} for split in SPLITS}
    if other is not None:
        for split in SPLITS:
            maps[split][AGAINST] = activations(other, split, advance)
    for split in SPLITS:
        shape = maps[split][MAP].shape[1:]
        maps[split][RANDOM] = random_maps(run.lesions[split].keys, shape)

    # ---------------------------------------------------------------- Overlap at every threshold
    disc_share = float(run.lesions["val"].shares.mean())
    swept = {
        split: _sweep(run.lesions[split], maps[split], disc_share, advance) for split in SPLITS
    }

    # ---------------------------------------------------------------- Threshold, test
    titles = _titles(run, other)
    judged = {
        kind: localisation.judged(title, swept["val"][kind], swept["test"][kind])
        for kind, title in titles.items()
    }
    dice = judged[MAP].column("test", "dice")
    patients = run.lesions["test"].patients
    differences = {
        kind: localisation.mean(dice - one.column("test", "dice"), patients)
        for kind, one in judged.items()
        if kind != MAP
    }
    return Measured(judged, differences, maps["test"][MAP], disc_share)


def steps(run: Run, other: Run | None) -> int:
    """How often an image is dealt with: once a network, once for all overlaps."""
    count = sum(len(run.lesions[split]) for split in SPLITS)
    others = 0 if other is None else sum(len(other.lesions[split]) for split in SPLITS)
    return 2 * count + others


def activations(run: Run, split: str, advance: Callable[[int], None]) -> NDArray[np.float32]:
    """The positive part of the class activation maps of a split's lesions: (N, h, w) float32."""
    lesions = run.lesions[split]
    parts = []
    for start in range(0, len(lesions), _BATCH):
        images = lesions.inputs(start, start + _BATCH)
        raw = np.asarray(run.net.cam(images, of=run.of, size=0))
        parts.append(np.maximum(raw, 0))
        advance(len(images))
    return np.concatenate(parts)


def random_maps(keys: Sequence[str], shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Smoothed noise in place of a network's maps, the same for a key at every call.

    Args:
      keys: N names.
      shape: (h, w) of the maps.

    Returns:
      (N, h, w) float32, >= 0.
    """

    def one(key: str) -> NDArray[np.float32]:
        rng = np.random.default_rng((_SEED, zlib.crc32(key.encode(errors="surrogateescape"))))
        noise = rng.standard_normal(shape, np.float32)
        return np.maximum(cv2.GaussianBlur(noise, (0, 0), _SMOOTH), 0)

    return np.stack([one(key) for key in keys])


def _sweep(
    lesions: Lesions,
    maps: Mapping[str, NDArray[np.float32]],
    disc_share: float,
    advance: Callable[[int], None],
) -> dict[str, Overlap]:
    """Overlap of every kind of map with each lesion of a split, in the masks' own size."""
    grid = maps[MAP].shape[1:]

    def one(number: int) -> dict[str, Overlap]:
        _, mask = lesions.read(number)
        raw = {kind: each[number] for kind, each in maps.items()}
        # What no map of so few places can do better than by much.
        raw[GRID] = cv2.resize(mask.astype(np.float32), grid[::-1], interpolation=cv2.INTER_AREA)
        found = {
            kind: localisation.sweep(resized(each, mask.shape), mask) for kind, each in raw.items()
        }
        height, width = mask.shape
        middle = bool(mask[height // 2, width // 2])
        found[DISC] = localisation.overlap(
            localisation.disc(mask.shape, disc_share), mask, points=middle
        )
        return found

    parts: list[dict[str, Overlap]] = []
    with ThreadPoolExecutor() as pool:
        for found in pool.map(one, range(len(lesions))):
            parts.append(found)
            advance(1)
    return {kind: Overlap.stacked([part[kind] for part in parts]) for kind in parts[0]}


def _titles(run: Run, other: Run | None) -> dict[str, str]:
    """Each kind of map in words, in the order in which they are shown."""
    titles = {MAP: f"maps of {run.folder}"}
    if other is not None:
        titles[AGAINST] = f"maps of {other.folder}"
    return titles | {
        DISC: "disc in the middle, as large as the mean lesion",
        RANDOM: "random maps",
        GRID: "the lesion itself on the maps’ grid",
    }
