"""Reads safetensors files as named tensors, whoever wrote them."""

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from safetensors import SafetensorError, safe_open

from radimagenet_jax.errors import WeightsError
from radimagenet_jax.weights.contract import Contract
from radimagenet_jax.weights.opened import Opened, StoredTensor

# In the file's metadata.
CONTRACT_KEY = "radimagenet_jax_contract"

# The file begins with the length of its header, 8 bytes, little end first; the form allows no more.
_LONGEST_HEADER = 100_000_000

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
        with safe_open(path, framework="numpy") as file:
            tensors = {name: _stored(file, name) for name in sorted(file.keys())}
            described = Opened(path, "safetensors", tensors)
            stated = (file.metadata() or {}).get(CONTRACT_KEY)
            if stated is not None:
                contract = Contract.from_json(stated, name=f"the contract in {path}")
                described = replace(described, scheme="own", contract=contract)
            yield described
    except (SafetensorError, OSError) as error:
        raise WeightsError(
            f"{path} is truncated or damaged and cannot be read as safetensors ({error}); get it "
            "again."
        ) from error


def _stored(file: Any, name: str) -> StoredTensor:
    described = file.get_slice(name)
    return StoredTensor(
        name,
        tuple(described.get_shape()),
        _DTYPES.get(described.get_dtype(), _UNKNOWN),
        lambda: file.get_tensor(name),
    )
