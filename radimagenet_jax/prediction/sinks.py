"""Where results go: each sink takes batch after batch, and leaves its file when all are there."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from radimagenet_jax.data import features_file
from radimagenet_jax.data.inputs import Failure
from radimagenet_jax.prediction.flow import Batch
from radimagenet_jax.prediction.journal import Journal
from radimagenet_jax.reports.predictions import Rows

SCORES, FEATURES, ERRORS = "predictions.csv", "features.npz", "errors.csv"
# Columns before the scores; in those of a table with labels, all of these.
_CALLED = ("key", "prediction")
LABELLED = (*_CALLED, "label", "patient")
ERROR_COLUMNS = ("key", "path", "problem")


class Sink(Protocol):
    """What is done with images and their outputs, such as writing rows or pictures.

    What it writes through `Journal.open` is cut on resuming to what was noted. A sink that writes
    a file an image needs nothing of the kind: the same images come again, with the same keys.
    """

    def add(self, batch: Batch) -> None:
        """Takes a batch; batches come in the order of the images."""

    def finish(self, output: Path) -> None:
        """Leaves the result in the output folder, once every batch was taken."""


class Scores:
    """predictions.csv: key, prediction, what a table says of the image, a score for each class."""

    def __init__(self, journal: Journal, class_names: Sequence[str], columns: Sequence[str]):
        """Opens the rows.

        Args:
          journal: Of the output.
          class_names: Of the network.
          columns: Fields of `Entry` that are written: of 'label' and 'patient'.
        """
        self._names, self._columns = class_names, columns
        self._path = journal.folder / SCORES
        file, is_new = journal.open(SCORES)
        self._file, self._rows = file, Rows(file)
        if is_new:
            self._rows.header((*_CALLED, *columns), class_names)

    def add(self, batch: Batch) -> None:
        """Writes a row an image."""
        scores = batch.outputs["scores"]
        called = scores.argmax(axis=-1).tolist()
        texts = [
            (key, self._names[best], *(getattr(entry, name) for name in self._columns))
            for key, best, entry in zip(batch.keys, called, batch.entries, strict=True)
        ]
        self._rows.add(texts, scores)

    def finish(self, output: Path) -> None:
        """Leaves predictions.csv."""
        self._file.close()
        self._path.replace(output / SCORES)


class Errors:
    """errors.csv: key, path and problem of all that could not be scored; none without any."""

    def __init__(self, journal: Journal):
        """Opens the rows; `is_new` tells whether there are none yet."""
        self._path = journal.folder / ERRORS
        self._file, self.is_new = journal.open(ERRORS)
        self._rows = Rows(self._file)
        if self.is_new:
            self._rows.header(ERROR_COLUMNS)

    def add(self, failures: Sequence[Failure]) -> None:
        """Writes a row a failure."""
        # One line each, so that a person finds a file's line.
        self._rows.add([
            (one.key, one.path, " ".join(one.problem.split())) for one in failures
        ])  # fmt: skip

    def finish(self, output: Path, count: int) -> None:
        """Leaves errors.csv, or, if there are none, takes an earlier one away."""
        self._file.close()
        if count:
            self._path.replace(output / ERRORS)
        else:
            (output / ERRORS).unlink(missing_ok=True)


class Features:
    """features.npz: keys, pooled features and their digest."""

    def __init__(self, journal: Journal):
        """Opens the keys and the numbers, which grow side by side."""
        self._keys, _ = journal.open("keys.jsonl")
        self._pooled, _ = journal.open("pooled.f32", text=False)
        self._folder = journal.folder

    def add(self, batch: Batch) -> None:
        """Writes an image's features."""
        self._keys.writelines(f"{json.dumps(key)}\n" for key in batch.keys)
        self._pooled.write(np.ascontiguousarray(batch.outputs["pooled"], "<f4").tobytes())

    def finish(self, output: Path) -> None:
        """Leaves features.npz."""
        self._keys.close()
        self._pooled.close()
        with (self._folder / "keys.jsonl").open(encoding="utf-8") as file:
            keys = [str(json.loads(line)) for line in file]
        path = self._folder / "pooled.f32"
        if len(keys):
            # The file is the memory: features of a million images need none of it.
            pooled = np.memmap(path, "<f4", "r").reshape(len(keys), -1)
        else:
            pooled = np.empty((0, 0), "<f4")
        features_file.write(output / FEATURES, keys, pooled)
