"""Paths as people write them, and files that appear whole or not at all."""

import atexit
import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from radimagenet_jax.errors import ConfigError, DataError

# In bytes, of the file systems of Linux and macOS.
_LONGEST_NAME = 255
_LONGEST_PATH = 4095


@contextlib.contextmanager
def replacing(
    path: Path | str, *, errors: str = "strict", newline: str | None = "\n"
) -> Iterator[IO[str]]:
    """Opens a UTF-8 text file for writing that takes its place only when it is complete.

    The text goes to a temporary file in the same folder, is forced to the disk, and is renamed.
    After a crash, or an error inside the `with` block, the old file is untouched. One process
    at a time may write a path.

    Args:
      path: The file; its folder exists.
      errors: How characters that UTF-8 cannot hold are treated, as for `open`.
      newline: How line ends are written, as for `open`.

    Yields:
      The open file.

    Raises:
      DataError: If the file cannot be written (disk full, no permission, no such folder).
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with open(temporary, "w", encoding="utf-8", errors=errors, newline=newline) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        if isinstance(error, OSError):
            raise DataError(
                f"{path} cannot be written: {error.strerror or error}; "
                "make room, or choose a folder that can be written to."
            ) from error
        raise


def write_json(path: Path, record: Mapping[str, Any], *, indent: int = 1) -> None:
    """Writes an object as strict JSON; the file appears whole or not at all.

    Args:
      path: The file; its folder exists.
      record: Its numbers are finite.
      indent: Of a level, in spaces.

    Raises:
      DataError: If the file cannot be written.
      ValueError: If a number is not finite.
    """
    with replacing(path) as file:
        json.dump(record, file, indent=indent, allow_nan=False)
        file.write("\n")


def expanded(path: str | os.PathLike[str]) -> Path:
    """A path that a person gave, with `~` and `~name` as the home folders that they stand for.

    Shells expand them at the beginning of a word only, not in `--workdir=~/runs`, and nobody does
    in a config. Where nobody has that name the path stays as it is, as in a shell.

    Raises:
      ConfigError: If no file can have such a path.
    """
    text = os.path.expanduser(os.fspath(path))
    try:
        parts = os.fsencode(text).split(b"/")
    except UnicodeEncodeError as error:
        raise ConfigError(f"{text} cannot be a path ({error.reason}); give another.") from error
    if "\0" in text:
        raise ConfigError(f"{text} cannot be a path: it holds a NUL character; give another.")
    if max(map(len, parts)) > _LONGEST_NAME or len(text) > _LONGEST_PATH:
        raise ConfigError(
            f"{text} cannot be a path: names have {_LONGEST_NAME} bytes at most and paths "
            f"{_LONGEST_PATH}; give a shorter one."
        )
    return Path(text)


def check_output(folder: Path, flag: str) -> None:
    """Refuses an output folder that cannot be made, before hours are spent on what goes there.

    Args:
      folder: Where it will be; nothing is made yet.
      flag: That gave it, for the message.

    Raises:
      ConfigError: If a file is in its place or in that of a folder above it, or nothing can be
        written there.
    """
    nearest = next(
        (place for place in (folder, *folder.absolute().parents) if os.path.lexists(place)), folder
    )
    if not nearest.is_dir():
        raise ConfigError(f"{flag}={folder}: {nearest} is a file; give a folder, or a new name.")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise ConfigError(f"{flag}={folder}: {nearest} cannot be written to; give another folder.")


def force_to_disk(*paths: Path) -> None:
    """Returns once the disk has what was written into files, or which names a folder has.

    Raises:
      OSError: If the disk refuses.
    """
    for path in paths:
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def make_private(folder: Path) -> None:
    """Makes an output folder whose content git ignores, since it will hold patients' pictures.

    A folder with something in it stays as it is: what is beside our files may be meant for git.

    Raises:
      OSError: If it cannot be made.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if not any(folder.iterdir()):
        (folder / ".gitignore").write_text("*\n", encoding="utf-8")


def plainly_named(folder: Path) -> Path:
    r"""A way to a folder for a library that takes names for patterns.

    orbax looks for what it wrote with a pattern in which `[1]` is a class of letters, and finds
    nothing; tensorstore takes `\` for `/`. They get a link to the folder, which goes when the
    process ends.

    Args:
      folder: It exists, and its path is absolute.

    Returns:
      The folder itself, if its path has no such letters; else the link.
    """
    if not set(str(folder)) & set("[]*?\\"):
        return folder
    place = tempfile.mkdtemp(prefix="radimagenet-")
    atexit.register(shutil.rmtree, place, ignore_errors=True)
    link = Path(place, folder.name if folder.name.isalnum() else "folder")
    link.symlink_to(folder)
    return link
