"""Scores in a file from which every figure can be recomputed.

The file is CSV in UTF-8 with the columns `key,patient,label,score_<class>...`, a row an image.
Scores are written with all digits of their float64 value, so that figures computed from the
file equal those computed in memory bit for bit. Texts that a spreadsheet would run as a formula
have an apostrophe in front, which is taken off again on reading.
"""

import csv
import itertools
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from radimagenet_jax import own_files
from radimagenet_jax.errors import DataError, cut
from radimagenet_jax.files import replacing
from radimagenet_jax.statistics.scores import Predictions

_FIXED = ("key", "patient", "label")
_SCORE = "score_"
# A file name need not be valid UTF-8; its stray bytes survive the way into the file and back.
STRAY_BYTES = "surrogateescape"


def write(path: Path | str, predictions: Predictions) -> None:
    """Writes predictions; the file appears whole or not at all.

    Args:
      path: The CSV file; one that exists is replaced.
      predictions: What to write.

    Raises:
      DataError: If the file cannot be written.
    """
    texts = zip(
        predictions.keys,
        predictions.patients,
        (predictions.class_names[label] for label in predictions.labels),
        strict=True,
    )
    write_table(path, _FIXED, texts, predictions.class_names, predictions.scores)


def write_table(
    path: Path | str,
    columns: Sequence[str],
    texts: Iterable[Sequence[str]],
    class_names: Sequence[str],
    scores: NDArray[np.floating],
) -> None:
    """Writes texts with scores beside them; the file appears whole or not at all.

    Args:
      path: The CSV file; one that exists is replaced.
      columns: What the texts are called.
      texts: Of each of N rows.
      class_names: Of C classes.
      scores: (N, C).

    Raises:
      DataError: If the file cannot be written.
    """
    with replacing(path, errors=STRAY_BYTES, newline="") as file:
        rows = Rows(file)
        rows.header(columns, class_names)
        rows.add(texts, scores)


class Rows:
    """Writes rows of texts, with scores beside them, into an open file."""

    def __init__(self, file: IO[str]):
        """Takes a file that was opened with `newline=""` and `errors=STRAY_BYTES`."""
        self._plain = csv.writer(file, lineterminator="\n")
        # A carriage return needs quotes, which Python's writer gives it only when it is asked.
        self._quoted = csv.writer(file, lineterminator="\n", quoting=csv.QUOTE_ALL)

    def header(self, columns: Sequence[str], class_names: Sequence[str] = ()) -> None:
        """Writes the names of the columns: of the texts, and of the scores."""
        self._write([*columns, *(_SCORE + name for name in class_names)])

    def add(
        self, texts: Iterable[Sequence[str]], scores: NDArray[np.floating] | None = None
    ) -> None:
        """Writes rows.

        Args:
          texts: Of each of N rows.
          scores: (N, C), None for rows without.
        """
        numbers = itertools.repeat([]) if scores is None else scores.tolist()
        for own, row in zip(texts, numbers, strict=scores is not None):
            self._write([*map(own_files.guarded, own), *map(repr, row)])

    def _write(self, row: Sequence[object]) -> None:
        is_quoted = any("\r" in str(text) for text in row)
        (self._quoted if is_quoted else self._plain).writerow(row)


def read(path: Path | str) -> Predictions:
    """Reads predictions, strictly.

    Args:
      path: A file that `write` wrote, or one of the same form.

    Raises:
      DataError: If the file is missing, or its header or any row is not as it must be; the
        message names the row, counted from 1 after the header.
    """
    path = Path(path)
    classes, texts, scores = read_table(path, _FIXED)
    index = {name: position for position, name in enumerate(classes)}
    labels = np.empty(len(texts), np.int64)
    for number, (_, _, label) in enumerate(texts, start=1):
        if label not in index:
            raise DataError(
                f"{path}, row {number}: the label {cut(repr(label))} has no column "
                f"{cut(repr(_SCORE + label))}; labels must be class names."
            )
        labels[number - 1] = index[label]
    keys = tuple(key for key, _, _ in texts)
    repeated = [key for key, times in Counter(keys).items() if times > 1]
    if repeated:
        raise DataError(
            f"{path}: the key {cut(repr(repeated[0]))} occurs more than once; remove one row."
        )
    return Predictions(classes, keys, tuple(patient for _, patient, _ in texts), labels, scores)


def read_table(
    path: Path, columns: Sequence[str]
) -> tuple[tuple[str, ...], list[list[str]], NDArray[np.float64]]:
    """Reads what `write_table` or `Rows` wrote, strictly.

    Args:
      path: The CSV file.
      columns: What the texts are called.

    Returns:
      C class names, the texts of each of N rows, and the scores (N, C).

    Raises:
      DataError: As `read`.
    """
    try:
        with open(path, encoding="utf-8", errors=STRAY_BYTES, newline="") as file:
            rows = list(csv.reader(file, strict=True))
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from error
    except csv.Error as error:
        raise DataError(f"{path} is not a whole CSV file ({error}); write it again.") from error
    if not rows:
        raise DataError(f"{path} is empty; write it again.")
    header, *body = ([own_files.unguarded(text) for text in row] for row in rows)
    classes = _classes(path, header, columns)
    scores = np.empty((len(body), len(classes)))
    for number, row in enumerate(body, start=1):
        if len(row) != len(header):
            raise DataError(
                f"{path}, row {number}: {len(row)} fields instead of {len(header)}; "
                "the file was cut off or edited."
            )
        scores[number - 1] = [_score(path, number, text) for text in row[len(columns) :]]
    return classes, [row[: len(columns)] for row in body], scores


def _classes(path: Path, header: Sequence[str], fixed: Sequence[str]) -> tuple[str, ...]:
    columns = header[len(fixed) :]
    if [*header[: len(fixed)]] != [*fixed] or not all(c.startswith(_SCORE) for c in columns):
        raise DataError(
            f"{path}: the header must be {','.join(fixed)},{_SCORE}<class>..., "
            f"not {cut(repr(','.join(header)))}."
        )
    classes = tuple(column.removeprefix(_SCORE) for column in columns)
    if len(classes) < 2 or len(set(classes)) != len(classes):
        raise DataError(
            f"{path}: the header must name two or more different classes, not "
            f"{cut(repr(list(classes)))}."
        )
    return classes


def _score(path: Path, number: int, text: str) -> float:
    try:
        value = float(text)
    except ValueError as error:
        raise DataError(f"{path}, row {number}: {cut(repr(text))} is not a number.") from error
    if not 0 <= value <= 1:
        raise DataError(f"{path}, row {number}: the score {cut(text)} is not in [0, 1].")
    return value
