"""What the reading of a weight file gives: variables, contract and report."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from radimagenet_jax import models
from radimagenet_jax.weights.contract import Contract
from radimagenet_jax.weights.usage import Usage


@dataclass(frozen=True)
class Report:
    """What was read, for people.

    Attributes:
      file: The file's path as given.
      form: Its form, e.g. 'Keras 2 HDF5, full save'.
      title: The network, e.g. 'ResNet50 v1'.
      tensors: Number of tensors read.
      parameters: Number of values in them, statistics included.
      notes: What was assumed or left aside, a sentence each.
      findings: What was found in the statistics, a sentence each.
    """

    file: str
    form: str
    title: str
    tensors: int
    parameters: int
    notes: tuple[str, ...]
    findings: tuple[str, ...]

    def lines(self) -> list[str]:
        """Returns the report as lines of text."""
        return [
            f"{self.file}: {self.title}, {self.form}, {self.tensors} tensors, "
            f"{self.parameters:,} values, all finite, no negative variance.",
            *(f"  {sentence}" for sentence in (*self.notes, *self.findings)),
        ]


@dataclass(frozen=True)
class Weights:
    """A weight file, read whole.

    Attributes:
      variables: {'params', 'batch_stats'} of the network, float32, with a 'head' only if
        there are classes.
      contract: What they are.
      report: How they were read.
      options: Fields in which the network differs from the published one, the variant aside.
      num_classes: Of the head, whose names the contract has if the file states them; None without
        a head.
      config: Of the run that they were read from; None for a file.
      usage: How the network is used, as far as that is known.
    """

    variables: Mapping[str, Any]
    contract: Contract
    report: Report
    options: Mapping[str, Any] = field(default_factory=dict)
    config: Mapping[str, Any] | None = None
    num_classes: int | None = None
    usage: Usage = field(default_factory=Usage)

    def network(self, **fields: Any) -> models.Network:
        """The network that these variables are of; `fields` are further ones of its class."""
        stated = {"variant": self.contract.variant, "num_classes": self.num_classes}
        return models.create(self.contract.architecture, **{**self.options, **fields, **stated})
