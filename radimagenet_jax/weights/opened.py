"""What an open weight file says of itself, whatever its form."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from radimagenet_jax.errors import WeightsError, cut
from radimagenet_jax.weights.contract import Contract, is_plain
from radimagenet_jax.weights.usage import Usage

# No file in use has a tenth of either.
_MOST_TENSORS = 30_000
_LONGEST_NAME = 1024


@dataclass(frozen=True)
class StoredTensor:
    """A tensor in a file, described but not read.

    Attributes:
      name: What the file calls it, for messages.
      shape: As stored.
      dtype: As stored.
      read: Reads it, with that shape and dtype.
    """

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    read: Callable[[], np.ndarray]


@dataclass(frozen=True)
class Opened:
    """An open file or folder: its tensors, and the clues to what they are.

    Attributes:
      path: Where it is, as the user gave it.
      form: What it is, for people, such as 'Keras HDF5, full save'.
      tensors: By name, '<places>/<layer>/<role>' in files of Keras; they can be read until it is
        closed.
      scheme: Whose names these are, a key of `reading.SCHEMES`; '' where the form does not tell.
      contract: Ours, if it came from us.
      keras_version: As the file states it; '' if it does not.
      whole_model: True if the file describes its model, as Keras' full saves do.
      order: Of Keras' layers, by layer: a group of layers, and the place within that group.
      average_pooled: False if Keras' description says that the head's input is no average.
      positional: True if Keras' layers only have counts, in the order of `model.layers`.
      lambdas: The Lambda layers that Keras' description mentions, '<networks around it>/<name>'.
      strides: The strides that Keras' description states, by layer name.
      options: Fields in which the network differs from the published one.
      config: Of the run that this is; None if it is none.
      usage: How the network is used, as far as the form says it.
      seal: The digest of the contract and the variables when we wrote them, see `seal`; None if it
        is not kept, or the form is proof against changes already.
      notes: What was noticed or left aside at the opening, a sentence each.
      digests: Checksums of the file by algorithm, as far as its form had the time; see `digest`.

    Raises:
      WeightsError: If there are more tensors than in any network, or a name is no name.
    """

    path: Path
    form: str
    tensors: Mapping[str, StoredTensor]
    scheme: str = ""
    contract: Contract | None = None
    keras_version: str = ""
    whole_model: bool = False
    order: Mapping[str, tuple[str, int]] = field(default_factory=dict)
    average_pooled: bool = True
    positional: bool = False
    lambdas: tuple[str, ...] = ()
    strides: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    config: Mapping[str, Any] | None = None
    usage: Usage = field(default_factory=Usage)
    seal: str | None = None
    notes: tuple[str, ...] = ()
    digests: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self):
        if len(self.tensors) > _MOST_TENSORS:
            raise WeightsError(
                f"{self.path} has {len(self.tensors):,} tensors, more than any network here; get "
                "the original file."
            )
        for name in self.tensors:
            if not is_plain(name, _LONGEST_NAME):
                raise WeightsError(
                    f"{self.path} calls a tensor {cut(name)!r}, which is no name of a layer; get "
                    "the original file."
                )

    def digest(self, algorithm: str) -> str:
        """The file's checksum, as the function `digest` gives it."""
        return self.digests.get(algorithm) or digest(self.path, algorithm)


def digest(path: Path, algorithm: str) -> str:
    """Returns a file's checksum in hexadecimal digits.

    Args:
      path: The file.
      algorithm: 'sha256', or 'md5', which is all that Keras' publisher gives.

    Raises:
      WeightsError: If it cannot be read.
    """
    try:
        with path.open("rb") as file:
            start = hashlib.new(algorithm, usedforsecurity=False)
            return hashlib.file_digest(file, lambda: start).hexdigest()
    except OSError as error:
        raise WeightsError(f"{path} cannot be read ({error.strerror}).") from error
