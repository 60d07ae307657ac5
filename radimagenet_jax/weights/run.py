"""A run's working directory: its best network, with its contract and the run's config.

A run may be training at this moment, so its folder is only read: `checkpoints/<step>/` appears
under its name when it is whole, and what is being written beside it is left alone.
"""

import contextlib
import functools
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import jax
import numpy as np
from flax import core, traverse_util

from radimagenet_jax.errors import CheckpointError, ConfigError
from radimagenet_jax.files import plainly_named
from radimagenet_jax.weights import native
from radimagenet_jax.weights.contract import Contract
from radimagenet_jax.weights.opened import Opened, StoredTensor

# What orbax and tensorstore raise on files that were cut.
_READ_ERRORS = (OSError, ValueError, KeyError, TypeError, RuntimeError)

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
        config = json.loads(page.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"{page} cannot be read ({error}); give a run's --workdir.") from error
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
        return _whole(folder, step, lambda: handler.restore(item, args=ocp.args.JsonRestore()))

    steps = ocp.utils.checkpoint_steps(folder) if folder.is_dir() else []
    best = meta(max(steps))["best_step"] if steps else None
    if best is None:
        raise CheckpointError(
            f"there is no checkpoint of a whole epoch in {folder}; let the run finish one."
        )
    return best, meta(best)


def _tensors(folder: Path, step: int) -> dict[str, StoredTensor]:
    import orbax.checkpoint as ocp

    item = plainly_named(folder) / str(step) / "network"
    handler = ocp.StandardCheckpointHandler()
    described = _whole(folder, step, lambda: handler.metadata(item).tree)

    @functools.cache
    def values() -> Mapping[str, np.ndarray]:
        like = jax.tree.map(lambda leaf: np.empty(leaf.shape, leaf.dtype), described)
        asked = ocp.args.StandardRestore(like)
        restored = _whole(folder, step, lambda: handler.restore(item, args=asked))
        return traverse_util.flatten_dict(restored, sep="/")

    def stored(name: str, leaf: Any) -> StoredTensor:
        return StoredTensor(name, tuple(leaf.shape), np.dtype(leaf.dtype), lambda: values()[name])

    leaves = traverse_util.flatten_dict(described, sep="/")
    return {name: stored(name, leaf) for name, leaf in leaves.items()}


def _whole(folder: Path, step: int, read: Callable[[], _T]) -> _T:
    """Reads a part of a checkpoint, or says that it is damaged."""
    try:
        return read()
    except _READ_ERRORS as error:
        raise CheckpointError(
            f"cannot restore step {step} from {folder}: its files are damaged or of another model "
            f"({str(error).splitlines()[0][:200]}); give a new --workdir, or remove {step}/ there "
            "to fall back on a checkpoint before it, if there is one."
        ) from error


def _hashable(value: Any) -> Any:
    """A value of a JSON text as a field of a network, which is hashed."""
    if isinstance(value, list):
        return tuple(map(_hashable, value))
    if isinstance(value, dict):
        return core.FrozenDict({name: _hashable(each) for name, each in value.items()})
    return value
