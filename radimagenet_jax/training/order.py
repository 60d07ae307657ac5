"""Which examples a step sees: a pure function of the seed and the step.

There is no iterator whose state could be lost: a resumed run, a run on other devices and a
run on other hosts all ask for step k and get the same examples.
"""

import functools
from dataclasses import dataclass

import jax
import numpy as np


@dataclass(frozen=True, eq=False)
class Classes:
    """The class of each example, compared and hashed as an object: there may be a million.

    Attributes:
      labels: (N,) int32.
    """

    labels: np.ndarray


@dataclass(frozen=True)
class DataOrder:
    """The order in which a training run passes through its examples.

    Attributes:
      examples: Number of examples.
      batch_size: Global batch size. The last batch of an epoch is kept: it is padded to
        this size and its padding is masked.
      seed: Seed of the order.
      shuffle: A new order each epoch; otherwise the data set's own order.
      classes: If given, each class has the same share of every shuffled epoch: examples of rare
        classes come several times, and of frequent ones a new choice comes each epoch.
    """

    examples: int
    batch_size: int
    seed: int
    shuffle: bool
    classes: Classes | None = None

    @property
    def steps_per_epoch(self) -> int:
        """Batches in an epoch, the last and smaller one included."""
        return -(-self.examples // self.batch_size)

    def epoch(self, step: int) -> int:
        """The epoch, counted from 0, that a step belongs to."""
        return step // self.steps_per_epoch

    def next_boundary(self, step: int, every: int) -> int:
        """The next step after which an epoch ends, or so many steps are full (0: never)."""
        ends = (self.epoch(step) + 1) * self.steps_per_epoch
        return min(ends, (step // every + 1) * every) if every else ends

    def batch(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """The examples of a step.

        Args:
          step: Counted from 0 over the whole run.

        Returns:
          Indices (batch_size,) int32, and a mask (batch_size,) float32 that is 0 for padding.
        """
        epoch, position = divmod(step, self.steps_per_epoch)
        return padded(self._order(epoch), position, self.batch_size)

    def _order(self, epoch: int) -> np.ndarray:
        if not self.shuffle:
            return np.arange(self.examples, dtype=np.int32)
        if self.classes is None:
            return _permutation(self.examples, self.seed, epoch)
        return _balanced(self.classes, self.seed, epoch)


def padded(order: np.ndarray, position: int, batch_size: int) -> tuple[np.ndarray, np.ndarray]:
    """Cuts batch number `position` out of an order of examples, padded to full size.

    Padding repeats the order's first example, so that it is a real image and no special
    value can reach the network; the mask keeps it out of every sum.
    """
    chosen = order[position * batch_size : (position + 1) * batch_size]
    index = np.full(batch_size, order[0], np.int32)
    index[: len(chosen)] = chosen
    mask = np.zeros(batch_size, np.float32)
    mask[: len(chosen)] = 1
    return index, mask


@functools.lru_cache(maxsize=4)
def _permutation(examples: int, seed: int, epoch: int) -> np.ndarray:
    # Random bits of a counter-based generator, sorted: the result is defined by threefry and
    # a stable sort, not by a library's choice of shuffling algorithm.
    key = jax.random.fold_in(jax.random.key(seed, impl="threefry2x32"), epoch)
    with jax.default_device(jax.local_devices(backend="cpu")[0]):
        bits = np.asarray(jax.random.bits(key, (examples,), "uint32"))
    return np.argsort(bits, kind="stable").astype(np.int32)


@functools.lru_cache(maxsize=4)
def _balanced(classes: Classes, seed: int, epoch: int) -> np.ndarray:
    """An epoch of as many examples as there are, the same number of each class, give or take one.

    An example of a rare class comes again only when all of its class have come.
    """
    labels = classes.labels
    order = _permutation(len(labels), seed, epoch)
    present, counts = np.unique(labels, return_counts=True)
    share, spare = divmod(len(labels), len(present))
    chosen = []
    for place, (label, count) in enumerate(zip(present, counts, strict=True)):
        # The classes that get one more go round with the epochs.
        wanted = share + ((place - epoch) % len(present) < spare)
        passes = [order[labels[order] == label]] * -(-wanted // count)
        chosen.append(np.concatenate(passes)[:wanted])
    mixed = np.concatenate(chosen)
    return mixed[_permutation(len(mixed), seed + 1, epoch)]
