"""No export without a comparison: what a file computes, against what the network computes."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from radimagenet_jax.errors import ExportError
from radimagenet_jax.exports.source import PROBABILITIES, Source
from radimagenet_jax.models import ops

# Of probabilities, and of features relative to the largest of them.
TOLERANCE = 1e-4

# (N, S, S, 3) uint8 to the outputs by name.
Run = Callable[[np.ndarray], Mapping[str, np.ndarray]]


@dataclass(frozen=True)
class Agreement:
    """How far an exported file is from the network.

    Attributes:
      images: They were compared on.
      differences: The largest by the output's name: of probabilities as they are, of features
        relative to the largest feature.
    """

    images: int
    differences: Mapping[str, float]

    def __str__(self) -> str:
        """A part of a sentence."""
        found = " and ".join(f"{value:.1e} in {name}" for name, value in self.differences.items())
        return f"on {self.images} images it differs from the network by {found} at most"


def compare(run: Run, source: Source, images: np.ndarray) -> Agreement:
    """Compares an exported file with its network, in batches of one and of several images.

    Args:
      run: The file, loaded as others load it.
      source: The network.
      images: (N, S, S, 3) uint8.

    Raises:
      ExportError: If an output is missing, has another shape, or differs by more than `TOLERANCE`.
    """
    expected = ops.jit(source.forward())(images)
    parts = [run(batch) for batch in _batches(images)]
    differences = {}
    for name in source.outputs:
        theirs = np.concatenate([part[name] for part in parts])
        ours = np.asarray(expected[name])
        if theirs.shape != ours.shape:
            raise ExportError(
                f"the exported file gives {name} {theirs.shape} where the network gives "
                f"{ours.shape}; it is not kept."
            )
        scale = 1.0 if name == PROBABILITIES else max(float(np.abs(ours).max()), 1e-12)
        differences[name] = float(np.abs(theirs - ours).max()) / scale
    agreement = Agreement(len(images), differences)
    # Written so that a NaN is refused too.
    if not all(value <= TOLERANCE for value in differences.values()):
        raise ExportError(
            f"the exported file is wrong: {agreement}, where {TOLERANCE:g} is allowed; it is not "
            "kept. Choose another form with --to, or another version of the library that wrote it."
        )
    return agreement


def _batches(images: np.ndarray) -> Iterator[np.ndarray]:
    yield images[:1]
    for start in range(1, len(images), 3):
        yield images[start : start + 3]
