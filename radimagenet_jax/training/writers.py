"""A run's figures as they come: metrics.jsonl for programs, TensorBoard events for people."""

import json
import math
from pathlib import Path
from typing import Any

from tensorboardX import SummaryWriter

from radimagenet_jax.files import replacing

METRICS = "metrics.jsonl"


def read_metrics(workdir: Path) -> list[dict[str, Any]]:
    """The rows of metrics.jsonl; a last line that a kill cut off is left out."""
    path = workdir / METRICS
    if not path.exists():
        return []
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines(keepends=True):
        if line.endswith("\n"):
            rows.append(json.loads(line))
    return rows


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
        self._file = (workdir / METRICS).open("a", encoding="utf-8")
        # purge_step hides what a killed process had written beyond the checkpoint.
        self._events = SummaryWriter(str(workdir / "tensorboard"), purge_step=resume_step + 1)

    def write(self, step: int, split: str, **figures: float | int | None) -> None:
        """Writes one row, at once."""
        finite = {
            name: None if value is None or not math.isfinite(value) else value
            for name, value in figures.items()
        }
        row = {"step": step, "split": split, **finite}
        self._file.write(json.dumps(row, allow_nan=False) + "\n")
        self._file.flush()
        for name, value in finite.items():
            if value is not None:
                self._events.add_scalar(f"{split}/{name}", value, step)

    def close(self) -> None:
        """Flushes and closes the files."""
        self._file.close()
        self._events.close()
