"""Locks on open files: the system gives them back when a process ends, however it ends."""

import errno
import importlib
import os
import time
from pathlib import Path
from typing import Any

from radimagenet_jax.errors import ConfigError

# Windows keeps others from the bytes that are locked, so it is one that no file of ours reaches.
_BYTE = 2**30
_EVERY = 0.1  # seconds between two tries, where the system does not wait by itself


def take(number: int, path: Path, *, wait: bool = False) -> bool:
    """Locks an open file until it is closed.

    Args:
      number: The file's descriptor.
      path: The file, for the message.
      wait: Until no other process has it.

    Returns:
      Whether it is now locked; False if another process has it.

    Raises:
      ConfigError: If its file system knows no locks.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        return _take_on_windows(number, wait)
    try:
        fcntl.flock(number, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be locked ({error.strerror}), so that two processes could write there "
            "at once; give a folder on a file system that has locks."
        ) from error
    return True


def _take_on_windows(number: int, wait: bool) -> bool:
    # Named as text, since type checkers know it on Windows only.
    msvcrt: Any = importlib.import_module("msvcrt")
    place = os.lseek(number, 0, os.SEEK_CUR)
    os.lseek(number, _BYTE, os.SEEK_SET)
    try:
        while True:
            try:
                msvcrt.locking(number, msvcrt.LK_NBLCK, 1)
            except OSError as error:
                if error.errno not in (errno.EACCES, errno.EDEADLK):
                    raise
                if not wait:
                    return False
                time.sleep(_EVERY)
            else:
                return True
    finally:
        os.lseek(number, place, os.SEEK_SET)
