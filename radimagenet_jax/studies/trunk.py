"""The frozen part of a network over a task's images, kept in memory or computed as needed."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from radimagenet_jax.data import augment
from radimagenet_jax.models import ops
from radimagenet_jax.studies.cut import Cut
from radimagenet_jax.studies.images import Images

PyTree = Any
# (frozen, images uint8, ids, epoch, key) -> activations
Trunk = Callable[..., tuple[jax.Array, ...]]


def make_trunk(
    cut: Cut, prepared: Callable[[jax.Array], jax.Array], policy: augment.Policy | None
) -> Trunk:
    """Makes the compiled function from stored images to the activations at the cut.

    Args:
      cut: For the chunks in which the trunk is computed.
      prepared: Turns augmented images into the network's input.
      policy: Augmentation; None for none, as in evaluation.

    Returns:
      (frozen, images (B, S, S, C) uint8, ids (B,), epoch, augmentation key) -> activations.
    """

    @ops.jit
    def trunk(
        frozen: PyTree, images: jax.Array, ids: jax.Array, epoch: jax.Array, key: jax.Array
    ) -> tuple[jax.Array, ...]:
        return cut.trunk(frozen, prepared(augment.augment(images, ids, epoch, key, policy)))

    return trunk


@functools.partial(jax.jit, donate_argnums=0)
def _place(
    buffer: tuple[jax.Array, ...], part: tuple[jax.Array, ...], row: jax.Array
) -> tuple[jax.Array, ...]:
    return tuple(
        jax.lax.dynamic_update_slice_in_dim(whole, rows, row, 0)
        for whole, rows in zip(buffer, part, strict=True)
    )


class Activations:
    """Rows of activations at the cut, of images that are asked for.

    Attributes:
      buffer: (capacity, ...) arrays; the rows of the last request are valid.
      labels: (capacity,) int32, theirs.
      computed: How many images the trunk has been applied to so far, padding not counted.
    """

    def __init__(self, trunk: Trunk, cut: Cut, images: Images, capacity: int, key: jax.Array):
        """Allocates the rows.

        Args:
          trunk: Of `make_trunk`.
          cut: What it was made of.
          images: Of the task.
          capacity: Rows to hold.
          key: Of the augmentation's draws.
        """
        self._trunk, self._images, self._key = trunk, images, key
        self._chunk = cut.activations[0].shape[0]
        self.capacity = -(-capacity // self._chunk) * self._chunk
        self.buffer = tuple(
            jnp.zeros((self.capacity, *a.shape[1:]), a.dtype) for a in cut.activations
        )
        self.labels = jnp.zeros(self.capacity, jnp.int32)
        self.computed = 0
        self._held: tuple[bytes, tuple[int, ...]] | None = None
        self._row_of = np.full(len(images), -1, np.int32)

    def hold(self, frozen: PyTree, places: np.ndarray, epochs: tuple[int, ...] = (0,)) -> None:
        """Computes the activations of images, unless they are those that are held.

        Args:
          frozen: The frozen weights.
          places: Unique places of n images.
          epochs: The k augmentations to compute; n * k must not exceed the capacity.
        """
        if self._held == (places.tobytes(), epochs):
            return
        self._held = None
        self._row_of[:] = -1
        self._row_of[places] = np.arange(len(places))
        row = 0
        for epoch in epochs:
            for start in range(0, len(places), self._chunk):
                part = places[start : start + self._chunk]
                # A real image fills the last chunk up; what is made of it is overwritten or unread.
                filled = np.concatenate([part, np.repeat(part[:1], self._chunk - len(part))])
                computed = self._trunk(
                    frozen,
                    self._images.read(filled),
                    self._images.ids[filled],
                    np.int32(epoch),
                    self._key,
                )
                if len(part) < self._chunk:
                    computed = tuple(a[: len(part)] for a in computed)
                self.buffer = _place(self.buffer, computed, np.int32(row))
                row += len(part)
                self.computed += len(part)
        labels = np.tile(self._images.labels[places], len(epochs))
        self.labels = jnp.asarray(np.pad(labels, (0, self.capacity - len(labels))))
        self._held = places.tobytes(), epochs
        self._count = len(places)

    def rows(self, places: np.ndarray, view: np.ndarray | int = 0) -> np.ndarray:
        """The rows of images that are held, of their so-many-th augmentation."""
        return (self._row_of[places] + np.asarray(view, np.int32) * self._count).astype(np.int32)
