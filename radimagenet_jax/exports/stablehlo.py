"""StableHLO: a file that JAX alone runs on CPUs, NVIDIA's GPUs and TPUs."""

from pathlib import Path

import jax
import numpy as np
from jax import export

from radimagenet_jax.exports import card, comparison
from radimagenet_jax.exports.keeping import kept_if_right
from radimagenet_jax.exports.source import Source

PLATFORMS = ("cpu", "cuda", "tpu")


def write(path: Path, source: Source, images: np.ndarray) -> comparison.Agreement:
    """Writes what `jax.export.deserialize` reads, and keeps it if it gives what the network gives.

    A zip archive with the card follows in the same file, where `zipfile` finds it.

    Args:
      path: The file; it must not exist.
      source: The network.
      images: (N, S, S, 3) uint8, to compare on.

    Raises:
      ExportError: If the file cannot be written, or computes something else. Nothing is left
        behind.
    """
    with kept_if_right(path) as temporary:
        (count,) = export.symbolic_shape("N")
        of_images = jax.ShapeDtypeStruct((count, *source.shape), np.uint8)
        exported = export.export(jax.jit(source.forward()), platforms=PLATFORMS)(of_images)
        # No derivative: the functions that are fast on CPU have one of their own.
        temporary.write_bytes(exported.serialize(vjp_order=0))
        card.append(temporary, source)
        return comparison.compare(_loaded(temporary), source, images)


def _loaded(path: Path) -> comparison.Run:
    call = jax.jit(export.deserialize(bytearray(path.read_bytes())).call)

    def run(images: np.ndarray) -> dict[str, np.ndarray]:
        return {name: np.asarray(value) for name, value in call(images).items()}

    return run
