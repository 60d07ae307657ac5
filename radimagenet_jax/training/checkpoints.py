"""Checkpoints of a run: the latest states to resume from, and the best to ship.

Two orbax managers under `checkpoints/`: `latest` holds whole training states, `best` the
parameters and statistics with the lowest validation loss. A save is atomic (orbax writes
into a temporary folder and renames it), so a kill or a full disk leaves the one before.
"""

import contextlib
import logging
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from radimagenet_jax.errors import CheckpointError
from radimagenet_jax.training.state import TrainState

PyTree = Any

_KEPT = 2  # the newest, and one to fall back on if its files are damaged later
_SPARE = 1.05  # what a checkpoint takes on disk, relative to its arrays


class Checkpoints:
    """Reads and writes a run's checkpoints.

    Attributes:
      folder: `<workdir>/checkpoints`.
    """

    def __init__(self, workdir: Path):
        self.folder = workdir.absolute() / "checkpoints"
        self._latest = self._manager("latest", _KEPT)
        self._best = self._manager("best", 1)

    def _manager(self, name: str, keep: int) -> ocp.CheckpointManager:
        # Synchronous: a step's successor may only be drawn once the step is on disk.
        options = ocp.CheckpointManagerOptions(
            max_to_keep=keep, enable_async_checkpointing=False, cleanup_tmp_directories=True
        )
        return ocp.CheckpointManager(self.folder / name, options=options)

    def latest_step(self) -> int | None:
        """Number of steps taken in the newest state, or None before the first save."""
        return self._latest.latest_step()

    def save(self, state: TrainState, meta: dict[str, Any]) -> None:
        """Saves a training state and what the host keeps beside it.

        Raises:
          CheckpointError: If the disk is full or cannot be written; older checkpoints stay.
        """
        self._save(self._latest, int(state.step), state, meta)

    def save_best(self, step: int, variables: dict[str, PyTree], meta: dict[str, Any]) -> None:
        """Saves {'params', 'batch_stats'} with the lowest validation loss so far.

        Raises:
          CheckpointError: If the disk is full or cannot be written; the former best stays.
        """
        if step in self._best.all_steps():
            # A killed run was resumed from before this step and has come to it again; its
            # values are the same bit for bit.
            return
        self._save(self._best, step, variables, meta)

    def _save(
        self, manager: ocp.CheckpointManager, step: int, tree: PyTree, meta: dict[str, Any]
    ) -> None:
        needed = int(_SPARE * sum(leaf.nbytes for leaf in jax.tree.leaves(tree)))
        free = shutil.disk_usage(self.folder).free
        if free < needed:
            raise self._full(step, f"{needed / 2**20:,.0f} MiB needed, {free / 2**20:,.0f} free")
        arguments = ocp.args.Composite(
            state=ocp.args.StandardSave(tree), meta=ocp.args.JsonSave(meta)
        )
        try:
            with _quiet():
                manager.save(step, args=arguments, force=True)
                manager.wait_until_finished()
        except (OSError, ValueError, RuntimeError) as error:
            # tensorstore reports what the file system said as a ValueError or RuntimeError.
            for half_written in Path(manager.directory).glob(f"{step}.orbax-checkpoint-tmp*"):
                shutil.rmtree(half_written, ignore_errors=True)
            raise self._full(step, str(error).splitlines()[0][:200]) from error

    def _full(self, step: int, why: str) -> CheckpointError:
        kept = self.latest_step()
        still = f"step {kept} is still there to resume from" if kept is not None else "none is kept"
        return CheckpointError(
            f"cannot write the checkpoint of step {step} into {self.folder} ({why}): {still}; "
            "free some space and run the same command again."
        )

    def restore(self, like: TrainState) -> tuple[TrainState, dict[str, Any]]:
        """Restores the newest training state.

        Args:
          like: A state of the same structure; the restored arrays take its shapes, dtypes and
            shardings, so the number of devices may have changed.

        Returns:
          The state, and what was saved beside it.

        Raises:
          CheckpointError: If it does not fit the run or its files are damaged.
        """
        return self._restore(self._latest, like)

    def restore_best(self, like: dict[str, PyTree]) -> tuple[dict[str, PyTree], dict[str, Any]]:
        """Restores the best parameters and statistics, as `restore` does.

        Raises:
          CheckpointError: If there are none, or their files are damaged.
        """
        return self._restore(self._best, like)

    def best_meta(self) -> dict[str, Any]:
        """What was saved beside the best parameters.

        Raises:
          CheckpointError: If there are none.
        """
        step = self._best.latest_step()
        if step is None:
            raise CheckpointError(
                f"there is no checkpoint in {self._best.directory}; let the run finish an epoch."
            )
        return self._best.restore(step, args=ocp.args.Composite(meta=ocp.args.JsonRestore()))[
            "meta"
        ]

    def _restore(self, manager: ocp.CheckpointManager, like: Any) -> tuple[Any, dict[str, Any]]:
        step = manager.latest_step()
        if step is None:
            raise CheckpointError(f"there is no checkpoint in {manager.directory}.")
        abstract = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding), like
        )
        arguments = ocp.args.Composite(
            state=ocp.args.StandardRestore(abstract), meta=ocp.args.JsonRestore()
        )
        try:
            restored = manager.restore(step, args=arguments)
        except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
            raise CheckpointError(
                f"cannot restore step {step} from {manager.directory}: its files are damaged or of "
                f"another model ({str(error).splitlines()[0][:200]}); remove {step}/ there to "
                "fall back on the checkpoint before it, if there is one."
            ) from error
        return restored["state"], restored["meta"]

    def close(self) -> None:
        """Waits for what is being written and frees the managers."""
        self._latest.close()
        self._best.close()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps orbax's threads from logging tracebacks of errors that we tell in a sentence."""
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)
