"""How fast a run trains: compilation, evaluation and saving left out, resumes included."""

import time
from dataclasses import dataclass


@dataclass
class Clock:
    """Counts images and the seconds in which they were trained on.

    It runs from `start` to `stop`; what happens in between stops counts for nothing. The first
    step of a process is left out of the rate, since it may still compile or fill caches.

    Attributes:
      seconds: Training time, over all sessions of the run.
      images: Images in that time that the rate is made of.
      rated_seconds: The time that they took.
      waited: Seconds of these in which the devices had nothing to do but wait for input.
      computed: Seconds of these in which a compiled step ran.
    """

    seconds: float = 0.0
    images: int = 0
    rated_seconds: float = 0.0
    waited: float = 0.0
    computed: float = 0.0

    def __post_init__(self) -> None:
        self._started: float | None = None
        self._warm = False

    def start(self) -> None:
        """Starts or continues the count."""
        if self._started is None:
            self._started = time.perf_counter()

    def step(self, images: int, waited: float = 0.0, computed: float = 0.0) -> None:
        """Notes a finished step.

        Args:
          images: How many it trained on.
          waited: Seconds for which it waited for its input.
          computed: Seconds that the devices took for it.
        """
        if self._started is None:
            raise RuntimeError("the clock counts steps only between start and stop.")
        now = time.perf_counter()
        self.seconds += now - self._started
        if self._warm:
            self.images += images
            self.rated_seconds += now - self._started
            self.waited += waited
            self.computed += computed
        self._warm = True
        self._started = now

    def stop(self) -> None:
        """Pauses the count."""
        if self._started is not None:
            self.seconds += time.perf_counter() - self._started
            self._started = None

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

    def to_json(self) -> dict[str, float | int]:
        """What a checkpoint keeps."""
        return {
            "seconds": self.seconds,
            "images": self.images,
            "rated_seconds": self.rated_seconds,
            "waited": self.waited,
            "computed": self.computed,
        }
