"""What a prediction has written so far, so that the same command goes on after a kill.

While images are scored, rows grow in files of the folder `unfinished` in the output. Every second
or so all of them are forced to the disk, and a line of `journal.jsonl` notes how far the images are
done and how long each file is then. Who goes on cuts the files to these lengths.
"""

import contextlib
import json
import os
import shutil
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from radimagenet_jax import locks, own_files
from radimagenet_jax.errors import ConfigError, telling
from radimagenet_jax.files import make_private
from radimagenet_jax.reports.predictions import STRAY_BYTES

FOLDER = "unfinished"
_JOURNAL = "journal.jsonl"
_COUNTS: Mapping[str, own_files.Form] = {"scored": int, "failed": int}
_STATE: Mapping[str, own_files.Form] = {
    "entries": int,
    "frames": int,
    "sizes": dict,
    "counts": _COUNTS,
}
_EVERY = 1.0  # seconds between two lines


@dataclass(frozen=True)
class Position:
    """How far images are done: whole entries, and frames of the entry after them."""

    entries: int = 0
    frames: int = 0


@dataclass
class Counts:
    """How many images were scored, and how many files, frames and rows could not be."""

    scored: int = 0
    failed: int = 0


class Journal:
    """The unfinished files of one command in one output folder.

    Attributes:
      folder: Where the files are.
      position: How far an earlier process came; its rows are in the files that `open` gives.
      counts: Of what is in the files; whoever adds rows counts them here.
    """

    def __init__(self, output: Path, command: Mapping[str, str]):
        """Goes on with what is there, or begins.

        Args:
          output: The folder, which is made where it is missing.
          command: What the rows depend on, by a name for people.

        Raises:
          ConfigError: If another command has begun there, another process is at it, or the folder
            cannot be written to.
        """
        self.folder = output / FOLDER
        self._output = output
        self._is_new = not output.exists()
        self._files: dict[str, IO[Any]] = {}
        self.position, self.counts = Position(), Counts()
        self._sizes: dict[str, int] = {}
        refused = f"--output={output} cannot be written to"
        with telling(refused, ConfigError, "give another folder"), contextlib.ExitStack() as stack:
            make_private(output)
            self.folder.mkdir(exist_ok=True)
            self._file = stack.enter_context(open(self.folder / _JOURNAL, "a+", encoding="utf-8"))
            if not locks.take(self._file.fileno(), self.folder / _JOURNAL):
                raise ConfigError(
                    f"another process is predicting into {output}; wait for it, or give another "
                    "--output."
                )
            self._resume(command)
            stack.pop_all()
        self._written = time.monotonic()

    def _resume(self, command: Mapping[str, str]) -> None:
        """Takes up the last state that is whole, after a check that it is this command's."""
        lines = _lines(self._file)
        if lines:
            kept = lines[0].get("command", {})
            changed = [name for name in command if kept.get(name) != command[name]]
            if changed:
                raise ConfigError(
                    f"{self.folder} holds what another command has begun (another "
                    f"{', '.join(changed)}); give that command again to finish it, give another "
                    "--output, or remove the folder."
                )
        for line in reversed(lines[1:]):
            sizes = line["sizes"]
            if all(self._size(name) >= size for name, size in sizes.items()):
                self._file.write("\n")  # behind a line that a kill has cut
                self.position, self._sizes = Position(line["entries"], line["frames"]), sizes
                self.counts = Counts(**line["counts"])
                return
        self._file.truncate(0)
        self._append({"command": dict(command)})

    def _size(self, name: str) -> int:
        try:
            return (self.folder / name).stat().st_size
        except OSError:
            return -1

    def open(self, name: str, *, text: bool = True) -> tuple[IO[Any], bool]:
        """Opens a file that grows.

        Args:
          name: Of the file in the folder.
          text: UTF-8, as CSV is written; else bytes.

        Returns:
          The file, cut to what is noted of it, and whether nothing is.
        """
        size = self._sizes.get(name, 0)
        options: dict[str, Any] = (
            {"encoding": "utf-8", "errors": STRAY_BYTES, "newline": ""} if text else {}
        )
        file = open(self.folder / name, "a" if text else "ab", **options)  # noqa: SIM115
        file.truncate(size)
        self._files[name] = file
        return file, size == 0

    def note(self, position: Position, *, now: bool = False) -> None:
        """Forces what was written to the disk and notes it; not more often than every second.

        Args:
          position: Of the images whose rows are in the files.
          now: Whether to note it at once.
        """
        if not now and time.monotonic() - self._written < _EVERY:
            return
        sizes = {}
        for name, file in self._files.items():
            file.flush()
            os.fsync(file.fileno())
            sizes[name] = os.fstat(file.fileno()).st_size
        self._append({**asdict(position), "counts": asdict(self.counts), "sizes": sizes})
        self._written = time.monotonic()

    def _append(self, line: Mapping[str, Any]) -> None:
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Lets other processes in; what is noted stays."""
        for file in self._files.values():
            with contextlib.suppress(OSError):  # a full disk has been told of
                file.close()
        self._file.close()

    def remove(self) -> None:
        """Removes the unfinished files, and the output folder if this command made it in vain."""
        self.close()
        shutil.rmtree(self.folder, ignore_errors=True)
        # What makes it private is all that is left of what this command made in vain.
        if self._is_new and [one.name for one in self._output.iterdir()] == [".gitignore"]:
            shutil.rmtree(self._output, ignore_errors=True)


def _lines(file: IO[str]) -> list[dict[str, Any]]:
    """Returns the whole lines of a journal; a kill may have cut one."""
    file.seek(0)
    lines: list[dict[str, Any]] = []
    for text in file:
        with contextlib.suppress(ValueError):
            lines.append(own_files.parse_json(text.encode(), _STATE if lines else {}))
    return lines
