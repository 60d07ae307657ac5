"""Computes a study, group by group, whatever happens to one of them."""

import gc
import sys
import time
from collections.abc import Sequence
from typing import Any

import jax
from ml_collections import ConfigDict

from radimagenet_jax.console import console, warn
from radimagenet_jax.data import datasets, registry
from radimagenet_jax.errors import UserError
from radimagenet_jax.models import ops
from radimagenet_jax.studies import alone, plan, record, shared
from radimagenet_jax.studies.course import Course
from radimagenet_jax.studies.images import Images, gather
from radimagenet_jax.studies.ledger import Ledger
from radimagenet_jax.studies.progress import StudyProgress
from radimagenet_jax.training import determinism, residence


def compute(
    config: ConfigDict, ledger: Ledger, groups: Sequence[plan.Group], command: Sequence[str] = ()
) -> None:
    """Computes the groups that are not done and that no other process computes.

    Each group's files are on disk before the next begins. What is wrong with a group, or a run, is
    written down with it, and the others go on.

    Args:
      config: The study's.
      ledger: Its files.
      groups: Of the study, or of a shard of it.
      command: The command line, for the page.

    Raises:
      DataError: If files of the study cannot be written.
    """
    ops.keep_compiled_programs()
    # Else tracing a network spends a fifth of its time on looking through all that is imported.
    gc.freeze()
    library = _Library(config)
    made_by = record.made_by(command)
    records = [ledger.group(group) for group in groups]
    with StudyProgress(groups, records, config.epochs) as progress:
        for group in groups:
            if ledger.is_done(group):
                continue
            with ledger.lock(group) as held:
                if not held:
                    console.print(f"{group.id}: another process computes it")
                    progress.skip(group)
                    continue
                # Another process may have finished it between the look and the lock.
                if not ledger.is_done(group):
                    progress.begin(group)
                    courses, figures = _compute(config, group, library, progress)
                    determinism.keep()
                    ledger.write_group(group, courses, {**figures, "made_by": made_by})
                    progress.end(group, figures)


def _compute(
    config: ConfigDict, group: plan.Group, library: "_Library", progress: StudyProgress
) -> tuple[list[Course], dict[str, Any]]:
    began = time.perf_counter()
    try:
        courses, figures = _train(config, group, library, progress)
    except (UserError, MemoryError, jax.errors.JaxRuntimeError) as error:
        reason = _sentence(error)
        warn(f"{group.id} failed: {reason}")
        courses = [Course(run, reason=reason) for run in group.runs]
        figures = {"status": "failed", "reason": reason, "warnings": []}
    seconds = time.perf_counter() - began
    return courses, {**figures, "seconds": round(seconds, 3), "peak_bytes": _peak_bytes()}


def _peak_bytes() -> int:
    import resource  # not on every system, and the plan of a study is shown on every one

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # macOS counts in bytes


def _train(
    config: ConfigDict, group: plan.Group, library: "_Library", progress: StudyProgress
) -> tuple[list[Course], dict[str, Any]]:
    images = library.images(group)
    single = plan.run_config(config, group.runs[0])
    positive = datasets.positive_class(
        single.dataset.positive, images.class_names, single.dataset.name
    )
    usable = [run for run in group.runs if run.fold not in images.refused]
    refused = [
        Course(run, reason=images.refused[run.fold])
        for run in group.runs
        if run.fold in images.refused
    ]
    courses: list[Course] = []
    figures: dict[str, Any] = {"warnings": []}
    if group.has_trunk and usable:
        courses, figures = shared.train(config, usable, images, positive, progress.after_epoch)
    elif usable:
        course, figures = alone.train(config, usable[0], images, positive, progress.after_epoch)
        courses = [course]
    for course in [*courses, *refused]:
        if course.reason is not None:
            warn(f"{course.run.id} failed: {course.reason}")
    # A fold that cannot be used may be mended: the group is computed again then.
    figures["status"] = "failed" if refused else "done"
    figures["warnings"] = [*images.notes, *figures["warnings"]]
    figures |= record.training(single, images, positive)
    by_run = {course.run.id: course for course in [*courses, *refused]}
    return [by_run[run.id] for run in group.runs], figures


def _sentence(error: BaseException) -> str:
    if isinstance(error, UserError):
        return str(error)
    first = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return (
        f"the machine gave up ({first}); lower config.batch_size, config.study.trunk_batch or "
        "config.study.memory_gib."
    )


class _Library:
    """The images of the task that is computed; those of the one before are let go."""

    def __init__(self, config: ConfigDict):
        self._config = config
        self._key: tuple[object, ...] = ()
        self._images: Images | None = None

    def images(self, group: plan.Group) -> Images:
        """The images of all folds that the study has of a group's task."""
        run = group.runs[0]
        single = plan.run_config(self._config, run)
        key = (single.dataset.name, single.image_size)
        if self._images is None or key != self._key:
            self._images = None
            every = self._config.study.folds or plan.folds(run.task)

            def load(fold: int) -> datasets.Dataset:
                name = registry.with_fold(single.dataset.name, fold)
                return residence.load(single, name, residence.host_bytes(single))

            self._images, self._key = gather(every, load), key
        return self._images
