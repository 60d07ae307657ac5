"""Processes that read a run's records: grain's, made to end with the run and to disturb nobody.

Used where `streaming.batches` is asked for workers.
"""

import contextlib
import multiprocessing
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Iterator
from multiprocessing import resource_tracker

import absl.flags

from radimagenet_jax.errors import ConfigError

# Seconds in which a process whose run was killed fills its buffer and comes to rest.
_REST = 1.0


def begin(number: int, count: int) -> None:
    """What such a process does first: `worker_init_fn` of grain's `mp_prefetch`."""
    import jax

    del number, count
    jax.config.update("jax_platforms", "cpu")  # orders are drawn by JAX; accelerators are the run's
    run = multiprocessing.parent_process()
    assert run is not None

    def end_with_it() -> None:
        run.join()
        # Shared memory that it was about to make would stay for ever, since Python's process that
        # removes it does not know of it yet.
        time.sleep(_REST)
        os._exit(1)

    threading.Thread(target=end_with_it, daemon=True).start()


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Processes that are started within see no Ctrl-C or SIGTERM: both are for their run.

    Windows has no such signals.
    """
    if not absl.flags.FLAGS.is_parsed():  # grain asks flags, which only absl's own programs have
        absl.flags.FLAGS.mark_as_parsed()
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    # Python's own process that removes what killed ones leave in memory: it would tell of it, and
    # its start would let the signals through.
    sys.warnoptions.append("ignore:resource_tracker")
    try:
        resource_tracker.ensure_running()
    finally:
        sys.warnoptions.pop()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def tell_of_killed(error: RuntimeError) -> None:
    """Makes a sentence of what grain says of a process that has ended by itself.

    Raises:
      ConfigError: If that is what it says.
    """
    found = re.search(r"process was terminated .*exit code (-?\d+)", str(error))
    if found is None:
        return
    code = int(found[1])
    how = f"signal {-code}" if code < 0 else f"exit code {code}"
    raise ConfigError(
        f"a worker process that reads images has ended ({how}); signal 9 mostly means that memory "
        "is full, 7 that a container's /dev/shm is. Make room, or read in threads: "
        "config.dataset.workers=0."
    ) from error
