"""Taking steps: one call of the devices each, or many steps of an epoch in one call."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from radimagenet_jax.models import ops
from radimagenet_jax.training import distributed, sharding
from radimagenet_jax.training.feed import Inputs, ResidentFeed, StreamedFeed
from radimagenet_jax.training.order import DataOrder
from radimagenet_jax.training.state import TrainState

PyTree = Any
Sums = dict[str, Any]

# Steps of one call take about so long: SIGTERM and the progress bar wait for it.
_CALL_SECONDS = 5.0


class SingleSteps:
    """One compiled call a step, for batches that come from disk and for CPUs.

    Attributes:
      waited: Seconds that the latest call waited for its input.
      computed: Seconds that the devices took for it.
    """

    def __init__(
        self,
        train_step: Callable[..., tuple[TrainState, Sums]],
        feed: ResidentFeed | StreamedFeed,
        order: DataOrder,
        layout: PyTree,
        mesh: Mesh,
    ):
        self.waited = self.computed = 0.0
        self._feed, self._order = feed, order
        self._lazy = ops.jit(
            train_step,
            in_shardings=(layout, *feed.shardings),
            out_shardings=(layout, sharding.replicated(mesh)),
            donate_argnums=0,
        )

    def compile(self, state: TrainState, first: int, last: int) -> None:
        """Compiles for the steps from `first` to before `last`."""
        # A feed reads ahead: what the compilation is shown is what the first step takes.
        batches = self._feed.inputs(self._order, first, last)
        self._shown: Inputs | None = next(batches)
        self._batches: Iterator[Inputs] = batches
        self._compiled = self._lazy.lower(state, *self._shown).compile()

    def advance(self, state: TrainState, step: int, until: int) -> tuple[TrainState, list[Sums]]:
        """Takes one step; returns the state after it and its sums, on the host."""
        asked = time.perf_counter()
        batch, self._shown = self._shown or next(self._batches), None
        began = time.perf_counter()
        state, sums = self._compiled(state, *batch)
        # Reading the sums waits for the step, so that the queue never runs ahead of what the
        # progress bar says and a failure names its own step.
        read = jax.device_get(sums)
        self.waited, self.computed = began - asked, time.perf_counter() - began
        return state, [read]


class ScannedSteps:
    """As many steps as a few seconds hold in one compiled loop, without the host in between.

    Where one call ends and the next begins changes nothing in what is computed.

    Attributes:
      waited: 0; there is no input to wait for.
      computed: Seconds that the devices took for the latest call.
    """

    waited = computed = 0.0

    def __init__(
        self,
        train_step: Callable[..., tuple[TrainState, Sums]],
        feed: ResidentFeed,
        order: DataOrder,
        layout: PyTree,
        mesh: Mesh,
    ):
        self._examples, self._order = feed.examples, order
        self._placed = NamedSharding(mesh, PartitionSpec(None, sharding.DATA_AXIS))
        self._epoch: tuple[int, jax.Array, jax.Array] | None = None
        self._size, self._warm = 1, False
        whole = sharding.replicated(mesh)
        self._lazy = ops.jit(
            _loop(train_step),
            in_shardings=(layout, whole, self._placed, self._placed, whole, whole),
            out_shardings=(layout, whole),
            donate_argnums=0,
        )

    def compile(self, state: TrainState, first: int, last: int) -> None:
        """Compiles for the steps from `first` to before `last`."""
        bounds = (np.int32(0), np.int32(1))
        self._compiled = self._lazy.lower(
            state, self._examples, *self._batches_of(first), *bounds
        ).compile()

    def advance(self, state: TrainState, step: int, until: int) -> tuple[TrainState, list[Sums]]:
        """Takes steps up to `until` at most; returns the state and each step's sums."""
        first = step % self._order.steps_per_epoch
        last = min(first + self._size, self._order.steps_per_epoch, first + until - step)
        began = time.perf_counter()
        state, sums = self._compiled(
            state, self._examples, *self._batches_of(step), np.int32(first), np.int32(last)
        )
        host = jax.device_get(sums)
        self.computed = time.perf_counter() - began
        # The first call of a process is slow for other reasons.
        size = max(1, int(_CALL_SECONDS * (last - first) / self.computed)) if self._warm else 1
        # Every process has its own clock, but all have to take the same steps.
        self._size = distributed.as_lead_has_it(size)
        self._warm = True
        return state, [
            {name: values[place] for name, values in host.items()} for place in range(first, last)
        ]

    def _batches_of(self, step: int) -> tuple[jax.Array, jax.Array]:
        """The indices and masks of all steps of an epoch, (steps, B) each, on the devices."""
        epoch, steps = self._order.epoch(step), self._order.steps_per_epoch
        if self._epoch is None or self._epoch[0] != epoch:
            batches = [self._order.batch(epoch * steps + place) for place in range(steps)]
            parts = (np.stack(part) for part in zip(*batches, strict=True))
            index, mask = (sharding.place(part, self._placed) for part in parts)
            self._epoch = epoch, index, mask
        return self._epoch[1:]


def stepper(
    how: str,
    train_step: Callable[..., tuple[TrainState, Sums]],
    feed: ResidentFeed | StreamedFeed,
    order: DataOrder,
    layout: PyTree,
    mesh: Mesh,
) -> SingleSteps | ScannedSteps:
    """Chooses the way.

    Args:
      how: 'true' for loops, 'false' for single steps, 'auto' for loops where the data set is on
        the devices and these are no CPUs, on which a loop gains nothing.
      train_step: Of `step.make_train_step`.
      feed: Of the training split.
      order: Its order.
      layout: Where the state's arrays live, see `sharding.state_layout`.
      mesh: The devices.
    """
    looped = how == "true" or (how == "auto" and not ops.computes_on_host())
    if looped and isinstance(feed, ResidentFeed):
        return ScannedSteps(train_step, feed, order, layout, mesh)
    return SingleSteps(train_step, feed, order, layout, mesh)


def _loop(
    train_step: Callable[..., tuple[TrainState, Sums]],
) -> Callable[..., tuple[TrainState, Sums]]:
    def loop(
        state: TrainState,
        examples: Any,
        indices: jax.Array,
        masks: jax.Array,
        first: jax.Array,
        last: jax.Array,
    ) -> tuple[TrainState, Sums]:
        _, shapes = jax.eval_shape(train_step, state, examples, indices[0], masks[0])
        none = jax.tree.map(lambda one: jnp.zeros((len(indices), *one.shape), one.dtype), shapes)

        def body(place: jax.Array, carry: tuple[TrainState, Sums]) -> tuple[TrainState, Sums]:
            state, every = carry
            state, sums = train_step(state, examples, indices[place], masks[place])
            return state, jax.tree.map(lambda old, new: old.at[place].set(new), every, sums)

        return jax.lax.fori_loop(first, last, body, (state, none))

    return loop
