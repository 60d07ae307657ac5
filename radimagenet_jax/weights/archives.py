"""Opens the zip archives that Keras and PyTorch write, without extracting them."""

import contextlib
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast

from radimagenet_jax.errors import WeightsError

SIGNATURE = b"PK\x03\x04"

# Four times the largest released network; beyond it a member is no weight file of ours.
_LARGEST = 1 << 30

_ENCRYPTED = 0x1


@contextlib.contextmanager
def open_archive(path: Path) -> Iterator[zipfile.ZipFile]:
    """Opens a zip archive.

    Args:
      path: The file.

    Yields:
      The archive, whose members' sizes, names and flags are plausible.

    Raises:
      WeightsError: If it is truncated or damaged, also where that shows only while a
        member is read within the context.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            _check_members(archive, path)
            yield archive
    except (
        zipfile.BadZipFile,
        zlib.error,
        EOFError,
        NotImplementedError,
        RuntimeError,
        OSError,
    ) as error:
        raise WeightsError(
            f"{path} is truncated or damaged and cannot be read as a zip archive ({error}); get "
            "it again and compare its size and checksum with its source's."
        ) from error


def members(path: Path, start: bytes) -> list[str]:
    """Names of a zip archive's members; none of a file whose first bytes are another form's.

    Raises:
      WeightsError: If the archive is truncated or damaged.
    """
    if not start.startswith(SIGNATURE):
        return []
    with open_archive(path) as archive:
        return archive.namelist()


@contextlib.contextmanager
def unpacked(archive: zipfile.ZipFile, member: str) -> Iterator[BinaryIO]:
    """Gives one member as a file that can seek: a nameless temporary one.

    Args:
      archive: An open archive.
      member: The member's name.

    Yields:
      The member's bytes as a binary file at its start.
    """
    with tempfile.TemporaryFile() as copy:
        with archive.open(member) as packed:
            shutil.copyfileobj(packed, copy, 1 << 20)
        copy.seek(0)
        yield cast(BinaryIO, copy)


def _check_members(archive: zipfile.ZipFile, path: Path) -> None:
    names = [member.filename for member in archive.infolist()]
    if len(set(names)) != len(names):
        raise WeightsError(f"{path} has two members of one name; get the original file.")
    for member in archive.infolist():
        if member.file_size > _LARGEST:
            raise WeightsError(
                f"{path} has a member {member.filename!r} of {member.file_size:,} bytes, more "
                "than any network here; get the original file."
            )
        if member.flag_bits & _ENCRYPTED:
            raise WeightsError(
                f"{path} has the encrypted member {member.filename!r}; decrypt it first."
            )
