"""A run's figures as they come: metrics.jsonl for programs, TensorBoard events for people."""

import json
import math
import os
import socket
import struct
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.proto.summary_pb2 import Summary
from tensorboardX.record_writer import masked_crc32c

from radimagenet_jax import own_files
from radimagenet_jax.errors import DataError, cut, telling
from radimagenet_jax.files import replacing

METRICS = "metrics.jsonl"
_ROW: Mapping[str, own_files.Form] = {
    "step": int,
    "split": str,
    **{f"{name}?": own_files.NUMBER_OR_NONE for name in ("epoch", "loss", "accuracy", "auroc")},
}
_LONGEST_ROW = 2**20  # ours have some hundred bytes


def read_metrics(workdir: Path) -> list[dict[str, Any]]:
    """The rows of metrics.jsonl; a last line that a kill cut off is left out.

    Raises:
      DataError: If another line is damaged, or the file cannot be read.
    """
    path = workdir / METRICS
    if not path.exists():
        return []
    rows = []
    refused = f"{path} cannot be read"
    with telling(refused, DataError, "look at its folder"), path.open("rb") as file:
        for number, line in enumerate(iter(lambda: file.readline(_LONGEST_ROW), b""), start=1):
            if not line.endswith(b"\n") and not file.peek(1):
                break  # what a kill cut off
            try:
                rows.append(own_files.parse_json(line, _ROW))
            except ValueError as error:
                raise DataError(
                    f"{path}, line {number}, is damaged ({cut(str(error))}); remove "
                    "this line and start the command again."
                ) from error
    return rows


class SilentWriter:
    """Takes the rows of the processes whose rows another one writes."""

    def write(self, step: int, split: str, **figures: float | int | None) -> None:
        """Writes nothing."""

    def close(self) -> None:
        """Closes nothing."""


class MetricWriter:
    """Appends rows to metrics.jsonl and mirrors them to TensorBoard.

    Each row is one JSON object a line: `step`, `split` and the figures. A figure that is not
    finite is written as null, since JSON has no such numbers.
    """

    def __init__(self, workdir: Path, resume_step: int):
        """Opens the files; rows after `resume_step`, which will come again, are dropped."""
        kept = [row for row in read_metrics(workdir) if row["step"] <= resume_step]
        with replacing(workdir / METRICS) as file:
            file.writelines(json.dumps(row) + "\n" for row in kept)
        self._file = _Appended(workdir / METRICS)
        # What a killed process had written beyond the checkpoint is hidden.
        self._events = _Events(workdir / "tensorboard", resume_step + 1)

    def write(self, step: int, split: str, **figures: float | int | None) -> None:
        """Writes one row, at once.

        Raises:
          DataError: If the disk takes no more.
        """
        finite = {
            name: None if value is None or not math.isfinite(value) else value
            for name, value in figures.items()
        }
        row = {"step": step, "split": split, **finite}
        self._file.write((json.dumps(row, allow_nan=False) + "\n").encode())
        self._events.write(
            step, {f"{split}/{name}": value for name, value in finite.items() if value is not None}
        )

    def close(self) -> None:
        """Closes the files."""
        self._file.close()
        self._events.close()


class _Appended:
    """A file to which whole pieces are added, each at once: no rest is left to fail later."""

    def __init__(self, path: Path):
        self._path = path
        try:
            self._file = path.open("ab", buffering=0)
        except OSError as error:
            raise self._refused(error) from error

    def write(self, piece: bytes) -> None:
        """Writes all of it.

        Raises:
          DataError: If the disk takes no more.
        """
        try:
            while piece:  # a disk that is nearly full takes a part, and refuses at the next try
                piece = piece[self._file.write(piece) :]
        except OSError as error:
            raise self._refused(error) from error

    def close(self) -> None:
        self._file.close()

    def _refused(self, error: OSError) -> DataError:
        return DataError(
            f"{self._path} cannot be written: {error.strerror}; make room, and the same command "
            "resumes the run."
        )


class _Events:
    """A file of TensorBoard's events, which are records of TensorFlow's form.

    tensorboardX would write it in a thread, which a full disk ends with a traceback, while nobody
    else is told.
    """

    def __init__(self, folder: Path, purge_step: int):
        """Begins a file; what others of the folder have from `purge_step` on is hidden."""
        try:
            folder.mkdir(exist_ok=True)
        except OSError as error:
            raise DataError(
                f"{folder} cannot be made: {error.strerror}; make room, and the same command "
                "resumes the run."
            ) from error
        name = f"events.out.tfevents.{time.time():.0f}.{socket.gethostname()}.{os.getpid()}"
        self._file = _Appended(folder / name)
        self._add(Event(wall_time=time.time(), file_version="brain.Event:2"))
        start = SessionLog(status=SessionLog.START)
        self._add(Event(wall_time=time.time(), step=purge_step, session_log=start))

    def write(self, step: int, scalars: Mapping[str, float | int]) -> None:
        """Writes figures of a step."""
        values = [Summary.Value(tag=tag, simple_value=value) for tag, value in scalars.items()]
        self._add(Event(wall_time=time.time(), step=step, summary=Summary(value=values)))

    def _add(self, event: Any) -> None:
        content = event.SerializeToString()
        length = struct.pack("<Q", len(content))
        parts = (length, _checked(length), content, _checked(content))
        self._file.write(b"".join(parts))

    def close(self) -> None:
        self._file.close()


def _checked(content: bytes) -> bytes:
    return struct.pack("<I", masked_crc32c(content))
