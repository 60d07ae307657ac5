"""SIGTERM as a request: the step in hand is finished and saved before the process ends."""

import signal
from types import FrameType, TracebackType

EXIT_CODE = 128 + signal.SIGTERM  # what a shell reports for a process that SIGTERM ended


class Termination:
    """Listens for SIGTERM while it is open.

    Attributes:
      requested: Whether the signal has come.
    """

    requested = False

    def __enter__(self) -> "Termination":
        self._former = signal.signal(signal.SIGTERM, self._note)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        signal.signal(signal.SIGTERM, self._former)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.requested = True
