"""Our converted form: a folder with `model.safetensors` and `contract.json`.

Tensors are called as in the network, 'params/stage1_block1/conv1/kernel', in its own
layouts. The folder appears whole or not at all, `contract.json` holds the sha256 of
the tensors beside the contract, and `model.safetensors` carries the contract as
metadata too, so that the file alone can still be loaded.
"""

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from radimagenet_jax.errors import WeightsError
from radimagenet_jax.weights.assembly import Rule, StoredTensor, Target, require_published
from radimagenet_jax.weights.contract import Contract

TENSORS = "model.safetensors"
CONTRACT = "contract.json"

# In the safetensors file's metadata.
CONTRACT_KEY = "radimagenet_jax_contract"

# In contract.json, beside the contract's own fields.
_DIGEST_KEY = "model_sha256"

_DTYPES = {
    "F64": np.dtype(np.float64),
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": jnp.dtype(jnp.bfloat16),
    "I64": np.dtype(np.int64),
    "I32": np.dtype(np.int32),
}
_UNKNOWN = np.dtype(np.void)


@dataclass(frozen=True)
class SafetensorsFile:
    """What a safetensors file holds; its tensors can be read while it is open.

    Attributes:
      tensors: By name.
      contract: The JSON of our contract, if the file came from us.
    """

    tensors: dict[str, StoredTensor]
    contract: str | None


def write(folder: Path, variables: Mapping[str, Any], contract: Contract) -> None:
    """Writes weights as a converted folder.

    Args:
      folder: It must not exist yet, or be empty.
      variables: {'params', 'batch_stats'}, float32.
      contract: What they are.

    Raises:
      WeightsError: If the folder is taken or cannot be written, or the variables are not
        those of the published network. Nothing is left behind.
    """
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise WeightsError(
            f"{folder} exists already; remove it, or choose another folder for the converted "
            "weights."
        )
    flat = {
        target: np.ascontiguousarray(leaf)
        for target, leaf in require_published(variables, contract).items()
    }
    temporary = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        tensors = temporary / TENSORS
        save_file(flat, tensors, metadata={CONTRACT_KEY: contract.to_json(), "format": "np"})
        record = {**json.loads(contract.to_json()), _DIGEST_KEY: sha256_of(tensors)}
        (temporary / CONTRACT).write_text(
            json.dumps(record, indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
        )
        for written in (tensors, temporary / CONTRACT, temporary):
            _force_to_disk(written)
        # mkdtemp's folder is for its owner alone, and so is what safetensors writes.
        temporary.chmod(0o755)
        tensors.chmod(0o644)
        temporary.rename(folder)
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or error
        raise WeightsError(
            f"{folder} cannot be written ({reason}); make room or choose another place."
        ) from error
    finally:
        if temporary is not None and temporary.exists():
            shutil.rmtree(temporary, ignore_errors=True)


def is_converted(folder: Path) -> bool:
    """Tells whether a folder holds converted weights."""
    return (folder / CONTRACT).is_file() or (folder / TENSORS).is_file()


def read_contract(folder: Path) -> Contract:
    """Reads a converted folder's contract, and checks that the tensors are those it was made for.

    Args:
      folder: As `write` leaves it.

    Returns:
      The contract.

    Raises:
      WeightsError: If a file is missing or was changed.
    """
    for name in (CONTRACT, TENSORS):
        if not (folder / name).is_file():
            raise WeightsError(
                f"{folder} holds no complete converted weights, {name} is missing; convert the "
                "original weight file again."
            )
    page = folder / CONTRACT
    try:
        text = page.read_text(encoding="utf-8")
        digest = sha256_of(folder / TENSORS)
    except (OSError, UnicodeDecodeError) as error:
        raise WeightsError(
            f"{page} cannot be read ({error}); convert the original weight file again."
        ) from error
    try:
        record = json.loads(text)
        stated = record.pop(_DIGEST_KEY, None) if isinstance(record, dict) else None
        text = json.dumps(record)
    except (ValueError, RecursionError):
        stated = None  # the strict reader says what is wrong with it
    contract = Contract.from_json(text, name=str(page))
    if stated != digest:
        raise WeightsError(
            f"{folder / TENSORS} is not the file that {CONTRACT} was written for (sha256 {digest} "
            f"instead of {stated}); convert the original weight file again."
        )
    return contract


@contextlib.contextmanager
def open_safetensors(path: Path) -> Iterator[SafetensorsFile]:
    """Opens a safetensors file and describes its tensors.

    Args:
      path: The file.

    Yields:
      The description; tensors are read on demand, until the context ends.

    Raises:
      WeightsError: If the file is truncated, damaged or not of this form.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            tensors = {name: _stored(file, name) for name in sorted(file.keys())}
            yield SafetensorsFile(tensors, (file.metadata() or {}).get(CONTRACT_KEY))
    except (SafetensorError, OSError) as error:
        raise WeightsError(
            f"{path} is truncated or damaged and cannot be read as safetensors ({error}); get it "
            "again."
        ) from error


def rules(shapes: Mapping[Target, tuple[int, ...]]) -> list[Rule]:
    """Returns where each tensor goes: each to the variable of its own name."""
    return [Rule(target, target) for target in shapes]


def _stored(file: Any, name: str) -> StoredTensor:
    described = file.get_slice(name)
    return StoredTensor(
        name,
        tuple(described.get_shape()),
        _DTYPES.get(described.get_dtype(), _UNKNOWN),
        lambda: file.get_tensor(name),
    )


def sha256_of(path: Path) -> str:
    """Returns a file's sha256 in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _force_to_disk(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
