"""A run's working directory: its best network, with its contract and the run's config.

A run may be training at this moment, so its folder is only read: `checkpoints/<step>/` appears
under its name when it is whole, and what is being written beside it is left alone.
"""

import contextlib
import functools
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import NoneType
from typing import Any, TypeVar

import numpy as np
from flax import core, traverse_util

from radimagenet_jax import own_files
from radimagenet_jax.errors import CheckpointError, ConfigError, cut
from radimagenet_jax.files import plainly_named
from radimagenet_jax.weights import native
from radimagenet_jax.weights.contract import Contract
from radimagenet_jax.weights.opened import Opened, StoredTensor
from radimagenet_jax.weights.usage import Usage

# The fields of a run's config that are used.
_CONFIG: Mapping[str, own_files.Form] = {
    "image_size": int,
    "dtype": str,
    "model_options": dict,
    "dataset?": {"positive?": str},
}
# Of its result, if there is one; earlier versions did not write it.
_RESULT: Mapping[str, own_files.Form] = {"positive?": str}

# What is kept beside each network.
KEPT: Mapping[str, own_files.Form] = {"best_step": (int, NoneType)}

# Bytes: more than any network and its states; only a damaged description has it.
_LARGEST = 2**33

_T = TypeVar("_T")


def is_run(folder: Path) -> bool:
    """Tells whether a folder is the working directory of a run."""
    return (folder / "config.json").is_file() and not native.is_converted(folder)


def check_finished(folder: Path) -> None:
    """Refuses what is no finished run, whose network may still become another.

    Raises:
      ConfigError: If the folder holds no run, or one that is not finished.
    """
    if not is_run(folder):
        raise ConfigError(f"{folder} holds no run: it has no config.json; give a run's --workdir.")
    if not (folder / "result.json").is_file():
        raise ConfigError(
            f"the run in {folder} is not finished: it has no result.json; give its command again "
            f"to finish it, or take its best network so far with --weights={folder}."
        )


def recognises(path: Path, start: bytes) -> bool:
    """Tells whether a path is the working directory of a run."""
    del start
    return is_run(path)


def data_fingerprint(path: Path) -> str:
    """The fingerprint of the data set that a run was trained on, see `data.datasets.Dataset`.

    Args:
      path: The run's working directory.

    Raises:
      CheckpointError: If there is no best checkpoint, or it is damaged.
    """
    folder = path.absolute() / "checkpoints"
    return _meta_of(_best(folder)[1], folder, data=str)["data"]


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
    if "config" in meta:  # the same, under the checkpoint's digests
        config = _checked(meta["config"], path / "config.json")
    contract = Contract.from_json(meta["contract"], name=f"{path}: contract")
    if contract.labels is None:
        raise ConfigError(f"{path}: the checkpoint names no classes; train the run again.")
    options = {
        name: _hashable(value)
        for name, value in config["model_options"].items()
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
        usage=_usage(path, config, contract),
    )


def _usage(path: Path, config: Mapping[str, Any], contract: Contract) -> Usage:
    """How a run's network is used, as far as its config and result say it."""
    names, page = contract.labels or (), path / "result.json"
    result = {}
    if page.is_file():
        result = own_files.read_json(page, _RESULT, "train the run again", ConfigError)
    said = result.get("positive") or config.get("dataset", {}).get("positive") or ""
    positive = said if said in names else names[-1]
    return Usage(config["image_size"], positive, dtype=config["dtype"])


def _config(page: Path) -> dict[str, Any]:
    return _checked(own_files.read_json(page, {}, "give a run's --workdir", ConfigError), page)


def _checked(config: Any, page: Path) -> dict[str, Any]:
    """A run's config, whose fields that are used are what they must be."""
    try:
        own_files.check(config, _CONFIG)
        Usage(config["image_size"], dtype=config["dtype"])
    except ValueError as error:
        raise ConfigError(
            f"{page} is not a run's config ({error}); train the run again."
        ) from error
    return config


def _best(folder: Path) -> tuple[int, dict[str, Any]]:
    """Returns the best checkpoint, as the newest names it, and what was kept beside it."""
    # Only who gives a run pays for the import.
    import orbax.checkpoint as ocp

    def meta(step: int) -> dict[str, Any]:
        handler = ocp.JsonCheckpointHandler()
        item = folder / str(step) / "meta"
        read = functools.partial(handler.restore, item, args=ocp.args.JsonRestore())
        return _whole(folder, step, "meta", read)

    steps = ocp.utils.checkpoint_steps(folder) if folder.is_dir() else []
    best = best_step(folder, _meta_of(meta(max(steps)), folder) if steps else None)
    return best, _meta_of(meta(best), folder, contract=str)


def _meta_of(meta: Any, folder: Path, **fields: own_files.Form) -> dict[str, Any]:
    try:
        own_files.check(meta, {**KEPT, **fields})
    except ValueError as error:
        raise CheckpointError(
            f"what was kept beside a checkpoint in {folder} is damaged ({error}); train the run "
            "again."
        ) from error
    return meta


def _tensors(folder: Path, step: int) -> dict[str, StoredTensor]:
    import orbax.checkpoint as ocp

    item = plainly_named(folder) / str(step) / "network"
    handler = ocp.StandardCheckpointHandler()
    leaves = _whole(folder, step, "network", lambda: _leaves(handler.metadata(item).tree))

    @functools.cache
    def values() -> Mapping[str, np.ndarray]:
        flat = {name: np.empty(leaf.shape, leaf.dtype) for name, leaf in leaves.items()}
        like = traverse_util.unflatten_dict(flat, sep="/")
        asked = ocp.args.StandardRestore(like)
        read = functools.partial(handler.restore, item, args=asked)
        restored = _whole(folder, step, "network", read)
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


def _whole(folder: Path, step: int, part: str, read: Callable[[], _T]) -> _T:
    """Reads a part of a checkpoint, or says that it is damaged or was replaced meanwhile."""
    before = _steps(folder)
    try:
        damage = own_files.damage(folder / str(step), part)
        if damage:
            raise ValueError(damage)
        return read()
    # Orbax, tensorstore and zstd raise errors of many kinds on files that were cut.
    except Exception as error:
        if _steps(folder) != before:
            raise CheckpointError(
                f"the run in {folder.parent} is training, and saved another step while step {step} "
                "was being read; run the same command again."
            ) from error
        raise damaged(folder, step, error) from error


def best_step(folder: Path, newest: Mapping[str, Any] | None) -> int:
    """The step with the lowest validation loss, by what was kept beside the newest checkpoint.

    Raises:
      CheckpointError: If there is none.
    """
    best = newest["best_step"] if newest else None
    if best is None:
        raise CheckpointError(
            f"there is no checkpoint of a whole epoch in {folder}; let the run finish one."
        )
    return best


def damaged(folder: Path, step: int, why: str | Exception) -> CheckpointError:
    """The refusal of a checkpoint whose files are not those that were written."""
    return CheckpointError(
        f"cannot restore step {step} from {folder}: its files are damaged or of another model "
        f"({cut(str(why) or type(why).__name__, 200)}); give a new --workdir, or "
        f"remove {step}/ there to fall back on a checkpoint before it, if there is one."
    )


def _steps(folder: Path) -> set[str]:
    """The checkpoints that are there, or half removed."""
    return {path.name for path in folder.glob("[0-9]*") if path.name.isdigit()}


def _hashable(value: Any) -> Any:
    """A value of a JSON text as a field of a network, which is hashed."""
    if isinstance(value, list):
        return tuple(map(_hashable, value))
    if isinstance(value, dict):
        return core.FrozenDict({name: _hashable(each) for name, each in value.items()})
    return value
