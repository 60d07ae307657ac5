"""Tables and lists as their owners publish them: CSV with a header, and lines of text.

Whatever spreadsheets and systems make of a text file is read: byte-order marks, any line ends,
quoted fields, blank lines. What is wrong is said with the file and the row.
"""

import csv
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from radimagenet_jax.data.problems import Problems
from radimagenet_jax.data.source_files import SourceFile, plain_text
from radimagenet_jax.errors import DataError, cut, escaped
from radimagenet_jax.wording import some

# A line with its end; `str.splitlines` knows many more ends than CSV does.
_LINE = re.compile(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+")
# A value that a message quotes is cut where it is longer than anybody reads.
_LONG_WORD = re.compile(r"(\S{100})\S{100,}")
# Columns that a message about a header names.
_HEADER_SHOWN = 12
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def read_lines(file: SourceFile) -> list[tuple[int, str]]:
    """Reads a text file's lines that are not blank, whatever its line ends.

    Returns:
      Pairs of line number (from 1) and text without surrounding white space.

    Raises:
      DataError: If the file is unreadable or not UTF-8 (a byte-order mark is fine).
    """
    lines = _read_text(file).splitlines()
    return [(number, line.strip()) for number, line in enumerate(lines, 1) if line.strip()]


@dataclass(frozen=True)
class Row:
    """One row of a CSV file.

    Attributes:
      file: The CSV file.
      number: The line in the file where the row ends, from 1, the header included.
      values: Column name to value, both without surrounding white space.
    """

    file: SourceFile
    number: int
    values: dict[str, str]

    def __getitem__(self, column: str) -> str:
        return self.values[column]

    def error(self, problem: str) -> DataError:
        """Returns an error whose sentence begins with the file and the row."""
        shown = _LONG_WORD.sub(r"\1...", problem)
        return DataError(f"{self.file.shown}, row {self.number}: {shown}")


def read_csv(file: SourceFile, columns: Sequence[str]) -> list[Row]:
    """Reads a CSV file with a header line, see `iterate_csv`; the rows in the file's order."""
    return list(iterate_csv(file, columns))


def iterate_csv(
    file: SourceFile, columns: Sequence[str], problems: Problems | None = None
) -> Iterator[Row]:
    """Reads a CSV file with a header line row by row, whatever its length.

    A byte-order mark, any line ends, quoted fields, blank lines and further columns
    (an unnamed index among them) are fine.

    Args:
      file: The CSV file.
      columns: Names that the header must have; their values must not be empty.
      problems: Where given, takes a row with another number of fields than the header or with a
        required value empty, and the next row follows.

    Yields:
      The rows in the file's order.

    Raises:
      DataError: If a column is missing or there twice, there are no rows, or, without `problems`,
        a row is bad.
    """
    reader = csv.reader(_text_lines(file), strict=True)
    header: list[str] | None = None
    is_empty = True
    try:
        for fields in reader:
            fields = [field.strip() for field in fields]
            if not any(fields):
                continue
            if header is None:
                header = [escaped(plain_text(field).strip()) for field in fields]
                _check_header(file, header, columns)
                continue
            is_empty = False
            try:
                row = _checked_row(file, reader.line_num, header, fields, columns)
            except DataError as error:
                if problems is None:
                    raise
                problems.add(str(error))
            else:
                yield row
    except csv.Error as error:
        raise DataError(
            f"{file.shown}, row {reader.line_num}: is no valid CSV ({error}); save it as CSV again."
        ) from error
    if is_empty:
        raise DataError(f"{file.shown} has no rows; download or copy it again.")


def _checked_row(
    file: SourceFile,
    number: int,
    header: Sequence[str],
    fields: Sequence[str],
    columns: Sequence[str],
) -> Row:
    if len(fields) != len(header):
        raise DataError(
            f"{file.shown}, row {number}: has {len(fields)} fields where the header has "
            f"{len(header)}; mend the row or put quotes about its commas."
        )
    row = Row(file, number, dict(zip(header, map(plain_text, fields), strict=True)))
    for column, value in row.values.items():
        if not _CONTROL.search(value):
            continue
        if column in columns:
            raise row.error(
                f"the column '{column}' has a control character ('{cut(value, 80)}'); remove it."
            )
        row.values[column] = _CONTROL.sub(" ", value)
    for column in columns:
        if not row[column]:
            raise row.error(f"the column '{column}' is empty; fill it or remove the row.")
    return row


def _check_header(file: SourceFile, header: list[str], columns: Sequence[str]) -> None:
    found = some(header, _HEADER_SHOWN, lambda name: f"'{name[:40]}'")
    for column in columns:
        if column not in header:
            raise DataError(
                f"{file.shown} has no column '{column}' (its header has {found}); "
                "give the first line the published names, separated by commas."
            )
        if header.count(column) > 1:
            raise DataError(
                f"{file.shown} has {header.count(column)} columns named '{column}'; keep one."
            )


def _text_lines(file: SourceFile) -> Iterator[str]:
    """Yields a text file's lines with their ends, which are those that Python's csv knows."""
    with file.open() as stream:
        number = 0
        for chunk in stream:
            try:
                text = chunk.decode("utf-8-sig" if number == 0 else "utf-8")
            except UnicodeDecodeError as error:
                line = number + 1 + error.object.count(b"\r", 0, error.start)
                raise DataError(
                    f"{file.shown}, line {line}: is not UTF-8 text; save the file as UTF-8."
                ) from error
            for line_text in _LINE.findall(text):
                number += 1
                yield line_text


def _read_text(file: SourceFile) -> str:
    try:
        return file.read().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{file.shown}, line {line}: is not UTF-8 text; save the file as UTF-8."
        ) from error
