"""Ctrl-C: one line and exit code 130, whatever libraries are doing at that moment.

Python raises `KeyboardInterrupt` wherever the main thread happens to be: also where an error cannot
be raised and is lost, and where a library catches it. The interpreter's own way to end then waits
for threads and closes loops under those that still use them, which print tracebacks. So here the
first Ctrl-C unwinds the main thread, which removes half-written files, and keeps everybody else
quiet; the process then ends at once. A checkpoint that is being written is left as a kill would
leave it: under its temporary name, which the next start removes.
"""

import logging
import os
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any, NoReturn

EXIT_CODE = 128 + signal.SIGINT  # as shells have it
# Unwinding takes milliseconds, unless something waits for a thread that does not end.
_PATIENCE = 5.0


class Interruption:
    """Listens for Ctrl-C from when it is made until the process ends.

    Use as a context manager around what has something to unwind; before and after it, the process
    ends without more ado.

    Attributes:
      noted: Whether there was one.
    """

    def __init__(self, say: Callable[[], None]):
        """Starts to listen, unless the process was told to ignore Ctrl-C, as by `nohup`.

        Args:
          say: Prints the one line.
        """
        self.noted = False
        self._say = say
        self._unwinds = False
        self._said = threading.Lock()
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, self._note)
        if hasattr(signal, "pthread_sigmask"):  # which Windows has not
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})  # see `huge_pages`

    def __enter__(self) -> None:
        self._unwinds = True

    def __exit__(self, *error: object) -> None:
        self._unwinds = False

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.noted or not self._unwinds:
            self.leave()
        self.noted = True
        logging.disable(logging.CRITICAL)
        threading.excepthook = _pass_over
        sys.unraisablehook = self._lost
        late = threading.Timer(_PATIENCE, self.leave)
        late.daemon = True
        late.start()
        raise KeyboardInterrupt

    def _lost(self, unraisable: Any) -> None:
        # Raised in a destructor or a callback, it unwinds nothing.
        if isinstance(unraisable.exc_value, KeyboardInterrupt):
            self.leave()

    def end(self) -> None:
        """Lets Ctrl-C pass from now on: all is done, and the interpreter only has to go.

        While it goes it takes its handlers away, so that one would end it by the signal.
        """
        if signal.getsignal(signal.SIGINT) == self._note:
            signal.signal(signal.SIGINT, signal.SIG_IGN)

    def leave(self) -> NoReturn:
        """Says the one line, once, and ends the process without waiting for anything."""
        if self._said.acquire(blocking=False):
            try:
                self._say()
                sys.stdout.flush()
                sys.stderr.flush()
            finally:
                os._exit(EXIT_CODE)
        threading.Event().wait(_PATIENCE)  # another thread says it
        os._exit(EXIT_CODE)


def _pass_over(arguments: Any) -> None:
    """Prints nothing of a thread that ends with an error while the process does."""
