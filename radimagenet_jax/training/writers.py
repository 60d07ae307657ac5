"""A run's figures as they come: metrics.jsonl for programs, TensorBoard events for people."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tensorboardX import SummaryWriter

from radimagenet_jax import own_files
from radimagenet_jax.errors import DataError, cut
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
    try:
        with path.open("rb") as file:
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
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); look at its folder.") from error
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
        # Unbuffered, so that no rest is left to fail again when the file is closed.
        self._file = (workdir / METRICS).open("ab", buffering=0)
        # purge_step hides what a killed process had written beyond the checkpoint.
        self._events = SummaryWriter(str(workdir / "tensorboard"), purge_step=resume_step + 1)

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
        rest = (json.dumps(row, allow_nan=False) + "\n").encode()
        try:
            while rest:  # a disk that is nearly full takes a part, and refuses at the next try
                rest = rest[self._file.write(rest) :]
        except OSError as error:
            raise DataError(
                f"{self._file.name} cannot be written: {error.strerror}; make room, and the same "
                "command resumes the run."
            ) from error
        for name, value in finite.items():
            if value is not None:
                self._events.add_scalar(f"{split}/{name}", value, step)

    def close(self) -> None:
        """Flushes and closes the files."""
        self._file.close()
        self._events.close()
