"""The network that is applied to images, whatever it was read from."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from radimagenet_jax.data import inputs
from radimagenet_jax.reports import provenance
from radimagenet_jax.statistics import operating_points
from radimagenet_jax.weights.contract import Contract


@dataclass(frozen=True)
class Predictor:
    """A network, and what else a prediction takes of it.

    Attributes:
      name: The run or the weights, as they were given.
      apply: Images (B, S, S, 1 or 3) uint8 to {'scores', 'pooled'}, or 'pooled' alone.
      image_size: S.
      contract: Of the weights.
      digest: Of the parameters.
      described: What its pages say of it: 'network', 'weights_remarks' and, of a run, 'smoke' and
        'less'.
      positive: Index of the positive class.
      points: Operating points, fixed on validation scores where there were any.
      reading: How DICOM files are shown.
    """

    name: str
    apply: Callable[[Any], dict[str, Any]]
    image_size: int
    contract: Contract
    digest: str
    described: provenance.Provenance
    positive: int = -1
    points: Sequence[operating_points.OperatingPoint] = ()
    reading: inputs.Reading = field(default_factory=inputs.Reading)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Of the head; () where it has none or they are not known."""
        return self.contract.labels or ()
