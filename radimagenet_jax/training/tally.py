"""What the host remembers between the steps of a run, and a checkpoint keeps."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from types import NoneType
from typing import Any

from radimagenet_jax import own_files
from radimagenet_jax.console import warn
from radimagenet_jax.training import determinism
from radimagenet_jax.training.clock import PARTS, Clock

# Of what `to_json` gives.
FORM: Mapping[str, own_files.Form] = {
    **dict.fromkeys(("loss_sum", "correct", "count"), own_files.NUMBER),
    "best_loss": own_files.NUMBER_OR_NONE,
    "best_step": (int, NoneType),
    "clock": {
        **dict.fromkeys(("seconds", "images", "rated_seconds"), own_files.NUMBER),
        "parts?": dict.fromkeys(PARTS, own_files.NUMBER),
    },
    "machines?": [dict.fromkeys(("chip", "jaxlib", "runtime", "driver?"), str) | {"chips": int}],
}


@dataclass
class Tally:
    """Running sums, the best epoch so far, and the clock.

    Attributes:
      loss_sum: Of the examples since the last row of the log.
      correct: Of these, how many were called right (in training mode).
      count: How many they are.
      best_loss: Lowest validation loss so far, None before the first evaluation.
      best_step: The step after which it was measured.
      clock: Of the training.
      machines: That the run was on, one after the other, see `determinism.machine`.
    """

    loss_sum: float = 0.0
    correct: float = 0.0
    count: float = 0.0
    best_loss: float | None = None
    best_step: int | None = None
    clock: Clock = field(default_factory=Clock)
    machines: list[dict[str, Any]] = field(default_factory=list)

    def add(self, sums: dict[str, Any]) -> None:
        """Adds a step's sums, as the training step returns them."""
        self.loss_sum += float(sums["loss"])
        self.correct += float(sums["correct"])
        self.count += float(sums["count"])

    def on(self, machine: dict[str, Any]) -> None:
        """Notes where the run goes on, and says so if its bits cannot stay the same there."""
        if self.machines and machine == self.machines[-1]:
            return
        if self.machines:
            warn(determinism.moved(self.machines[-1], machine))
        self.machines.append(machine)

    def reset_sums(self) -> None:
        """Starts new sums."""
        self.loss_sum = self.correct = self.count = 0.0

    @property
    def loss(self) -> float:
        """Mean loss since the last row."""
        return self.loss_sum / self.count

    @property
    def accuracy(self) -> float:
        """Share of right calls since the last row."""
        return self.correct / self.count

    def to_json(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {**vars(self), "clock": self.clock.to_json()}

    @classmethod
    def from_json(cls, kept: dict[str, Any]) -> "Tally":
        """What `to_json` gave, of the form `FORM`."""
        own, clock = _known(cls, kept), _known(Clock, kept["clock"])
        return cls(**{**own, "clock": Clock(**clock)})


def _known(kind: type, kept: dict[str, Any]) -> dict[str, Any]:
    """Those fields of a dataclass that were kept; earlier versions kept less."""
    return {each.name: kept[each.name] for each in fields(kind) if each.name in kept}
