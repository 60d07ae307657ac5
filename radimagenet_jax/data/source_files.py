"""Source files as their owners publish them: folders or zips, read where they lie.

Nothing is extracted: a zip's members are read in place, so that an archive with
hostile member names has no chance to write anywhere.
"""

import functools
import os
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

from radimagenet_jax.errors import DataError, escaped

K = TypeVar("K", bound=Hashable)

# A member that unpacks to more than this, or a zip that unpacks to more than
# MAX_EXPANSION times its own size, is no archive of images (which hardly compress).
MAX_MEMBER_BYTES = 2**30
MAX_EXPANSION = 100
# Small archives of text or of flat test images may compress better than MAX_EXPANSION.
MIN_SUSPICIOUS_BYTES = 64 * 2**20
# Of a text that becomes a label or a key, what is left out since nobody sees it: zero-width
# characters, direction marks, byte-order marks.
_INVISIBLE = "Cf"

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

    @classmethod
    def at(cls, path: Path) -> "SourceFile":
        """Returns a plain file that is no part of a larger source."""
        return cls(PurePosixPath(path.name), str(path), path)

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
                files.append(SourceFile(path, escaped(str(location)), location))
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
            shown = escaped(f"{location}: {member.filename}")
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
