"""A run's working directory: its best network, with its contract and the run's config.

A run may be training at this moment, so its folder is only read: `checkpoints/<step>/` appears
under its name when it is whole, and what is being written beside it is left alone.
"""

import contextlib
import functools
import json
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from flax import core, traverse_util

from radimagenet_jax.errors import CheckpointError, ConfigError
from radimagenet_jax.weights import native
from radimagenet_jax.weights.contract import Contract
from radimagenet_jax.weights.opened import Opened, StoredTensor
from radimagenet_jax.weights.texts import shown

# What orbax and tensorstore raise on files that were cut or changed.
_READ_ERRORS = (
    *(OSError, ValueError, LookupError, TypeError, RuntimeError, AttributeError, AssertionError),
    *(EOFError, MemoryError),
)

# In bytes: some thousand times what a run writes.
_LARGEST_CONFIG = 8_000_000

# More than any network and its states; only a damaged description has it.
_LARGEST = 2**33

_T = TypeVar("_T")


def is_run(folder: Path) -> bool:
    """Tells whether a folder is the working directory of a run."""
    return (folder / "config.json").is_file() and not native.is_converted(folder)


def recognises(path: Path, start: bytes) -> bool:
    """Tells whether a path is the working directory of a run."""
    del start
    return is_run(path)


@contextlib.contextmanager
def opened(path: Path) -> Iterator[Opened]:
    """Finds the network of a run with the lowest validation loss.

    Args:
      path: The run's working directory.

    Yields:
      The description; the tensors are read all at once when the first is.

    Raises:
      ConfigError: If the config is damaged or the run names no classes.
      CheckpointError: If there is no best checkpoint, or it is damaged.
      WeightsError: If its contract is wrong.
    """
    config = _config(path / "config.json")
    folder = path.absolute() / "checkpoints"
    best, meta = _best(folder)
    contract = Contract.from_json(meta["contract"], name=f"{path}: contract")
    if not isinstance(config.get("model_options", {}), dict):
        raise ConfigError(f"{path / 'config.json'}: model_options is no object; train again.")
    if contract.labels is None:
        raise ConfigError(f"{path}: the checkpoint names no classes; train the run again.")
    options = {
        name: _hashable(value)
        for name, value in config.get("model_options", {}).items()
        if name != "variant"  # the contract has it
    }
    yield Opened(
        path,
        "working directory of a run",
        _tensors(folder, best),
        scheme="own",
        contract=contract,
        options=options,
        config=config,
    )


def _config(page: Path) -> dict[str, Any]:
    try:
        with page.open("rb") as file:
            config = json.loads(file.read(_LARGEST_CONFIG))
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(
            f"{page} cannot be read ({shown(str(error), 200)}); give a run's --workdir."
        ) from error
    if not isinstance(config, dict):
        raise ConfigError(f"{page} is not a run's config; give a run's --workdir.")
    return config


def _best(folder: Path) -> tuple[int, dict[str, Any]]:
    """Returns the best checkpoint, as the newest names it, and what was kept beside it."""
    # Only who gives a run pays for the import.
    import orbax.checkpoint as ocp

    def meta(step: int) -> dict[str, Any]:
        handler = ocp.JsonCheckpointHandler()
        item = folder / str(step) / "meta"
        kept = _whole(folder, step, lambda: handler.restore(item, args=ocp.args.JsonRestore()))
        return _whole(folder, step, lambda: _checked(kept))

    steps = ocp.utils.checkpoint_steps(folder) if folder.is_dir() else []
    best = meta(max(steps))["best_step"] if steps else None
    if best is None:
        raise CheckpointError(
            f"there is no checkpoint of a whole epoch in {folder}; let the run finish one."
        )
    return best, meta(best)


def _checked(meta: Any) -> dict[str, Any]:
    """Returns what is kept beside a checkpoint, as far as it is used here, or raises ValueError."""
    if not isinstance(meta, dict) or not isinstance(meta.get("contract"), str):
        raise ValueError("its notes have no contract")
    best = meta.get("best_step")
    if best is not None and (type(best) is not int or best < 0):
        raise ValueError("its notes have a best step that is no step")
    return {"contract": meta["contract"], "best_step": best}


def _tensors(folder: Path, step: int) -> dict[str, StoredTensor]:
    import orbax.checkpoint as ocp

    item = folder / str(step) / "network"
    handler = ocp.StandardCheckpointHandler()
    leaves = _whole(folder, step, lambda: _leaves(handler.metadata(item).tree))

    @functools.cache
    def values() -> Mapping[str, np.ndarray]:
        flat = {name: np.empty(leaf.shape, leaf.dtype) for name, leaf in leaves.items()}
        like = traverse_util.unflatten_dict(flat, sep="/")
        asked = ocp.args.StandardRestore(like)
        restored = _whole(folder, step, lambda: handler.restore(item, args=asked))
        return traverse_util.flatten_dict(restored, sep="/")

    def stored(name: str, leaf: Any) -> StoredTensor:
        return StoredTensor(name, tuple(leaf.shape), np.dtype(leaf.dtype), lambda: values()[name])

    return {name: stored(name, leaf) for name, leaf in leaves.items()}


def _leaves(described: Any) -> dict[str, Any]:
    """Returns the arrays of a checkpoint's description by name, or raises ValueError."""
    leaves = traverse_util.flatten_dict(described, sep="/")
    size = sum(math.prod(leaf.shape) * np.dtype(leaf.dtype).itemsize for leaf in leaves.values())
    if size > _LARGEST:
        raise ValueError(f"it describes {size:,} bytes, more than any network here")
    return leaves


def _whole(folder: Path, step: int, read: Callable[[], _T]) -> _T:
    """Reads a part of a checkpoint, or says that it is damaged."""
    try:
        return read()
    except _READ_ERRORS as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise CheckpointError(
            f"cannot restore step {step} from {folder}: its files are damaged or of another model "
            f"({shown(reason, 200)}); give a new --workdir, or remove {step}/ there to fall "
            "back on a checkpoint before it, if there is one."
        ) from error


def _hashable(value: Any) -> Any:
    """A value of a JSON text as a field of a network, which is hashed."""
    if isinstance(value, list):
        return tuple(map(_hashable, value))
    if isinstance(value, dict):
        return core.FrozenDict({name: _hashable(each) for name, each in value.items()})
    return value
