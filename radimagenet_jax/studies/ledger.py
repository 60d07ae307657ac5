"""A study's files: one config, a few files a run and one a group, and the table of all runs."""

import contextlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

from ml_collections import ConfigDict

from radimagenet_jax import locks, models, own_files
from radimagenet_jax.errors import ConfigError, DataError
from radimagenet_jax.files import expanded, make_private, replacing, write_json
from radimagenet_jax.reports import predictions, study_files
from radimagenet_jax.studies import embeddings, plan
from radimagenet_jax.studies.course import Course
from radimagenet_jax.training import config as config_pages

_GROUP = {**study_files.GROUP, "status": str, "failed": dict}
_REMEDY = "remove it, and the study's command computes the group again"
_RUN_REMEDY = "remove the file of its group in groups/ too, and the study's command makes both anew"
_STUDY_REMEDY = "remove it, and the study's command writes it again"
_FOLDERS = ("runs", "groups", "predictions", "histories", "locks")


class Ledger:
    """The working directory of a study.

    Attributes:
      path: The directory, absolute.
    """

    def __init__(self, path: str | os.PathLike[str], config: ConfigDict):
        """Creates or reopens the directory.

        Raises:
          ConfigError: If it belongs to another study, or cannot be used.
        """
        self.path = expanded(path).absolute()
        try:
            make_private(self.path)
            foreign = [e.name for e in self.path.iterdir() if e.name[0] != "."]
            if foreign and not (self.path / "study.json").exists() and "locks" not in foreign:
                raise ConfigError(
                    f"{self.path} is not empty and holds no study; give an empty or new --workdir."
                )
            for folder in _FOLDERS:
                (self.path / folder).mkdir(exist_ok=True)
        except OSError as error:
            raise ConfigError(
                f"cannot use {self.path} as the working directory: {error.strerror}; "
                "give another one with --workdir."
            ) from error
        with self._table():
            self._claim(config)
        self._check_tables(config)

    def _claim(self, config: ConfigDict) -> None:
        kept = _read_json(self.path / "study.json", {}, _STUDY_REMEDY)
        changed = [] if kept is None else _differences(config, kept)
        if changed and any(self.path.glob("runs/*.json")):
            raise ConfigError(
                f"{self.path} holds a study with another config ({'; '.join(changed)}); "
                "give another --workdir, or the config it was made with."
            )
        text = config_pages.to_json(config)
        if kept != json.loads(text):
            with replacing(self.path / "study.json") as file:
                file.write(text)

    def _check_tables(self, config: ConfigDict) -> None:
        """Refuses another table of features under the name of one whose heads are trained.

        One that lacked images has none, and may be replaced by a whole one.
        """
        digests = embeddings.digests(config)
        for group in plan.groups(config) if digests else ():
            now = digests.get((group.runs[0].task, group.runs[0].init))
            record = self.group(group)
            if now is None or record is None or record["status"] != "done":
                continue
            if record.get("features_sha256") != now:
                raise ConfigError(
                    f"{self.path} has heads on another table {group.runs[0].init!r} (sha256 "
                    f"{str(record.get('features_sha256'))[:12]}..., now {now[:12]}...); give "
                    "another --workdir, or the table that they were trained on."
                )

    @contextlib.contextmanager
    def lock(self, group: plan.Group) -> Iterator[bool]:
        """Yields whether this process now holds the group; it does until the block ends.

        The system gives the lock back when the process ends, however it ends, so that no lock is
        ever stale.
        """
        path = self.path / "locks" / f"{group.id}.lock"
        with _open(path) as file:
            yield locks.take(file.fileno(), path)

    @contextlib.contextmanager
    def _table(self) -> Iterator[None]:
        path = self.path / "locks" / "table.lock"
        with _open(path) as file:
            locks.take(file.fileno(), path, wait=True)
            yield

    def is_done(self, group: plan.Group) -> bool:
        """Whether a group has been computed; one that failed as a whole is tried again."""
        record = self.group(group)
        return record is not None and record["status"] == "done"

    def group(self, group: plan.Group) -> dict[str, Any] | None:
        """What is known of a group that has been computed, or of its failure."""
        path = self.path / "groups" / f"{group.id}.json"
        return _read_json(path, _GROUP, _REMEDY)

    def write_group(
        self, group: plan.Group, courses: Sequence[Course], figures: Mapping[str, Any]
    ) -> None:
        """Writes each run's files, and last the group's, whose presence says that it is done.

        Args:
          group: Which.
          courses: How its runs went.
          figures: With 'seconds', 'status' and whatever else is to be kept.

        Raises:
          DataError: If the disk takes no more.
        """
        seconds = figures["seconds"] / len(courses)
        for course in courses:
            self._write_run(course, seconds)
        record = {
            "group": group.id,
            "shared_trunk": group.has_trunk,
            "runs": [course.run.id for course in courses],
            "failed": {c.run.id: c.reason for c in courses if c.reason is not None},
            **figures,
        }
        write_json(self.path / "groups" / f"{group.id}.json", record)

    def _write_run(self, course: Course, seconds: float) -> None:
        run = course.run
        for split, scored in course.scored.items():
            predictions.write(study_files.predictions_path(self.path, run.id, split), scored)
        write_json(study_files.history_path(self.path, run.id), {"epochs": course.history})
        values = {
            **run.columns,
            "auroc_val": course.aurocs.get("val"),
            "auroc_test": course.aurocs.get("test"),
            "best_epoch": course.best_epoch,
            "seconds": round(seconds, 3),
            "status": "ok" if course.reason is None else "failed",
            "reason": course.reason or "",
            "run": run.id,
        }
        row = {name: values[name] for name in study_files.COLUMNS}
        write_json(self.path / "runs" / f"{run.id}.json", row)

    def write_table(self, runs: Sequence[plan.Run]) -> list[dict[str, Any]]:
        """Writes study.csv from the runs' files, in the study's order; returns its rows."""
        rows = []
        with self._table():
            for run in runs:
                path = self.path / "runs" / f"{run.id}.json"
                row = _read_json(path, study_files.RUN, _RUN_REMEDY)
                if row is not None:
                    rows.append(row)
            study_files.write_table(self.path / study_files.TABLE, study_files.COLUMNS, rows)
        return rows


def _differences(config: ConfigDict, kept: dict[str, Any]) -> list[str]:
    # Options of a network that is not in the study are read by nothing.
    unread = tuple(
        f"study.model_options.{name}." for name in models.names() if name not in config.study.models
    )
    found = config_pages.differences(config, kept, plan.ALL_FIELDS)
    return [text for text in found if not text.startswith(unread)]


def _open(path: Path) -> TextIO:
    try:
        return path.open("a")
    except OSError as error:
        raise DataError(
            f"{path} cannot be written: {error.strerror}; make room, or choose a folder that can "
            "be written to."
        ) from error


def _read_json(
    path: Path, fields: Mapping[str, own_files.Form], remedy: str
) -> dict[str, Any] | None:
    return own_files.read_json(path, fields, remedy) if path.exists() else None
