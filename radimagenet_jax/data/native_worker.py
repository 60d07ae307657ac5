"""Decoding in a process of its own, whose death is a sentence and not the end of the program.

The C libraries behind JPEG 2000, JPEG-LS, lossless JPEG and TIFF meet few damaged files in their
makers' tests, and a file of a stranger may end them by a signal, without end, or with all memory.
What they decode here is sent to a worker, which is kept for the next file. PNG, JPEG and BMP are
not decoded here: their libraries have met everything, and the way to a worker would cost a tenth.
"""

import atexit
import contextlib
import importlib
import json
import os
import select
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from typing import IO, Any

import numpy as np

from radimagenet_jax.errors import DataError

# Time and memory that one image may take; far more than the largest radiograph needs.
SECONDS = 30.0
BYTES = 3 * 2**30
_LENGTHS = struct.Struct("<QQ")

_idle: list["_Worker"] = []
_lock = threading.Lock()


def decode(
    function: str, encoded: bytes, *, name: str, arguments: Sequence[Any] = ()
) -> np.ndarray:
    """Decodes an image in a worker.

    Args:
      function: `<module>:<function>` of what decodes: (bytes, *arguments) -> array. A `DataError`
        of it is passed on.
      encoded: The file's bytes.
      name: What to call the file in a message.
      arguments: Further arguments: numbers, texts and None.

    Raises:
      DataError: As the function does, and if the worker dies, or takes longer than `SECONDS`.
    """
    worker = _take()
    try:
        reply, payload = worker.ask(
            {"function": function, "arguments": [*arguments]}, encoded, SECONDS
        )
    except (OSError, EOFError, TimeoutError) as error:
        worker.stop()
        why = "takes too long" if isinstance(error, TimeoutError) else "ends its decoder"
        raise DataError(
            f"{name} is damaged in its pixels ({why}); download or copy it again."
        ) from error
    except BaseException:  # such as a Ctrl-C: what the worker still says belongs to this file
        worker.stop()
        raise
    _put_back(worker)
    if "error" in reply:
        raise DataError(reply["error"])
    return np.frombuffer(payload, np.dtype(reply["dtype"])).reshape(reply["shape"])


def serve() -> None:
    """Answers requests on standard input until it ends; the worker's whole life."""
    requests, replies = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints is no reply
    _limit_memory()
    while True:
        try:
            header, encoded = _receive(requests)
        except EOFError:
            return
        module, _, function = header["function"].partition(":")
        try:
            image = getattr(importlib.import_module(module), function)(
                bytes(encoded), *header["arguments"]
            )
        except DataError as error:
            _send(replies, {"error": str(error)}, b"")
        else:
            image = np.ascontiguousarray(image)
            _send(replies, {"dtype": image.dtype.str, "shape": image.shape}, image.data.cast("B"))
        del encoded


class _Worker:
    def __init__(self) -> None:
        # The worker finds modules where this process does, whatever its working directory.
        start = (
            "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
            f"from {__name__} import serve; serve()"
        )
        self.owner = os.getpid()
        self._process = subprocess.Popen(
            [sys.executable, "-c", start, json.dumps(sys.path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            # A Ctrl-C is for the command, which ends its workers.
            start_new_session=True,
        )

    def ask(
        self, header: dict[str, Any], encoded: bytes, seconds: float
    ) -> tuple[dict[str, Any], bytearray]:
        """Returns the reply's header and payload.

        Raises:
          TimeoutError: If it does not begin to answer in time.
          EOFError, OSError: If the worker is dead.
        """
        requests, replies = self._process.stdin, self._process.stdout
        assert requests is not None
        assert replies is not None
        # Its first import counts for no file.
        deadline = time.monotonic() + seconds
        _send(requests, header, encoded)
        ready, _, _ = select.select([replies], [], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            raise TimeoutError
        return _receive(replies)

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()


def _take() -> _Worker:
    with _lock:
        while _idle:
            worker = _idle.pop()
            # A fork's copy of this list is of workers that answer to its parent.
            if worker.owner == os.getpid():
                return worker
    return _Worker()


def _put_back(worker: _Worker) -> None:
    with _lock:
        _idle.append(worker)


@atexit.register
def _stop_all() -> None:
    with _lock:
        for worker in _idle:
            if worker.owner == os.getpid():
                worker.stop()
        _idle.clear()


def _limit_memory() -> None:
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource  # not on every system

        resource.setrlimit(resource.RLIMIT_AS, (BYTES, BYTES))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _send(stream: IO[bytes], header: dict[str, Any], payload: Any) -> None:
    text = json.dumps(header).encode()
    for part in (_LENGTHS.pack(len(text), len(payload)), text, payload):
        rest = memoryview(part)
        while len(rest):
            rest = rest[stream.write(rest) or 0 :]
    stream.flush()


def _receive(stream: IO[bytes]) -> tuple[dict[str, Any], bytearray]:
    header, payload = _LENGTHS.unpack(_exactly(stream, _LENGTHS.size))
    return json.loads(_exactly(stream, header)), _exactly(stream, payload)


def _exactly(stream: IO[bytes], count: int) -> bytearray:
    content = bytearray(count)
    view = memoryview(content)
    done = 0
    while done < count:
        read = stream.readinto(view[done:])  # type: ignore[attr-defined]
        if not read:
            raise EOFError
        done += read
    return content
