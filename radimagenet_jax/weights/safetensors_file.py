"""Reads safetensors files as named tensors, whoever wrote them."""

import contextlib
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from safetensors import SafetensorError, safe_open

from radimagenet_jax.errors import WeightsError, cut
from radimagenet_jax.weights import seal
from radimagenet_jax.weights.opened import Opened, StoredTensor

# In the file's metadata.
CONTRACT_KEY = "radimagenet_jax_contract"

# The file begins with the length of its header, 8 bytes, little end first; the form allows no more.
_LONGEST_HEADER = 100_000_000

# What is read of it: the largest network's has 0.2 MB, and each tensor in it costs memory.
_LONGEST_READ = 8_000_000

_DTYPES = {
    "F64": np.dtype(np.float64),
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": jnp.dtype(jnp.bfloat16),
    "I64": np.dtype(np.int64),
    "I32": np.dtype(np.int32),
}
_UNKNOWN = np.dtype(np.void)


def recognises(path: Path, start: bytes) -> bool:
    """Tells whether a file is of this form, by its first bytes."""
    del path
    return start[8:9] == b"{" and int.from_bytes(start[:8], "little") <= _LONGEST_HEADER


@contextlib.contextmanager
def opened(path: Path) -> Iterator[Opened]:
    """Opens a safetensors file and describes its tensors.

    Args:
      path: The file.

    Yields:
      The description; tensors are read on demand, until the context ends.

    Raises:
      WeightsError: If the file is truncated, damaged or not of this form, or its contract is wrong.
    """
    try:
        header = _read_header(path)
        with safe_open(path, framework="numpy") as file:
            tensors = {name: _stored(file, name, header[name]) for name in sorted(file.keys())}
            described = Opened(path, "safetensors", tensors)
            stated = (file.metadata() or {}).get(CONTRACT_KEY)
            if stated is not None:
                described = replace(described, scheme="own", **seal.opened(stated, path))
            yield described
    except (SafetensorError, OSError) as error:
        raise _damaged(path, str(error)) from error


def _read_header(path: Path) -> dict[str, Any]:
    """Reads what is said of the tensors; a header too long, or with a name twice, is refused.

    Its meaning, and that it fits the numbers behind it, is checked by the library when it opens.
    """
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > _LONGEST_READ:
            raise _damaged(path, f"its header has {length:,} bytes")
        content = file.read(length)

    def distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        record = dict(pairs)
        if len(record) != len(pairs):
            raise ValueError("its header has one name twice")
        return record

    try:
        header: dict[str, Any] = json.loads(content, object_pairs_hook=distinct)
    except (ValueError, RecursionError) as error:
        raise _damaged(path, str(error)) from error
    return header


def _damaged(path: Path, reason: str) -> WeightsError:
    return WeightsError(
        f"{path} is truncated or damaged and cannot be read as safetensors ({cut(reason, 300)}); "
        "get it again."
    )


def _stored(file: Any, name: str, described: dict[str, Any]) -> StoredTensor:
    # From the header, since the library's older versions look through all of it at each question.
    return StoredTensor(
        name,
        tuple(described["shape"]),
        _DTYPES.get(described["dtype"], _UNKNOWN),
        lambda: file.get_tensor(name),
    )
