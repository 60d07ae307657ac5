"""Recording a few training steps for `xprof` or Perfetto."""

from pathlib import Path

import jax

from radimagenet_jax.console import console
from radimagenet_jax.errors import ConfigError


def steps_of(text: str) -> range:
    """Reads 'FIRST:LAST', the steps to record, counted from 1; '' records none.

    Raises:
      ConfigError: If it is neither.
    """
    first, colon, last = text.partition(":")
    if not text:
        return range(0)
    if not colon or not (first + last).isdecimal() or not 1 <= int(first) <= int(last):
        raise ConfigError(f"config.profile is {text!r}, but must be FIRST:LAST steps, such as 5:8.")
    return range(int(first), int(last) + 1)


class Profiler:
    """Records the steps that a config names into `<workdir>/profile`; a context manager."""

    def __init__(self, workdir: Path, steps: str):
        self._folder, self._steps = workdir / "profile", steps_of(steps)
        self._recording = False

    def __enter__(self) -> "Profiler":
        self._turn(1)
        return self

    def __exit__(self, *error: object) -> None:
        self._stop()

    def step(self, done: int) -> None:
        """Notes that so many steps are done."""
        self._turn(done + 1)

    def _turn(self, coming: int) -> None:
        if coming in self._steps and not self._recording:
            jax.profiler.start_trace(str(self._folder))
            self._recording = True
        elif coming not in self._steps:
            self._stop()

    def _stop(self) -> None:
        if self._recording:
            jax.profiler.stop_trace()
            self._recording = False
            console.print(f"profile: {self._folder} (open it with: xprof {self._folder})")
