"""Features of images by key, in one file: what `predict --features` writes.

The file is NumPy's npz with `keys` (N,) text, `pooled` (N, C) float32 and `sha256`, the digest of
both; a table that another program has made may lack the digest.
"""

import hashlib
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from radimagenet_jax.errors import DataError, cut

# Rows that are digested at a time.
_ROWS = 1024


def write_features(path: Path, keys: NDArray[np.str_], pooled: NDArray[np.floating]) -> None:
    """Writes features; the file appears whole or not at all.

    Args:
      path: The npz file; one that exists is replaced.
      keys: (N,).
      pooled: (N, C), which may lie in a file itself (`numpy.memmap`).

    Raises:
      OSError: If the file cannot be written.
    """
    temporary = path.with_name(f".{path.stem}.tmp.npz")
    try:
        np.savez(temporary, keys=keys, pooled=pooled, sha256=np.array(_digest(keys, pooled)))
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def read_features(path: Path | str) -> tuple[tuple[str, ...], Any]:
    """Reads a features.npz that this command wrote.

    Returns:
      N keys, and the pooled features (N, C) float32.

    Raises:
      DataError: If the file is missing or damaged: the digest of its arrays is compared.
    """
    path = Path(path)
    try:
        with np.load(path, allow_pickle=False) as file:
            keys, pooled = file["keys"], file["pooled"]
            # Earlier versions wrote none.
            kept = str(file["sha256"]) if "sha256" in file.files else None
    except FileNotFoundError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from error
    # NumPy and zipfile raise errors of many kinds on files that were cut or overwritten.
    except Exception as error:
        raise DataError(
            f"{path} is damaged ({cut(str(error))}); make it again with --features."
        ) from error
    if kept is not None and kept != _digest(keys, pooled):
        raise DataError(
            f"{path} is damaged (it is not what was written); make it again with --features."
        )
    return tuple(keys.tolist()), pooled


def _digest(keys: Any, pooled: Any) -> str:
    sha = hashlib.sha256()
    for array in (keys, pooled):
        sha.update(f"{array.dtype.str} {array.shape}\n".encode())
        for start in range(0, len(array), _ROWS):
            sha.update(array[start : start + _ROWS].tobytes())
    return sha.hexdigest()
