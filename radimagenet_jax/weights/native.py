"""Our converted form: a folder with `model.safetensors`, `contract.json`, and what it is for.

Tensors are called as in the network, 'params/stage1_block1/conv1/kernel', in its own
layouts. The folder appears whole or not at all, `contract.json` holds the sha256 of
the tensors beside the contract, and `model.safetensors` carries the contract as
metadata too, so that the file alone can still be loaded. `usage.json` says how the network is
used, and `README.md` is its model card: the folder is laid out as a Hub's repository.
"""

import contextlib
import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import save_file

from radimagenet_jax.errors import WeightsError
from radimagenet_jax.files import force_to_disk
from radimagenet_jax.weights import card, safetensors_file, seal
from radimagenet_jax.weights.assembly import require_published
from radimagenet_jax.weights.contract import Contract
from radimagenet_jax.weights.opened import Opened, digest
from radimagenet_jax.weights.safetensors_file import CONTRACT_KEY
from radimagenet_jax.weights.usage import Usage

TENSORS = "model.safetensors"
CONTRACT = "contract.json"
USAGE = "usage.json"
CARD = "README.md"

# In bytes: a contract with thousands of labels has a tenth of it.
_LARGEST_CONTRACT = 8_000_000

# In contract.json, beside the contract's own fields.
_DIGEST_KEY = "model_sha256"


_NOTHING_KNOWN = Usage()


def write(
    folder: Path,
    variables: Mapping[str, Any],
    contract: Contract,
    usage: Usage = _NOTHING_KNOWN,
) -> None:
    """Writes weights as a converted folder.

    Args:
      folder: It must not exist yet, or be empty.
      variables: {'params', 'batch_stats'}, float32.
      contract: What they are.
      usage: How the network is used.

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
        save_file(
            flat, tensors, metadata={CONTRACT_KEY: seal.sealed(contract, flat), "format": "np"}
        )
        record = {**json.loads(contract.to_json()), _DIGEST_KEY: digest(tensors, "sha256")}
        texts = {
            CONTRACT: json.dumps(record, indent=2, ensure_ascii=False) + "\n",
            USAGE: usage.to_json(),
            CARD: card.text(contract, usage),
        }
        for name, text in texts.items():
            (temporary / name).write_text(text, encoding="utf-8")
        force_to_disk(*temporary.iterdir(), temporary)
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


def recognises(path: Path, start: bytes) -> bool:
    """Tells whether a path is a folder with converted weights."""
    del start
    return is_converted(path)


@contextlib.contextmanager
def opened(path: Path) -> Iterator[Opened]:
    """Opens a converted folder; see `read_contract` and `safetensors_file.opened`."""
    contract = read_contract(path)
    usage = Usage.read(path / USAGE)
    usage.check(contract.labels, path / USAGE)
    with safetensors_file.opened(path / TENSORS) as file:
        # The checksum of the whole file is more than the seal of what is in it.
        described = replace(file, path=path, form="converted folder", seal=None, notes=())
        yield replace(described, scheme="own", contract=contract, usage=usage)


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
        with page.open("rb") as file:
            text = file.read(_LARGEST_CONTRACT).decode()
    except (OSError, UnicodeDecodeError) as error:
        raise WeightsError(
            f"{page} cannot be read ({error}); convert the original weight file again."
        ) from error
    contract, stated = Contract.with_extra(text, _DIGEST_KEY, name=str(page))
    found = digest(folder / TENSORS, "sha256")
    if stated != found:
        raise WeightsError(
            f"{folder / TENSORS} is not the file that {CONTRACT} was written for (sha256 {found} "
            f"instead of {stated}); convert the original weight file again."
        )
    with safetensors_file.opened(folder / TENSORS) as tensors:
        _require_same(contract, tensors.contract, folder)
    return contract


def _require_same(contract: Contract, within: Contract | None, folder: Path) -> None:
    """Refuses a contract that was changed: the tensors' file has it too, under its checksum."""
    if within is None:
        raise WeightsError(
            f"{folder / TENSORS} does not carry its contract, as every file that `convert` wrote "
            "does; convert the original weight file again."
        )
    changed = [
        field.name
        for field in fields(Contract)
        if getattr(contract, field.name) != getattr(within, field.name)
    ]
    if changed:
        raise WeightsError(
            f"{folder / CONTRACT} was changed after it was written: {', '.join(changed)} differ "
            f"from what {TENSORS} carries; put it back, or convert the original weight file again."
        )
