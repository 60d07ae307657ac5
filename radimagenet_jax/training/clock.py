"""How fast a run trains, and where its time goes, resumes included."""

import contextlib
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

# Where the time of a training goes. What the devices do while the host waits for input or sends is
# not in 'device', which is the time for which the host waited for them and nothing else.
PARTS = ("input", "sending", "device", "host", "evaluation", "saving")


@dataclass
class Clock:
    """Counts images and the seconds in which they were trained on.

    It runs from `start` to `stop`; what happens in between stops counts for nothing. The first
    step of a process is left out of the rate, since it may still compile or fill caches.

    Attributes:
      seconds: Training time, over all sessions of the run.
      images: Images in that time that the rate is made of.
      rated_seconds: The time that they took.
      waited: Seconds of these in which the host waited for input.
      computed: Seconds of these in which it sent steps or waited for the devices.
      parts: Seconds by where they went, those of `PARTS`; together they are the time from the
        first step to the last save.
    """

    seconds: float = 0.0
    images: int = 0
    rated_seconds: float = 0.0
    waited: float = 0.0
    computed: float = 0.0
    parts: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PARTS, 0.0))

    def __post_init__(self) -> None:
        self._started: float | None = None
        self._warm = False

    def start(self) -> None:
        """Starts or continues the count."""
        if self._started is None:
            self._started = time.perf_counter()

    def step(
        self, images: int, waited: float = 0.0, sending: float = 0.0, device: float = 0.0
    ) -> None:
        """Notes a call that sent steps.

        Args:
          images: How many were trained on in the steps that are known to be done since the last.
          waited: Seconds for which it waited for its input.
          sending: Seconds that sending took.
          device: Seconds for which it waited for the devices.
        """
        if self._started is None:
            raise RuntimeError("the clock counts steps only between start and stop.")
        passed = self._pass()
        for name, seconds in (("input", waited), ("sending", sending), ("device", device)):
            self.parts[name] += seconds
            self.parts["host"] -= seconds
        if self._warm:
            self.images += images
            self.rated_seconds += passed
            self.waited += waited
            self.computed += sending + device
        # Steps on their way are known to be done later, and so is the first.
        self._warm |= images > 0

    def stop(self) -> None:
        """Pauses the count."""
        if self._started is not None:
            self._pass()
            self._started = None

    def _pass(self) -> float:
        """Counts the time since it was last counted."""
        assert self._started is not None
        now = time.perf_counter()
        passed, self._started = now - self._started, now
        self.seconds += passed
        self.parts["host"] += passed
        return passed

    @contextlib.contextmanager
    def spending(self, part: str) -> Iterator[None]:
        """Counts what happens inside, while the clock is stopped, for a part of `PARTS`."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self.parts[part] += time.perf_counter() - began

    @property
    def images_per_second(self) -> float | None:
        """Training rate, None before it is known."""
        return self.images / self.rated_seconds if self.rated_seconds else None

    @property
    def input_wait(self) -> float | None:
        """Share of the training time spent waiting for input, None before it is known."""
        return self.waited / self.rated_seconds if self.rated_seconds else None

    @property
    def outside_step(self) -> float | None:
        """Share of the training time outside compiled steps, None before it is known."""
        return 1 - self.computed / self.rated_seconds if self.rated_seconds else None

    def to_json(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        parts = {name: round(seconds, 3) for name, seconds in self.parts.items()}
        return {**asdict(self), "parts": parts}
