"""Learning rates over a run."""

import math
from collections.abc import Callable, Mapping

import optax

# From the highest rate and the steps that are left after the warm-up.
SCHEDULES: Mapping[str, Callable[[float, int], optax.Schedule]] = {
    "constant": lambda rate, steps: optax.constant_schedule(rate),
    "cosine": lambda rate, steps: optax.cosine_decay_schedule(rate, steps),
    "linear": lambda rate, steps: optax.linear_schedule(rate, 0.0, steps),
}
NAMES = tuple(SCHEDULES)


def schedule(
    name: str, learning_rate: float, warmup_epochs: float, steps_per_epoch: int, total_steps: int
) -> float | optax.Schedule:
    """Makes the learning rate of a run.

    Args:
      name: 'constant', as published; 'cosine', half a cosine from `learning_rate` to 0 at the
        last step (Loshchilov and Hutter, arXiv:1608.03983, without restarts); or 'linear', a
        straight line to 0.
      learning_rate: The highest.
      warmup_epochs: Over which it rises linearly from 0 first (Goyal et al., arXiv:1706.02677).
      steps_per_epoch: Steps in an epoch.
      total_steps: Steps in the run.

    Returns:
      A number where it never changes, else a function of the number of steps taken.

    Raises:
      ValueError: If the name is not known.
    """
    if name not in NAMES:
        raise ValueError(f"unknown schedule {name!r}; known are {', '.join(NAMES)}.")
    warmup = 0
    if warmup_epochs:
        warmup = min(math.ceil(warmup_epochs * steps_per_epoch), total_steps - 1)
    if name == "constant" and not warmup:
        return learning_rate
    after = SCHEDULES[name](learning_rate, total_steps - warmup)
    if not warmup:
        return after
    # The first step already moves: its rate is a share of the highest, not 0.
    rise = optax.linear_schedule(learning_rate / (warmup + 1), learning_rate, warmup)
    return optax.join_schedules([rise, after], [warmup])


def rate(schedule: float | optax.Schedule, step: int) -> float:
    """The learning rate of the step that follows so many."""
    return float(schedule(step)) if callable(schedule) else schedule
