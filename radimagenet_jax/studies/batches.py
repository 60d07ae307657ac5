"""Which images the runs of a group meet in each step, and in which stretches of steps."""

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from radimagenet_jax.errors import ConfigError
from radimagenet_jax.studies.images import Images
from radimagenet_jax.studies.plan import Run
from radimagenet_jax.training.order import DataOrder


@dataclass(frozen=True)
class Table:
    """The batches of R runs, padded to the steps of the longest.

    Attributes:
      places: (R, steps, B) int64 of images.
      mask: (R, steps, B) float32, 0 for padding.
      real: (R, steps) bool, False for steps that a run does not take.
      distinct: How many of the runs' rows of batches differ.
    """

    places: np.ndarray
    mask: np.ndarray
    real: np.ndarray
    distinct: int


def of_training(
    images: Images, runs: Sequence[Run], batch_size: int, epoch: int, *, shuffle: bool
) -> Table:
    """The batches of an epoch, each run's in the order that `training.order` gives it alone."""

    def order(run: Run) -> DataOrder:
        count = len(images.splits[run.fold]["train"])
        return DataOrder(count, batch_size, run.seed, shuffle)

    return _table(images, "train", [(run.fold, order(run)) for run in runs], epoch)


def of_evaluation(images: Images, runs: Sequence[Run], split: str, batch_size: int) -> Table:
    """The batches of a split, in its own order, each image once."""

    def order(run: Run) -> DataOrder:
        return DataOrder(len(images.splits[run.fold][split]), batch_size, 0, shuffle=False)

    return _table(images, split, [(run.fold, order(run)) for run in runs], 0)


def _table(
    images: Images, split: str, orders: Sequence[tuple[int, DataOrder]], epoch: int
) -> Table:
    """The batches of an epoch, given each run's fold and the order of its images."""

    @functools.cache
    def batches(fold: int, order: DataOrder) -> list[tuple[np.ndarray, np.ndarray]]:
        places, first = images.splits[fold][split], epoch * order.steps_per_epoch
        steps = [order.batch(first + k) for k in range(order.steps_per_epoch)]
        return [(places[index], mask) for index, mask in steps]

    table = _padded([batches(*one) for one in orders])
    return Table(*table, distinct=len(set(orders)))


def every_place(table: Table) -> np.ndarray:
    """Sorted unique places of a table's images."""
    return np.unique(table.places)


def stretches(table: Table, capacity: int) -> Iterator[tuple[np.ndarray, Table]]:
    """Divides a table into stretches of equally many steps whose images fit into memory.

    Args:
      table: The batches.
      capacity: Images whose activations are held at a time.

    Yields:
      The unique places of a stretch, and its part of the table.

    Raises:
      ConfigError: If a single step's images do not fit.
    """
    steps, batch_size = table.places.shape[1:]
    whole = every_place(table)
    if len(whole) <= capacity:
        yield whole, table
        return
    length = capacity // (table.distinct * batch_size)
    if not length:
        raise ConfigError(
            f"the activations of one step of {table.distinct} runs' batches of {batch_size} do not "
            f"fit into config.study.memory_gib ({capacity} images do); raise it."
        )
    for start in range(0, steps, length):
        part = _slice(table, start, min(length, steps))
        yield every_place(part), part


def _slice(table: Table, start: int, length: int) -> Table:
    """Steps of a table; beyond its end, steps that no run takes."""
    missing = max(0, start + length - table.places.shape[1])

    def cut(array: np.ndarray) -> np.ndarray:
        part = array[:, start : start + length]
        return np.concatenate([part, np.repeat(part[:, :1], missing, axis=1)], axis=1)

    real = cut(table.real)
    real[:, length - missing :] = False
    return Table(cut(table.places), cut(table.mask), real, table.distinct)


def _padded(
    runs: Sequence[list[tuple[np.ndarray, np.ndarray]]],
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    steps = max(map(len, runs))
    filled = [steps_of + [steps_of[0]] * (steps - len(steps_of)) for steps_of in runs]
    places = np.array([[index for index, _ in each] for each in filled], np.int64)
    mask = np.array([[one for _, one in each] for each in filled], np.float32)
    real = np.array([[k < len(each) for k in range(steps)] for each in runs])
    return places, mask, real
