"""How a split's examples reach the step: all of them at once, or batch by batch from disk.

All feeds give the step the same examples in the same order, so that a run computes the same with
each, bit for bit.
"""

import contextlib
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding

from radimagenet_jax.data.datasets import Split
from radimagenet_jax.data.streaming import Batch, StreamedSplit, batches
from radimagenet_jax.training import examples as held
from radimagenet_jax.training import sharding
from radimagenet_jax.training.examples import Examples, ResidentExamples
from radimagenet_jax.training.order import DataOrder

# What a step takes besides its state: examples, index (or None) and mask, see `make_train_step`.
Inputs = tuple[Examples | ResidentExamples, jax.Array | None, jax.Array]

_AHEAD = 2  # batches on the devices before they are needed


class ResidentFeed:
    """A split that lives on the devices: a step gathers its batch there by index.

    Attributes:
      shardings: Of the inputs.
      examples: All of the split.
    """

    def __init__(self, examples: ResidentExamples, mesh: Mesh):
        by_example = sharding.by_example(mesh)
        where = jax.tree.map(lambda part: part.sharding, examples)
        self.shardings = (where, by_example, by_example)
        self.examples, self._mesh = examples, mesh

    def inputs(self, order: DataOrder, first: int, last: int) -> Iterator[Inputs]:
        """Yields the inputs of the steps from `first` to before `last`."""
        for step in range(first, last):
            index, mask = sharding.place_batch(order.batch(step), self._mesh)
            yield self.examples, index, mask


class StreamedFeed:
    """A split on disk: batches are read ahead and put on the devices ahead.

    Attributes:
      shardings: Of the inputs.
    """

    def __init__(self, split: StreamedSplit, mesh: Mesh, workers: int = 0):
        by_example = sharding.by_example(mesh)
        self.shardings: tuple[NamedSharding, ...] = (by_example, by_example, by_example)
        self._split, self._mesh, self._workers = split, mesh, workers

    def inputs(self, order: DataOrder, first: int, last: int) -> Iterator[Inputs]:
        """Yields the inputs of the steps from `first` to before `last`.

        Raises:
          DataError: If the files are damaged.
          ConfigError: If a worker process is killed.
        """
        rows = sharding.local_rows(order.batch_size, self._mesh)
        host = batches(self._split, order, rows, first, last, workers=self._workers)

        def draw() -> Inputs | None:
            batch = next(host, None)
            return None if batch is None else self._placed(batch, order.batch_size)

        with contextlib.closing(host), ThreadPoolExecutor(1) as pool:
            waiting: deque[Future[Inputs | None]] = deque()
            try:
                waiting.extend(pool.submit(draw) for _ in range(_AHEAD))
                while (inputs := waiting.popleft().result()) is not None:
                    waiting.append(pool.submit(draw))
                    yield inputs
            finally:
                for future in waiting:
                    future.cancel()

    def _placed(self, batch: Batch, batch_size: int) -> Inputs:
        def place(part: Any) -> jax.Array:
            shape = (batch_size, *part.shape[1:])
            return jax.make_array_from_process_local_data(self.shardings[0], part, shape)

        examples = Examples(place(batch.images), place(batch.labels), place(batch.ids))
        return examples, None, place(batch.mask)


def feed(
    split: Split | StreamedSplit, mesh: Mesh, *, in_parts: bool = False, workers: int = 0
) -> ResidentFeed | StreamedFeed:
    """Makes the feed of a split.

    Args:
      split: In memory, it is put on the devices; streamed, it stays on disk.
      mesh: The devices.
      in_parts: Either is put on the devices, a part on each.
      workers: Processes that read what stays on disk; 0: threads of this one do.

    Raises:
      DataError: If files are damaged.
    """
    if in_parts:
        return ResidentFeed(held.place_in_parts(split, mesh), mesh)
    if isinstance(split, StreamedSplit):
        return StreamedFeed(split, mesh, workers)
    return ResidentFeed(held.place_whole(split, mesh), mesh)
