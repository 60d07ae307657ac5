"""A digest of what we wrote, kept in the contract's text, so that a changed bit does not load.

A folder has the checksum of its file (`native`); a file that travels alone, safetensors or Keras'
HDF5, has this seal over its contract and its variables, whatever their order and layout in it.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from radimagenet_jax.errors import WeightsError
from radimagenet_jax.weights.contract import Contract

# In the contract's text, beside the contract's own fields.
_KEY = "variables_sha256"

_UNSEALED = (
    "It was written before our files kept a digest of their numbers, so a changed bit would not be "
    "noticed; convert it again."
)


@dataclass
class Seal:
    """The digest of a contract and of variables that are seen one by one, in any order."""

    contract: Contract
    _seen: dict[str, str] = field(default_factory=dict)

    def note(self, target: str, values: np.ndarray) -> None:
        """Takes note of a variable, float32."""
        numbers = np.ascontiguousarray(values, "<f4")
        found = hashlib.sha256(numbers.reshape(-1).view(np.uint8).data).hexdigest()
        self._seen[target] = f"{list(numbers.shape)} {found}"

    def hexdigest(self) -> str:
        """The digest, in hexadecimal digits."""
        return hashlib.sha256(
            json.dumps([self.contract.to_json(), self._seen], sort_keys=True).encode()
        ).hexdigest()


def sealed(contract: Contract, leaves: Mapping[str, Any]) -> str:
    """Returns a contract's text with the seal of it and of the variables, by target."""
    seal = Seal(contract)
    for target, leaf in leaves.items():
        seal.note(target, np.asarray(leaf))
    record = {**json.loads(contract.to_json()), _KEY: seal.hexdigest()}
    return json.dumps(record, indent=2, ensure_ascii=False) + "\n"


def opened(text: str, path: Path) -> dict[str, Any]:
    """Reads what `sealed` wrote, or a contract alone as files before it have it.

    Args:
      text: The contract's text.
      path: The file that it is in.

    Returns:
      The fields of `opened.Opened` that it states: 'contract', 'seal' and 'notes'.

    Raises:
      WeightsError: If the contract is wrong.
    """
    contract, stated = Contract.with_extra(text, _KEY, name=f"the contract in {path}")
    return {"contract": contract, "seal": stated, "notes": () if stated else (_UNSEALED,)}


def verify(seal: Seal, stated: str, file: str) -> None:
    """Refuses variables that are not those which the seal was made of.

    Raises:
      WeightsError: If a number, a name or a field of the contract was changed.
    """
    found = seal.hexdigest()
    if found != stated:
        raise WeightsError(
            f"{file} was changed after it was written: its numbers and contract have the digest "
            f"{found[:16]}... instead of {stated[:16]}...; get it again, or convert the original "
            "weight file again."
        )
