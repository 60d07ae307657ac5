"""What the reading of a weight file gives: variables, contract, report, checksums."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from radimagenet_jax import models
from radimagenet_jax.errors import WeightsError
from radimagenet_jax.weights.audit import Audit
from radimagenet_jax.weights.contract import Contract

_CHUNK = 1 << 20


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
      findings: What the audit of the statistics found, a sentence each.
    """

    file: str
    form: str
    title: str
    tensors: int
    parameters: int
    notes: tuple[str, ...]
    findings: tuple[str, ...]

    @classmethod
    def of(
        cls, file: str, form: str, contract: Contract, audit: Audit, notes: Sequence[str]
    ) -> "Report":
        """Gathers a report from what the reading of a file left."""
        title = models.architecture(contract.architecture).title
        return cls(
            file=file,
            form=form,
            title=f"{title} {contract.variant}".rstrip(),
            tensors=audit.tensors,
            parameters=audit.parameters,
            notes=tuple(notes),
            findings=tuple(audit.findings),
        )

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
        the contract has labels.
      contract: What they are.
      report: How they were read.
    """

    variables: Mapping[str, Any]
    contract: Contract
    report: Report


@dataclass(frozen=True)
class Digests:
    """Checksums of a file, in hexadecimal digits.

    Attributes:
      sha256: Names the file in its contract.
      md5: Identifies the files of keras.applications, whose publisher gives only this.
    """

    sha256: str
    md5: str

    @classmethod
    def of(cls, path: Path) -> "Digests":
        """Reads a file once for both.

        Raises:
          WeightsError: If it cannot be read.
        """
        sha256, md5 = hashlib.sha256(), hashlib.md5(usedforsecurity=False)
        try:
            with path.open("rb") as file:
                while chunk := file.read(_CHUNK):
                    sha256.update(chunk)
                    md5.update(chunk)
        except OSError as error:
            raise WeightsError(f"{path} cannot be read ({error.strerror}).") from error
        return cls(sha256.hexdigest(), md5.hexdigest())
