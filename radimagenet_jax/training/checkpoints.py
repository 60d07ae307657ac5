"""Checkpoints of a run: the newest states to resume from, and the best network to ship.

Each is one folder `checkpoints/<step>/` with the network (parameters and statistics as they are
evaluated), the rest of the training state, and what the host keeps beside it. It is written in the
background; a folder appears under its name only when it is whole, so a kill or a full disk leaves
the ones before. Kept are the two newest, and the one with the lowest validation loss.

With it are the digests of its files, which are compared before anything is restored: orbax does
not notice every flipped bit. Checkpoints of earlier versions have none, and are taken as they are.
"""

import contextlib
import functools
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import jax
import orbax.checkpoint as ocp

from radimagenet_jax import own_files
from radimagenet_jax.console import hushed, warn
from radimagenet_jax.errors import CheckpointError, UserError
from radimagenet_jax.files import plainly_named
from radimagenet_jax.models import ops
from radimagenet_jax.training import distributed, freezing
from radimagenet_jax.training.state import TrainState, copied
from radimagenet_jax.weights import run

PyTree = Any

_KEPT = 2  # the newest, and one to fall back on if its files are damaged later
_SPARE = 1.05  # what a checkpoint takes on disk, relative to its arrays
# What orbax and tensorstore raise on a file system's refusal.
_WRITE_ERRORS = (OSError, ValueError, RuntimeError)


class Checkpoints:
    """Reads and writes a run's checkpoints.

    Attributes:
      folder: `<workdir>/checkpoints`.
    """

    def __init__(self, workdir: Path):
        self.folder = workdir.absolute() / "checkpoints"
        # What is kept is decided here: orbax would judge a save that has not ended.
        options = ocp.CheckpointManagerOptions(
            max_to_keep=None,
            cleanup_tmp_directories=True,
            # Of the one process that gives a checkpoint its name, just before it does.
            async_options=ocp.AsyncOptions(post_finalization_callback=self._write_digests),
        )
        self._manager = ocp.CheckpointManager(
            plainly_named(workdir.absolute()) / "checkpoints", options=options
        )
        self._best: int | None = None  # of the latest save
        self._pending: int | None = None

    def _write_digests(self) -> None:
        for whole in self.folder.glob(f"{self._pending}.orbax-checkpoint-tmp*"):
            own_files.write_digests(whole)

    def latest_step(self) -> int | None:
        """Number of steps taken in the newest whole state, or None before the first."""
        return max(
            (step for step in self._manager.all_steps() if step != self._pending), default=None
        )

    def save(self, state: TrainState, meta: Mapping[str, Any], best_step: int | None) -> None:
        """Begins to save a training state, once the save before has ended.

        Args:
          state: The state; its arrays may be donated as soon as this returns.
          meta: What the host keeps beside it, as JSON.
          best_step: The checkpoint with the lowest validation loss so far, perhaps this one.

        Raises:
          CheckpointError: If the disk is full or cannot be written, for this save or the one
            before; older checkpoints stay.
        """
        self.wait()
        step = int(state.step)
        if step in self._manager.all_steps():
            return  # a resumed run asks again for what it was resumed from
        items = _items(state)
        needed = int(_SPARE * sum(leaf.nbytes for leaf in jax.tree.leaves(items)))
        free = shutil.disk_usage(self.folder).free
        if free < needed:
            raise self._full(step, f"{needed / 2**20:,.0f} MiB needed, {free / 2**20:,.0f} free")
        if ops.computes_on_host():
            # What orbax reads in the background is here the very memory that the next step takes.
            items = copied(items)
        kept = {**meta, "best_step": best_step}
        saved = {name: ocp.args.StandardSave(tree) for name, tree in items.items()}
        self._pending, self._best = step, best_step
        with self._telling_of_failure(), hushed("absl"):
            self._manager.save(
                step, args=ocp.args.Composite(**saved, meta=ocp.args.JsonSave(kept)), force=True
            )

    def wait(self) -> None:
        """Waits for the save in the background, then removes what is no longer kept.

        Raises:
          CheckpointError: If that save failed.
        """
        if self._pending is None:
            return
        with self._telling_of_failure(), hushed("absl"):
            self._manager.wait_until_finished()
            self._manager.check_for_errors()
        self._pending = None
        steps = sorted(self._manager.all_steps())
        for old in set(steps[:-_KEPT]) - {self._best}:
            self._manager.delete(old)

    @contextlib.contextmanager
    def _telling_of_failure(self) -> Iterator[None]:
        step = self._pending
        try:
            yield
        except _WRITE_ERRORS as error:
            for half_written in self.folder.glob(f"{step}.orbax-checkpoint-tmp*"):
                shutil.rmtree(half_written, ignore_errors=True)
            shutil.rmtree(self.folder / str(step), ignore_errors=True)
            # The manager counts the failed save among its steps until it looks again.
            self._manager.reload()
            self._pending = None
            raise self._full(step, str(error).splitlines()[0][:200]) from error

    def _full(self, step: int | None, why: str) -> CheckpointError:
        kept = self.latest_step()
        still = f"step {kept} is still there to resume from" if kept is not None else "none is kept"
        return CheckpointError(
            f"cannot write the checkpoint of step {step} into {self.folder} ({why}): {still}; "
            "free some space and run the same command again."
        )

    def restore(
        self, like: TrainState, kept: Mapping[str, own_files.Form] = MappingProxyType({})
    ) -> tuple[TrainState, dict[str, Any]]:
        """Restores the newest training state, or with a warning the one before if it is damaged.

        Processes of one run all restore the same, though only one of them may meet the damage.

        Args:
          like: A state of the same structure; the restored arrays take its shapes, dtypes and
            shardings, so the number of devices may have changed.
          kept: The form of what was saved beside it.

        Returns:
          The state, and what was saved beside it.

        Raises:
          CheckpointError: If none fits the run, or all files are damaged.
          ConfigError: If the processes of the run see other checkpoints.
        """
        self.wait()
        steps = sorted(self._manager.all_steps(), reverse=True)
        distributed.agree({f"list of checkpoints in {self.folder}": str(steps)})
        if not steps:
            raise CheckpointError(f"there is no checkpoint in {self.folder}.")
        first: UserError | None = None
        for place, step in enumerate(steps):
            read = functools.partial(self._read, step, _items(like), kept)
            try:
                # In two parts: while orbax restores, processes wait for each other.
                distributed.all_or_none(functools.partial(self._check_files, step))
                items, meta = distributed.all_or_none(read)
            except UserError as error:
                first = first or error
                continue
            if place:
                self._set_aside(steps[:place], step)
            self._best = meta["best_step"]
            self._look_at_best(step)
            return _state(items, like), meta
        raise first or AssertionError("a step that is neither restored nor refused.")

    def _set_aside(self, damaged: Sequence[int], step: int) -> None:
        """Frees the names of damaged checkpoints, whose files may still be of use to somebody."""

        def rename() -> bool:
            for each in damaged:
                aside = self.folder / f"damaged-{each}"
                shutil.rmtree(aside, ignore_errors=True)  # of an earlier fall-back
                (self.folder / str(each)).rename(aside)
            return True

        distributed.lead_first(rename, lambda: True)
        self._manager.reload()
        for each in damaged:
            warn(
                f"the checkpoint of step {each} in {self.folder} is damaged and was set aside as "
                f"damaged-{each}/, which you may remove; the run goes on from step {step}."
            )

    def _look_at_best(self, step: int) -> None:
        """Says in time that a run may end without the network that it has chosen so far."""
        best = self._best
        if best is None or best == step:
            return
        is_there = best in self._manager.all_steps()
        damage = own_files.damage(self.folder / str(best)) if is_there else "it is missing"
        if damage:
            warn(
                f"the best network so far, that of step {best} in {self.folder}, is damaged "
                f"({damage}); the run goes on, and can only be finished if a later epoch is "
                "better: otherwise start it anew with another --workdir."
            )

    def restore_best(self, like: dict[str, PyTree]) -> tuple[dict[str, PyTree], dict[str, Any]]:
        """Restores {'params', 'batch_stats'} with the lowest validation loss.

        Args:
          like: Arrays, or their shapes with shardings, of the same structure.

        Returns:
          The network, and what was saved beside it.

        Raises:
          CheckpointError: If there is none, or its files are damaged.
        """
        items, meta = self._restore(self._best_step(), {"network": like})
        return items["network"], meta

    def _best_step(self) -> int:
        self.wait()
        newest = self._manager.latest_step()
        return run.best_step(self.folder, None if newest is None else self._restore(newest, {})[1])

    def _restore(
        self, step: int, items: Mapping[str, PyTree]
    ) -> tuple[dict[str, PyTree], dict[str, Any]]:
        self._check_files(step)
        return self._read(step, items)

    def _check_files(self, step: int) -> None:
        damage = own_files.damage(self.folder / str(step))
        if damage:
            raise run.damaged(self.folder, step, damage)

    def _read(
        self,
        step: int,
        items: Mapping[str, PyTree],
        kept: Mapping[str, own_files.Form] = MappingProxyType({}),
    ) -> tuple[dict[str, PyTree], dict[str, Any]]:
        asked = {
            name: ocp.args.StandardRestore(
                jax.tree.map(
                    lambda leaf: jax.ShapeDtypeStruct(
                        leaf.shape, leaf.dtype, sharding=leaf.sharding
                    ),
                    tree,
                )
            )
            for name, tree in items.items()
        }
        try:
            with hushed("absl"):
                restored = self._manager.restore(
                    step, args=ocp.args.Composite(**asked, meta=ocp.args.JsonRestore())
                )
            meta = restored["meta"]
            own_files.check(meta, {**run.KEPT, **kept})
            return {name: restored[name] for name in items}, meta
        # Orbax, tensorstore and zstd raise errors of many kinds on files that were cut,
        # overwritten or removed. They all mean that the checkpoint is of no use.
        except Exception as error:
            raise run.damaged(self.folder, step, error) from error

    def close(self) -> None:
        """Waits for what is being written and frees the manager.

        Raises:
          CheckpointError: If the last save failed.
        """
        try:
            self.wait()
        finally:
            self._manager.close()


def _items(state: TrainState) -> dict[str, PyTree]:
    """What a checkpoint holds: the network to evaluate, and what training needs besides."""
    training = {"step": state.step, "opt_state": state.opt_state}
    if state.ema is not None:
        # The network has the moving average in their place.
        training["learnt"] = freezing.select(state.ema, state.params)
    return {"network": state.weights(), "training": training}


def _state(items: Mapping[str, PyTree], like: TrainState) -> TrainState:
    """The state that `_items` took apart."""
    network, training = items["network"], items["training"]
    params, ema = network["params"], None
    if like.ema is not None:
        ema = freezing.select(like.ema, params)
        params = freezing.merge(training["learnt"], params)
    return like.replace(
        step=training["step"],
        params=params,
        batch_stats=network["batch_stats"],
        opt_state=training["opt_state"],
        ema=ema,
    )
