"""HDF5 files as groups, attributes and tensors, read by a worker that a damaged file may end."""

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, BinaryIO, cast

import numpy as np

from radimagenet_jax.errors import WeightsError, cut

_WORKER = Path(__file__).with_name("hdf5_worker.py")

# By how much the worker may grow: beyond the file's size, which it may hold twice, the room that
# the libraries' own buffers take.
_TIMES = 2
_SPARE = 256 * 2**20

# Of computing, for a whole file: the largest network takes less than 2 s compressed.
_SECONDS = 10

# For one answer: a slow disk may take longer than the computing.
_PATIENCE = 25.0

_LONGEST_HEAD = 64 * 2**20


@dataclass(frozen=True)
class Dataset:
    """An array in the file.

    Attributes:
      shape: As stored.
      dtype: As stored; 'V' of anything but plain numbers.
      number: By which the worker knows it.
      offset: Where its plain numbers begin in the file; None if the worker has to decode them.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    number: int
    offset: int | None


class File:
    """An open HDF5 file.

    Attributes:
      groups: Paths of all groups, without a leading '/'; the root is ''.
      datasets: By path.
    """

    groups: frozenset[str]
    datasets: Mapping[str, Dataset]

    def __init__(self, content: BinaryIO, worker: "_Worker", name: str):
        self._content = content
        self._worker = worker
        self._name = name
        self._known: dict[str, Mapping[str, str | list[str]]] = {}
        described = worker.answer()[0]
        self.groups = frozenset(described["groups"])
        self.datasets = {
            path: Dataset(tuple(shape), np.dtype(dtype), number, offset)
            for number, (path, shape, dtype, offset) in enumerate(described["datasets"])
        }

    def attributes(self, group: str = "") -> Mapping[str, str | list[str]]:
        """The attributes of a group that are texts or lists of texts."""
        if group not in self._known:
            answer = self._worker.ask({"attributes": group})[0]["attributes"]
            self._known[group] = {key: value for key, value in answer.items() if value is not None}
        return self._known[group]

    def read(self, dataset: Dataset) -> np.ndarray:
        """Reads an array, with the shape and dtype that its description states."""
        count = int(np.prod(dataset.shape, dtype=np.int64))
        if dataset.offset is None:
            content = self._worker.ask({"read": dataset.number})[1]
        else:
            self._content.seek(dataset.offset)
            content = self._content.read(count * dataset.dtype.itemsize)
        if len(content) != count * dataset.dtype.itemsize:
            raise WeightsError(f"{self._name} changed while it was read; get it again.")
        return np.frombuffer(content, dataset.dtype).reshape(dataset.shape)


@contextlib.contextmanager
def opened(
    content: BinaryIO, name: str, meanwhile: Callable[[], None] = lambda: None
) -> Iterator[File]:
    """Opens an HDF5 file.

    Args:
      content: The file, open for reading; it need not have a name.
      name: What to call it in an error.
      meanwhile: Called while the worker starts, which takes some tenths of a second.

    Yields:
      The file, which can be read until the context ends.

    Raises:
      WeightsError: If it is truncated or damaged, reaches outside itself, or asks for more than
        its size warrants; also while something is read within the context.
    """
    worker = _Worker(content, name)
    try:
        meanwhile()
        yield File(content, worker, name)
    finally:
        worker.stop()


class _Worker:
    """The process that has the file open."""

    def __init__(self, content: BinaryIO, name: str):
        self._name = name
        if os.name == "nt":  # which gives no file on to a process by its number
            raise WeightsError(
                f"{name} is HDF5, which is read under Linux, macOS and WSL only; make it a folder "
                "there with python -m radimagenet_jax.convert, which is read everywhere."
            )
        descriptor = content.fileno()
        limit = _TIMES * os.fstat(descriptor).st_size + _SPARE
        # By the number that it has here, so that a file without a name can be given.
        source = f"/dev/fd/{descriptor}"
        # Its modules are those of this process; the start takes 0.1 s without the search for them.
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
            "OPENBLAS_NUM_THREADS": "1",
        }
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-S", "-P", str(_WORKER), source, str(limit), str(_SECONDS)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                pass_fds=(descriptor,),
                env=environment,
                bufsize=0,
            )
        except OSError as error:
            raise WeightsError(
                f"{name} cannot be read: no process for it can be started ({error.strerror}); "
                "make room for one."
            ) from error

    def ask(self, request: Mapping[str, Any]) -> tuple[dict[str, Any], bytes]:
        """Sends a request; returns the answer's head and its raw bytes."""
        with contextlib.suppress(BrokenPipeError):  # its death shows in the answer
            self._pipe(self._process.stdin).write(json.dumps(request).encode() + b"\n")
        return self.answer()

    def answer(self) -> tuple[dict[str, Any], bytes]:
        """Waits for an answer.

        Raises:
          WeightsError: If it is that the file is not read, or if none comes.
        """
        until = time.monotonic() + _PATIENCE
        length = int.from_bytes(self._receive(8, until), "little")
        if length > _LONGEST_HEAD:
            raise self._damaged("it has too much to describe")
        head = json.loads(self._receive(length, until))
        if "refused" in head:
            raise WeightsError(f"{self._name} {head['refused']}.")
        if "damaged" in head:
            raise self._damaged(" ".join(head["damaged"].split()))
        return head, bytes(self._receive(head.get("bytes", 0), until))

    def stop(self) -> None:
        """Ends the process, whatever it does."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            self._pipe(pipe).close()

    def _receive(self, count: int, until: float) -> bytearray:
        pipe = self._pipe(self._process.stdout)
        received = bytearray(count)
        view = memoryview(received)
        while view:
            ready, _, _ = select.select([pipe], [], [], max(0.0, until - time.monotonic()))
            if not ready:
                raise self._damaged(f"the HDF5 library does not end within {_PATIENCE:g} s")
            more = pipe.readinto(view)  # type: ignore[attr-defined]
            if not more:
                code = self._process.wait()
                raise self._damaged(
                    f"the HDF5 library does not end within {_SECONDS} s of computing"
                    if code in (-signal.SIGXCPU, -signal.SIGKILL)
                    else f"the HDF5 library ends on it, with code {code}"
                )
            view = view[more:]
        return received

    def _damaged(self, reason: str) -> WeightsError:
        return WeightsError(
            f"{self._name} is truncated or damaged and cannot be read as HDF5 "
            f"({cut(reason, 300)}); get it again and compare its size and checksum with its "
            "source's."
        )

    @staticmethod
    def _pipe(pipe: IO[bytes] | None) -> IO[bytes]:
        return cast(IO[bytes], pipe)
