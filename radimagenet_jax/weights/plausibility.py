"""Whether the numbers of a weight file can be those of a trained network."""

from dataclasses import dataclass, field

import numpy as np

from radimagenet_jax.errors import WeightsError
from radimagenet_jax.wording import counted

# Batch variances of a trained network lie below some hundreds; a published file
# with 56,296 has been reported, whose channels dominate everything behind them.
EXTREME_VARIANCE = 1e4

# Below this a channel carries no signal: BatchNorm's epsilon is 1e-5 or 1e-3.
DEAD_VARIANCE = 1e-12

_LISTED = 6


@dataclass
class Plausibility:
    """Collects what is remarkable about the tensors of one file.

    Attributes:
      tensors: How many were seen.
      parameters: How many numbers they hold.
      invalid: What makes the file unusable: a sentence part for each tensor.
      findings: What is usable but worth knowing: a sentence for each.
      moved: How many moving statistics are other than before the first step.
      statistics: How many moving statistics there are.
    """

    tensors: int = 0
    parameters: int = 0
    invalid: list[str] = field(default_factory=list)
    findings: list[str] = field(default_factory=list)
    moved: int = 0
    statistics: int = 0

    def note(self, name: str, target: str, values: np.ndarray) -> None:
        """Takes note of one tensor.

        Args:
          name: What the file calls it.
          target: Where it goes; 'batch_stats/.../var' marks a variance.
          values: Its numbers, floating point.
        """
        self.tensors += 1
        self.parameters += values.size
        # The sum is finite exactly when it meets no NaN and no infinity, save an
        # overflow, which the slow look then clears.
        with np.errstate(over="ignore", invalid="ignore"):
            suspicious = not np.isfinite(values.sum(dtype=np.float64))
        if suspicious:
            broken = int(values.size - np.isfinite(values).sum())
            if broken:
                self.invalid.append(f"{name} has {broken} NaN or infinite values")
                return
        if target.startswith("batch_stats/"):
            self.statistics += 1
            is_variance = target.endswith("/var")
            # Where every training begins: a mean of 0 and a variance of 1.
            self.moved += bool((values != (1 if is_variance else 0)).any())
            if is_variance:
                self._note_variance(name, values)
        elif target.endswith("/kernel") and not values.any():
            self.findings.append(f"{name} is zero throughout: was it ever trained?")

    def note_untrained(self) -> None:
        """Adds a finding if all moving statistics are those of a network that saw no image."""
        if self.statistics and not self.moved:
            self.findings.append(
                f"All {self.statistics} moving means and variances are 0 and 1, as before the "
                "first training step: these are random numbers, or the statistics were never kept."
            )

    def refuse_invalid(self, file: str) -> None:
        """Raises `WeightsError` with every invalid tensor, if there is one."""
        if not self.invalid:
            return
        shown = "; ".join(self.invalid[:_LISTED])
        if len(self.invalid) > _LISTED:
            shown += f"; and {len(self.invalid) - _LISTED} more tensors"
        raise WeightsError(
            f"{file} holds numbers that no trained network has: {shown}. Nothing was loaded; "
            "get an intact file."
        )

    def _note_variance(self, name: str, values: np.ndarray) -> None:
        negative = int((values < 0).sum())
        if negative:
            self.invalid.append(f"{name} has {counted(negative, 'negative variance')}")
            return
        largest = float(values.max())
        if largest > EXTREME_VARIANCE:
            count = int((values > EXTREME_VARIANCE).sum())
            self.findings.append(
                f"{name} has {counted(count, 'extreme variance')}, "
                f"up to {largest:,.0f}: these channels saw outliers in training."
            )
        dead = int((values < DEAD_VARIANCE).sum())
        if dead:
            self.findings.append(
                f"{name} has {dead} of {values.size} variances at zero: these channels are dead."
            )
