"""Records of a preparation that has not ended, kept so that the next run goes on from there.

Beside a data set's folder lies, while it is prepared, one file of records for each split and a
journal with a line for each: where the record lies, its check sum, and which files it was made of,
with their sizes and times. A run that is killed loses the record it was at. The next takes those
whose files have not changed, and reads the others.
"""

import hashlib
import json
import os
import shutil
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import IO, Any

from radimagenet_jax.data.registry import UNFINISHED
from radimagenet_jax.data.source_files import FileState
from radimagenet_jax.data.spool import SpoolShuffler
from radimagenet_jax.version import __version__

# A record depends on what decodes; another version's records are not gone on with.
_DECODERS = ("pydicom", "opencv-python-headless", "pillow", "numpy")
_HASH_BYTES = 16


def unfinished_folder(home: Path, config: str, description: str) -> Path:
    """Returns the folder for the unfinished records of a configuration, empty or gone on with.

    Args:
      home: The data set's folder.
      config: The configuration's name.
      description: Everything, beside the source, that records depend on.
    """
    versions = [__version__, *(f"{name} {_version(name)}" for name in _DECODERS)]
    digest = hashlib.sha256("\0".join([description, *versions]).encode()).hexdigest()[:16]
    folder = home / UNFINISHED / config / digest
    if folder.parent.is_dir():
        for other in folder.parent.iterdir():
            if other != folder:
                shutil.rmtree(other)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def remove_unfinished(folder: Path) -> None:
    """Removes the folder that `unfinished_folder` made, once the data set is complete."""
    shutil.rmtree(folder)
    for parent in (folder.parent, folder.parent.parent):
        if not any(parent.iterdir()):
            parent.rmdir()


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


@dataclass(frozen=True)
class _Entry:
    """A line of the journal."""

    hashed: int
    start: int
    length: int
    check: int
    facts: int
    files: tuple[FileState, ...]

    @classmethod
    def of(cls, line: bytes) -> "_Entry | None":
        """Returns a line's entry, None where it was cut off or damaged."""
        if not line.endswith(b"\n"):
            return None
        try:
            hashed, *numbers, files = json.loads(line)
            start, length, check, facts = map(int, numbers)
            states = tuple(FileState(str(path), int(size), int(t)) for path, size, t in files)
            return cls(int(hashed, 16), start, length, check, facts, states)
        except (ValueError, TypeError):
            return None

    def line(self) -> bytes:
        files = [[one.path, one.size, one.modified_ns] for one in self.files]
        parts = [f"{self.hashed:x}", self.start, self.length, self.check, self.facts, files]
        return json.dumps(parts).encode() + b"\n"

    @property
    def end(self) -> int:
        return self.start + _HASH_BYTES + self.length

    def is_current(self) -> bool:
        """Whether the files that the record was made of are as they were."""
        try:
            return bool(self.files) and all(FileState.of(one.path) == one for one in self.files)
        except OSError:
            return False


class KeptSpool(SpoolShuffler):
    """A `SpoolShuffler` whose records outlive the process."""

    def __init__(self, folder: Path, split: str):
        """Opens what an earlier run left of a split, or begins it."""
        self._path = folder / f"{split}.records"
        super().__init__(folder, split)
        # Which records there are, and of what label and patient, by the hash of their key.
        self._facts: dict[int, int] = {}
        self._journal = self._resumed(folder / f"{split}.journal")

    def has(self, key: str, facts: Sequence[str]) -> bool:
        """Whether a record is there and was made of the same facts about the example."""
        if not self._facts:
            return False
        return self._facts.get(self.hasher.hash_key(key)) == _check_of_texts(facts)

    def keep(self, key: str, data: bytes, facts: Sequence[str], files: Sequence[FileState]) -> None:
        """Appends a record, so that it is there after a kill.

        Args:
          key: The example's.
          data: The record.
          facts: What is in it that is not of the files: label, patient.
          files: Those that were read for it.
        """
        hashed = self.hasher.hash_key(key)
        start = self._append(hashed, data)
        self._file.flush()
        check = zlib.crc32(data)
        entry = _Entry(hashed, start, len(data), check, _check_of_texts(facts), tuple(files))
        self._journal.write(entry.line())
        self._journal.flush()

    def __iter__(self) -> Iterator[tuple[int, bytes]]:
        """See `SpoolShuffler`."""
        self._journal.close()
        return super().__iter__()

    def _opened(self, dirpath: Any) -> IO[bytes]:
        self._path.touch()
        return self._path.open("r+b")

    def _resumed(self, path: Path) -> IO[bytes]:
        """Notes the records that can be gone on with; returns the journal, ready to be written."""
        path.touch()
        journal = path.open("r+b")
        size = os.path.getsize(self._path)
        found: dict[int, _Entry] = {}
        whole = end = 0
        for line in journal:
            entry = _Entry.of(line)
            if entry is None or entry.end > size:
                break
            whole, end = whole + len(line), max(end, entry.end)
            found[entry.hashed] = entry  # a later one of a key was read anew
        for entry in found.values():
            if entry.is_current() and self._is_whole(entry):
                self._note(entry.hashed, entry.start, entry.length)
                self._facts[entry.hashed] = entry.facts
        # What was being written at the kill.
        journal.truncate(whole)
        journal.seek(whole)
        self._file.truncate(end)
        self._file.seek(end)
        return journal

    def _is_whole(self, entry: _Entry) -> bool:
        self._file.seek(entry.start)
        record = self._file.read(_HASH_BYTES + entry.length)
        return (
            record[:_HASH_BYTES] == entry.hashed.to_bytes(_HASH_BYTES, "big")
            and zlib.crc32(record[_HASH_BYTES:]) == entry.check
        )


def _check_of_texts(texts: Sequence[str]) -> int:
    return zlib.crc32("\0".join(texts).encode())
