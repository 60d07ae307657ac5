"""Tables of features by key: what `predict --features` writes, and anybody's embeddings."""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from radimagenet_jax.errors import DataError, UserError, cut
from radimagenet_jax.wording import some

_AGAIN = "make it again, with predict --features or as you did"
_FORM = "keys (N,) of text and pooled (N, C) of floating-point numbers"
_LISTED = 3
# Rows that are digested at a time.
_ROWS = 1024


@dataclass(frozen=True)
class Features:
    """The features of N images, each of C numbers.

    Attributes:
      keys: N unique names of images.
      pooled: (N, C) float32, all finite.
      sha256: Of the whole file.
    """

    keys: tuple[str, ...]
    pooled: np.ndarray
    sha256: str


def write(path: Path, keys: Sequence[str], pooled: np.ndarray) -> None:
    """Writes a table as an .npz file with the digest of its arrays; it appears whole or not at all.

    Args:
      path: The file; its folder exists.
      keys: N names of images.
      pooled: (N, C) features, which may lie in a file themselves (`numpy.memmap`).

    Raises:
      UserError: If the disk takes no more.
    """
    temporary = path.with_name(f".{path.stem}.tmp.npz")
    try:
        named = np.array(keys, np.str_)
        np.savez(temporary, keys=named, pooled=pooled, sha256=np.array(_digest(named, pooled)))
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        temporary.replace(path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise UserError(
                f"{path} cannot be written: {error.strerror}; make room, or give another --output."
            ) from error
        raise


def read(path: Path | str) -> tuple[tuple[str, ...], np.ndarray]:
    """Reads a features.npz that `predict --features` wrote.

    Returns:
      N keys, and the pooled features (N, C) float32.

    Raises:
      DataError: If the file is missing or damaged: the digest of its arrays is compared.
    """
    keys, pooled = _arrays(Path(path))
    return tuple(keys.tolist()), pooled


def read_any(path: Path) -> Features:
    """Reads a table that anybody made: keys (N,), pooled (N, C), and sha256 if it was ours.

    Raises:
      DataError: In one sentence, if the file is missing or damaged, or holds something else: keys
        that are no texts or are there twice, features of another shape or dtype, or numbers that
        are not finite.
    """
    keys, pooled = _arrays(path)
    if keys.ndim != 1 or keys.dtype.kind != "U":
        raise DataError(f"{path} has keys {_described(keys)}, but a table holds {_FORM}.")
    if pooled.ndim != 2:
        count, fault = abs(pooled.ndim - 2), "few" if pooled.ndim < 2 else "many"
        raise DataError(
            f"{path} has pooled {_described(pooled)}, {count} dimension{'s' * (count > 1)} too "
            f"{fault}: a table holds {_FORM}, a row an image."
        )
    if pooled.dtype.kind != "f":
        raise DataError(f"{path} has pooled {_described(pooled)}, but a table holds {_FORM}.")
    if len(keys) != len(pooled) or 0 in pooled.shape:
        raise DataError(
            f"{path} has {len(keys):,} keys and features {_described(pooled)}, but a table holds "
            f"{_FORM}, a row an image and at least one."
        )
    names, counts = np.unique(keys, return_counts=True)
    if len(names) < len(keys):
        twice = names[counts > 1].tolist()
        raise DataError(f"{path} has {named(twice)} more than once; give each image one row.")
    with np.errstate(over="ignore"):  # what float32 cannot hold is told as infinite below
        values = pooled.astype(np.float32)
    wrong = np.flatnonzero(~np.isfinite(values).all(axis=1))
    if len(wrong):
        raise DataError(
            f"{path} has NaN, infinite or too large numbers in the features of "
            f"{named([str(keys[k]) for k in wrong])}; compute them again or leave the images out."
        )
    return Features(tuple(keys.tolist()), values, sha256(path))


def named(keys: Sequence[str]) -> str:
    """The first of some keys, and how many more there are, as a part of a sentence."""
    return some(keys, _LISTED, lambda key: repr(cut(key)))


def _arrays(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """The arrays of a file, compared with their digest if there is one."""
    try:
        loaded: Any = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            raise ValueError("it is a single array, not an .npz file")
        with loaded as file:
            absent = [name for name in ("keys", "pooled") if name not in file.files]
            if absent:
                raise DataError(
                    f"{path} has no array {' and no array '.join(absent)}, only "
                    f"{cut(', '.join(file.files) or 'none')}: a table holds {_FORM}."
                )
            keys, pooled = file["keys"], file["pooled"]
            # Earlier versions wrote none, and others need not.
            kept = str(file["sha256"]) if "sha256" in file.files else None
    except FileNotFoundError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from error
    except DataError:
        raise
    # NumPy and zipfile raise errors of many kinds on files that were cut or overwritten.
    except Exception as error:
        raise DataError(f"{path} is damaged ({cut(str(error))}); {_AGAIN}.") from error
    if kept is not None and kept != _digest(keys, pooled):
        raise DataError(f"{path} is damaged (it is not what was written); {_AGAIN}.")
    return keys, pooled


def _described(array: np.ndarray) -> str:
    return f"{array.shape} of dtype {array.dtype}"


def _digest(keys: Any, pooled: Any) -> str:
    sha = hashlib.sha256()
    for array in (keys, pooled):
        sha.update(f"{array.dtype.str} {array.shape}\n".encode())
        for start in range(0, len(array), _ROWS):
            sha.update(array[start : start + _ROWS].tobytes())
    return sha.hexdigest()


def sha256(path: Path) -> str:
    """SHA-256 of a whole file.

    Raises:
      DataError: If it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from error
