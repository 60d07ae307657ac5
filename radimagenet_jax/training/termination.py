"""SIGTERM as a request: the step in hand is finished and saved before the process ends.

Launchers, Slurm and clouds that take a machine back send it as their notice.
"""

import signal
from types import FrameType

from radimagenet_jax.training import distributed

EXIT_CODE = 128 + signal.SIGTERM  # what a shell reports for a process that SIGTERM ended


class Termination:
    """Listens for SIGTERM while it is open.

    In a run of several processes JAX's preemption service listens instead, from the moment that
    they join. It passes one process' notice on to all, who agree on the step to stop after, and
    costs the steps before nothing.
    """

    def __init__(self) -> None:
        self._alone = not distributed.is_together()
        self._noted = False
        self._asked = 0

    def __enter__(self) -> "Termination":
        if self._alone:
            self._former = signal.signal(signal.SIGTERM, self._note)
        return self

    def __exit__(self, *error: object) -> None:
        if self._alone:
            signal.signal(signal.SIGTERM, self._former)

    def reached(self) -> bool:
        """Whether to save and stop now; every process of a run asks equally often."""
        if self._alone:
            return self._noted
        self._asked += 1
        return distributed.preempted(self._asked)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._noted = True
