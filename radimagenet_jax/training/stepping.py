"""Taking steps: one call of the devices each, or many steps of an epoch in one call."""

import dataclasses
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
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
# Steps that are sent before the oldest one's sums are read, so that a device never waits for the
# host to send the next.
IN_FLIGHT = 3


@dataclasses.dataclass(frozen=True)
class Advance:
    """What a call of `advance` did.

    Attributes:
      sent: Steps that were sent to the devices.
      rows: Sums of the steps that are known to be done, on the host, the oldest first; those of
        earlier calls among them.
      waited: Seconds that the call waited for its input.
      sending: Seconds that it took to send the steps.
      device: Seconds for which it waited for the devices.
    """

    sent: int
    rows: Sequence[Sums]
    waited: float
    sending: float
    device: float


class SingleSteps:
    """One compiled call a step, for batches that come from disk and for CPUs."""

    def __init__(
        self,
        train_step: Callable[..., tuple[TrainState, Sums]],
        feed: ResidentFeed | StreamedFeed,
        order: DataOrder,
        layout: PyTree,
        mesh: Mesh,
        in_flight: int = IN_FLIGHT,
    ):
        self._feed, self._order, self._in_flight = feed, order, in_flight
        self._sums: deque[Sums] = deque()
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

    def advance(self, state: TrainState, step: int, until: int) -> tuple[TrainState, Advance]:
        """Sends the step after `step`; returns the state after it, and what came of it.

        Up to `IN_FLIGHT` steps are on their way; before `until` is reached, all are done.
        """
        asked = time.perf_counter()
        batch, self._shown = self._shown or next(self._batches), None
        began = time.perf_counter()
        state, sums = self._compiled(state, *batch)
        self._sums.append(sums)
        sent = time.perf_counter()
        rows = self._read(0 if step + 1 >= until else self._in_flight - 1)
        return state, Advance(1, rows, began - asked, sent - began, time.perf_counter() - sent)

    def settle(self) -> list[Sums]:
        """Waits for the steps that are on their way; returns the sums of those not yet read."""
        return self._read(0)

    def _read(self, left: int) -> list[Sums]:
        return [jax.device_get(self._sums.popleft()) for _ in range(len(self._sums) - left)]


class ScannedSteps:
    """As many steps as a few seconds hold in one compiled loop, without the host in between.

    Where one call ends and the next begins changes nothing in what is computed.
    """

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
            in_shardings=(layout, feed.shardings[0], self._placed, self._placed, whole, whole),
            out_shardings=(layout, whole),
            donate_argnums=0,
        )

    def compile(self, state: TrainState, first: int, last: int) -> None:
        """Compiles for the steps from `first` to before `last`."""
        bounds = (np.int32(0), np.int32(1))
        self._compiled = self._lazy.lower(
            state, self._examples, *self._batches_of(first), *bounds
        ).compile()

    def advance(self, state: TrainState, step: int, until: int) -> tuple[TrainState, Advance]:
        """Takes steps up to `until` at most; returns the state after them, and what came of it."""
        first = step % self._order.steps_per_epoch
        last = min(first + self._size, self._order.steps_per_epoch, first + until - step)
        began = time.perf_counter()
        state, sums = self._compiled(
            state, self._examples, *self._batches_of(step), np.int32(first), np.int32(last)
        )
        sent = time.perf_counter()
        host = jax.device_get(sums)
        done = time.perf_counter()
        # The first call of a process is slow for other reasons.
        size = max(1, int(_CALL_SECONDS * (last - first) / (done - began))) if self._warm else 1
        # Every process has its own clock, but all have to take the same steps.
        self._size = distributed.as_lead_has_it(size)
        self._warm = True
        rows = [
            {name: values[place] for name, values in host.items()} for place in range(first, last)
        ]
        return state, Advance(len(rows), rows, 0.0, sent - began, done - sent)

    def settle(self) -> list[Sums]:
        """Nothing is on its way between calls."""
        return []

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
    *,
    in_flight: int = IN_FLIGHT,
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
      in_flight: Single steps that may be on their way.
    """
    looped = how == "true" or (how == "auto" and not ops.computes_on_host())
    if looped and isinstance(feed, ResidentFeed):
        return ScannedSteps(train_step, feed, order, layout, mesh)
    # Several CPU devices share the threads of one process, which a step and the next, each waiting
    # for all of its parts, could use up.
    alone = ops.computes_on_host() and mesh.size > 1
    return SingleSteps(train_step, feed, order, layout, mesh, 1 if alone else in_flight)


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
