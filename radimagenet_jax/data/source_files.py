"""Source files as their owners publish them: folders or zips, read where they lie.

Nothing is extracted: a zip's members are read in place, so that an archive with
hostile member names has no chance to write anywhere.
"""

import csv
import functools
import os
import re
import stat
import unicodedata
import zipfile
import zlib
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import IO, TypeVar

from radimagenet_jax.data.problems import Problems
from radimagenet_jax.errors import DataError

K = TypeVar("K", bound=Hashable)

# A member that unpacks to more than this, or a zip that unpacks to more than
# MAX_EXPANSION times its own size, is no archive of images (which hardly compress).
MAX_MEMBER_BYTES = 2**30
MAX_EXPANSION = 100
# A line with its end; `str.splitlines` knows many more ends than CSV does.
_LINE = re.compile(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+")
# A value that a message quotes is cut where it is longer than anybody reads.
_LONG_WORD = re.compile(r"(\S{100})\S{100,}")
# Columns that a message about a header names.
_HEADER_SHOWN = 12

# Small archives of text or of flat test images may compress better than MAX_EXPANSION.
MIN_SUSPICIOUS_BYTES = 64 * 2**20
# Of a text that becomes a label or a key, what is left out since nobody sees it: zero-width
# characters, direction marks, byte-order marks.
_INVISIBLE = "Cf"
_CONTROL = "Cc"

# Which files are being read, where somebody asks (`noting_files`).
_noted: ContextVar[list["FileState"] | None] = ContextVar("noted", default=None)


@dataclass(frozen=True)
class FileState:
    """A file as it was when it was read, which tells whether it has been changed since."""

    path: str
    size: int
    modified_ns: int

    @classmethod
    def of(cls, path: str | Path) -> "FileState":
        """Returns the state of a file now.

        Raises:
          OSError: If it is not there.
        """
        state = os.stat(path)
        return cls(str(path), state.st_size, state.st_mtime_ns)


@contextmanager
def noting_files() -> Iterator[list[FileState]]:
    """Notes which files are read within the block, by this thread."""
    files: list[FileState] = []
    token = _noted.set(files)
    try:
        yield files
    finally:
        _noted.reset(token)


def note_file(path: Path) -> None:
    """Notes a file that is read without a `SourceFile`."""
    if (files := _noted.get()) is not None:
        files.append(FileState.of(path))


@dataclass(frozen=True)
class SourceFile:
    """One file of a source, in a folder or in a zip.

    Attributes:
      path: Its place in the source, where a zip counts as a folder of the zip's name
        without '.zip': `Images-processed/CT_COVID.zip` holding `CT_COVID/1.png` gives
        `Images-processed/CT_COVID/CT_COVID/1.png`.
      shown: What to call it in messages: a path, or `<zip>: <member>`.
      location: The file, or the zip that holds it.
      member: The name inside the zip, None for a plain file.
    """

    path: PurePosixPath
    shown: str
    location: Path
    member: str | None = None

    @property
    def name(self) -> str:
        """The file's own name, without folders."""
        return self.path.name

    def read(self) -> bytes:
        """Returns the content.

        Raises:
          DataError: As `open` does.
        """
        with self.open() as stream:
            return stream.read()

    @contextmanager
    def open(self) -> Iterator[IO[bytes]]:
        """Opens the file for reading.

        Raises:
          DataError: If it cannot be read, or a zip's member fails its check sum; also while it is
            being read.
        """
        try:
            note_file(self.location)
            if self.member is None:
                with self.location.open("rb") as stream:
                    yield stream
                return
            state = self.location.stat()
            archive = _open_zip(self.location, state.st_mtime_ns, state.st_size)
            with archive.open(self.member) as member:
                yield member
        except OSError as error:
            raise DataError(
                f"{self.shown} cannot be read ({error.strerror or error}); "
                "check that it exists and may be read."
            ) from error
        except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
            raise DataError(
                f"{self.shown} is damaged inside its zip ({error}); download the zip again."
            ) from error


def dataset_folder(manual_dir: Path, dataset: str) -> Path:
    """Returns where a data set's manual downloads are.

    `tfds build` passes one folder for all data sets, unless it is told
    `--add_name_to_manual_dir`; this project always uses a folder for each.

    Args:
      manual_dir: `<data_dir>/downloads/manual`, or its subfolder for this data set.
      dataset: The data set's name.
    """
    own = manual_dir / dataset
    return own if own.is_dir() else manual_dir


def list_files(root: Path, refused: dict[Path, DataError] | None = None) -> tuple[SourceFile, ...]:
    """Lists every file below a folder, and every member of the zips in it.

    Links to folders are followed, each folder once. Left out is what operating systems
    add by themselves: names that begin with a dot, `__MACOSX`, `Thumbs.db`. A zip inside
    a zip is listed as a file.

    Args:
      root: The folder.
      refused: Takes what is wrong with a zip, or a folder that cannot be looked into, by its path;
        the other files are listed. Without it the first bad zip is raised.

    Returns:
      The files, sorted by path.

    Raises:
      DataError: If a zip is damaged or unsafe (see `zip_members`).
    """
    files: list[SourceFile] = []
    visited: set[str] = set()

    def unlisted(error: OSError) -> None:
        if refused is not None:
            refused[Path(error.filename)] = DataError(
                f"{error.filename} cannot be looked into ({error.strerror}); check that it may be "
                "read."
            )

    for folder, subfolders, names in os.walk(root, followlinks=True, onerror=unlisted):
        real = os.path.realpath(folder)
        if real in visited:
            subfolders.clear()
            continue
        visited.add(real)
        subfolders[:] = sorted(name for name in subfolders if not _is_clutter(name))
        for name in names:
            location = Path(folder, name)
            if _is_clutter(name):
                continue
            if location.suffix.lower() == ".zip":
                try:
                    files.extend(zip_members(location, root=root))
                except DataError as error:
                    if refused is None:
                        raise
                    refused[location] = error
            else:
                path = PurePosixPath(plain_text(location.relative_to(root).as_posix()))
                files.append(SourceFile(path, printable(str(location)), location))
    return tuple(sorted(files, key=lambda file: (file.path, file.shown)))


def zip_members(location: Path, *, root: Path) -> Iterator[SourceFile]:
    """Yields the files in a zip, once every member has been found safe.

    Args:
      location: The zip.
      root: The source's folder, to which `SourceFile.path` is relative.

    Raises:
      DataError: If the zip is damaged or encrypted, or a member would leave the
        zip's folder (absolute, `..`, a drive, a link), appears twice, or expands beyond
        all proportion. Nothing has been written then.
    """
    try:
        with zipfile.ZipFile(location) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, OSError) as error:
        raise DataError(
            f"{location} is no readable zip ({error}); download it again or unpack it "
            "yourself and remove it."
        ) from error
    folder = PurePosixPath(location.relative_to(root).with_suffix("").as_posix())
    seen: set[str] = set()
    for member in members:
        _check_member(location, member)
        if member.filename in seen:
            raise DataError(
                f"{location} holds '{member.filename}' twice; download the original zip again."
            )
        seen.add(member.filename)
    expanded = sum(member.file_size for member in members)
    if expanded > max(MIN_SUSPICIOUS_BYTES, MAX_EXPANSION * location.stat().st_size):
        raise DataError(
            f"{location} would expand to {expanded:,} bytes, more than {MAX_EXPANSION} times "
            "its size; download the original zip again."
        )
    for member in members:
        path = PurePosixPath(member.filename)
        if not member.is_dir() and not any(_is_clutter(part) for part in path.parts):
            shown = printable(f"{location}: {member.filename}")
            place = PurePosixPath(plain_text(str(folder / path)))
            yield SourceFile(place, shown, location, member.filename)


def _check_member(location: Path, member: zipfile.ZipInfo) -> None:
    name = member.filename
    # `orig_filename` still has the backslashes and null bytes that zipfile rewrites.
    original = PureWindowsPath(member.orig_filename)
    mode = member.external_attr >> 16
    if (
        ".." in PurePosixPath(name).parts
        or ".." in original.parts
        or name.startswith("/")
        or original.anchor
        or "\0" in member.orig_filename
    ):
        raise DataError(
            f"{location} is refused: its member '{name}' would be written outside the zip's own "
            "folder; download the zip from its owner again."
        )
    if stat.S_ISLNK(mode):
        raise DataError(
            f"{location} is refused: its member '{name}' is a link, not a file; download the zip "
            "from its owner again."
        )
    if member.flag_bits & 0x1:
        raise DataError(
            f"{location} is encrypted ('{name}'); unpack it yourself and remove the zip."
        )
    if member.file_size > MAX_MEMBER_BYTES:
        raise DataError(
            f"{location} is refused: its member '{name}' would expand to {member.file_size:,} "
            "bytes; download the original zip again."
        )


@functools.lru_cache(maxsize=4)
def _open_zip(location: Path, _mtime_ns: int, _size: int) -> zipfile.ZipFile:
    """Opens a zip once for all its members, since its directory may hold thousands.

    A zip that changes gets another modification time, and is opened anew.
    """
    return zipfile.ZipFile(location)


def plain_text(text: str) -> str:
    """Returns a text as what people see of it: composed (NFC), without invisible characters.

    Two labels or keys that look alike are one, whoever's keyboard or file system wrote them.
    """
    if text.isascii():
        return text
    composed = unicodedata.normalize("NFC", text)
    return "".join(letter for letter in composed if unicodedata.category(letter) != _INVISIBLE)


def printable(text: str) -> str:
    r"""Returns a text with its control characters written as escapes, such as '\x1b'."""
    return "".join(
        letter.encode("unicode_escape").decode() if unicodedata.category(letter) == _CONTROL
        or "\ud800" <= letter <= "\udfff" else letter
        for letter in text
    )  # fmt: skip


def _is_clutter(name: str) -> bool:
    return name.startswith(".") or name in {"__MACOSX", "Thumbs.db", "desktop.ini"}


def one_of_equals(found: Sequence[SourceFile], name: str) -> SourceFile:
    """Chooses among files of one name, which must not differ.

    An unpacked file goes before a zip's member: who keeps the zip beside the folder
    reads the folder, and old lists inside a zip do not disturb.

    Args:
      found: At least one file.
      name: What to call them in a message.

    Raises:
      DataError: If two of them have different content.
    """
    plain = [file for file in found if file.member is None] or list(found)
    for other in plain[1:]:
        if other.read() != plain[0].read():
            raise DataError(
                f"'{name}' is there twice with different content, as {plain[0].shown} and as "
                f"{other.shown}; remove one."
            )
    return plain[0]


def named(files: Iterable[SourceFile], name: str) -> SourceFile | None:
    """Returns the file of a name in whichever folder, None where there is none.

    Raises:
      DataError: If it is there twice and differs.
    """
    found = [file for file in files if file.name == name]
    return one_of_equals(found, name) if found else None


def grouped(
    files: Iterable[SourceFile], key: Callable[[SourceFile], K | None]
) -> dict[K, list[SourceFile]]:
    """Returns files by a key, such as an image's number; copies of an image share one.

    Args:
      files: All files of a source.
      key: Returns a file's key, None to leave the file out.
    """
    found: dict[K, list[SourceFile]] = {}
    for file in files:
        if (own := key(file)) is not None:
            found.setdefault(own, []).append(file)
    return found


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
                header = [printable(plain_text(field)).strip() for field in fields]
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
        if printable(value) == value:
            continue
        if column in columns:
            raise row.error(
                f"the column '{column}' has a control character ('{printable(value)[:80]}'); "
                "remove it."
            )
        row.values[column] = "".join(
            " " if unicodedata.category(letter) == _CONTROL else letter for letter in value
        )
    for column in columns:
        if not row[column]:
            raise row.error(f"the column '{column}' is empty; fill it or remove the row.")
    return row


def _check_header(file: SourceFile, header: list[str], columns: Sequence[str]) -> None:
    found = ", ".join(f"'{name[:40]}'" for name in header[:_HEADER_SHOWN])
    if len(header) > _HEADER_SHOWN:
        found += f" and {len(header) - _HEADER_SHOWN:,} more"
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
