"""Opens the zip archives that Keras and PyTorch write, without extracting them."""

import contextlib
import io
import shutil
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast

from radimagenet_jax.errors import WeightsError, cut

SIGNATURE = b"PK\x03\x04"

# Four times the largest released network; beyond it a member is no weight file of ours.
_LARGEST = 1 << 30

# What the members may have together, compressed ones included: times the archive's size, and a
# network's that compresses well.
_TIMES = 2
_SPARE = 1 << 28

# Keras writes three, PyTorch one a tensor; the directory has about 100 bytes for each.
_MOST_MEMBERS = 30_000
_LARGEST_DIRECTORY = 100 * _MOST_MEMBERS

_ENCRYPTED = 0x1
_COMPRESSIONS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_LOCAL_HEADER = 30

# The end of the central directory: its signature, and after 8 bytes the number of members (2), the
# directory's length (4) and its offset (4); a comment of up to 65,535 bytes may follow. Before it
# stands that of archives with 64 bits, which the first has all ones for.
_END = b"PK\x05\x06"
_END_64 = b"PK\x06\x06"
_LONGEST_END = 22 + 65_535 + 20 + 56

_PIECE = 1 << 20


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
        _check_directory(path)
        with zipfile.ZipFile(path) as archive:
            _check_members(archive, path)
            yield archive
    except (
        zipfile.BadZipFile,
        zlib.error,
        struct.error,
        UnicodeDecodeError,
        EOFError,
        NotImplementedError,
        RuntimeError,
        OSError,
    ) as error:
        raise WeightsError(
            f"{path} is truncated or damaged and cannot be read as a zip archive "
            f"({cut(str(error), 300)}); get it again and compare its size and checksum with its "
            "source's."
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


def content(archive: zipfile.ZipFile, member: str, most: int) -> bytes:
    """Returns one member's bytes, after their checksum was found right.

    Args:
      archive: An open archive.
      member: The member's name.
      most: More than so many bytes are not read.

    Raises:
      WeightsError: If there is no such member, or it is longer.
    """
    try:
        size = archive.getinfo(member).file_size
    except KeyError as error:
        raise WeightsError(
            f"{archive.filename} lacks the member {cut(member)!r}; get an intact file."
        ) from error
    if size > most:
        raise WeightsError(
            f"{archive.filename} has {size:,} bytes for {cut(member)!r} instead of at most "
            f"{most:,}; get an intact file."
        )
    pieces = io.BytesIO()
    with archive.open(member) as packed:
        # Piece by piece: one read of the whole would unpack whatever there is, up to 2 GiB.
        shutil.copyfileobj(packed, pieces, _PIECE)
    return pieces.getvalue()


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
            shutil.copyfileobj(packed, copy, _PIECE)
        copy.flush()
        copy.seek(0)
        yield cast(BinaryIO, copy)


def _check_directory(path: Path) -> None:
    """Refuses a directory that is longer than any weight file's, before it is read into memory."""
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - _LONGEST_END))
        end = file.read()
    at = end.rfind(_END)
    if at < 0:
        return  # the library says so
    length = int.from_bytes(end[at + 12 : at + 16], "little")
    at_64 = end.rfind(_END_64, 0, at)
    if at_64 >= 0:
        length = max(length % 0xFFFFFFFF, int.from_bytes(end[at_64 + 40 : at_64 + 48], "little"))
    if length > _LARGEST_DIRECTORY:
        raise WeightsError(
            f"{path} has a directory of {length:,} bytes, longer than any weight file's; get the "
            "original file."
        )


def _check_members(archive: zipfile.ZipFile, path: Path) -> None:
    members = archive.infolist()
    if len({member.filename for member in members}) != len(members):
        raise WeightsError(f"{path} has two members of one name; get the original file.")
    for member in members:
        name = cut(member.filename)
        if member.file_size > _LARGEST:
            raise WeightsError(
                f"{path} has a member {name!r} of {member.file_size:,} bytes, more "
                "than any network here; get the original file."
            )
        if member.flag_bits & _ENCRYPTED:
            raise WeightsError(f"{path} has the encrypted member {name!r}; decrypt it first.")
        if member.compress_type not in _COMPRESSIONS:
            raise WeightsError(
                f"{path} compresses its member {name!r} in a way that neither Keras nor PyTorch "
                "has; pack it again without compression."
            )
    size = path.stat().st_size
    if len(members) > _MOST_MEMBERS or sum(each.file_size for each in members) > (
        _TIMES * size + _SPARE
    ):
        raise WeightsError(
            f"{path} of {size:,} bytes unpacks to {sum(each.file_size for each in members):,} in "
            f"{len(members):,} members, as no weight file does; get the original file."
        )
    end = 0
    for member in sorted(members, key=lambda each: each.header_offset):
        if member.header_offset < end:
            raise WeightsError(
                f"{path} has members that overlap, {cut(member.filename)!r} and the one before; "
                "get the original file."
            )
        end = member.header_offset + _LOCAL_HEADER + member.compress_size
