"""Runs a config page: a program of the user's, which may do anything but answer."""

import contextlib
import importlib.util
import io
import re
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

from ml_collections import ConfigDict

from radimagenet_jax.errors import ConfigError
from radimagenet_jax.files import expanded

# The pages of this project, for a page elsewhere that builds on `configs.base`.
_PROJECT = Path(__file__).resolve().parents[2]
# A page assigns a few dozen values; importing what it needs takes some of this on a slow disk.
_SECONDS = 25


def config_of(page: str) -> ConfigDict:
    """What the page's `get_config` returns.

    Args:
      page: Path of a Python file, and optionally a colon and the argument of `get_config`.

    Raises:
      ConfigError: If there is no such page, or it ends in an error, exits, asks the keyboard,
        does not end, or returns something else than a `ConfigDict`.
    """
    found = re.fullmatch(r"(.*?\.py)(?::(.*))?", page, flags=re.DOTALL)
    path_text, argument = (found[1], found[2]) if found else (page.partition(":")[0], None)
    path = expanded(path_text)
    if not path.is_file():
        raise ConfigError(f"there is no config page {path_text}; the project's are in configs/.")
    for folder in (_PROJECT, path.resolve().parent.parent):
        if str(folder) not in sys.path:
            sys.path.insert(0, str(folder))
    spec = importlib.util.spec_from_file_location(f"config_page_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise ConfigError(f"{path_text} is not a Python file; a config page has get_config().")
    module = importlib.util.module_from_spec(spec)
    try:
        with _alone(page):
            spec.loader.exec_module(module)
            get_config = getattr(module, "get_config", None)
            if not callable(get_config):
                raise ConfigError(f"config page {page} has no function get_config(argument).")
            config = get_config(argument or None)
    except ConfigError:
        raise
    # A page is the user's program: whatever it raises is its mistake, `sys.exit` included.
    except (Exception, SystemExit) as error:
        raise ConfigError(
            f"config page {page} cannot be loaded: {type(error).__name__}: {error}."
        ) from error
    if not isinstance(config, ConfigDict):
        raise ConfigError(
            f"config page {page}: get_config returns {type(config).__name__}, but must return the "
            "ConfigDict that base.get_config() makes."
        )
    return config


class _NoKeyboard(io.TextIOBase):
    """Stands for the keyboard, which may be that of a job which nobody watches."""

    def __init__(self, page: str):
        self._page = page

    def _refuse(self, *_: object) -> NoReturn:
        raise ConfigError(
            f"config page {self._page} reads the keyboard; take its value from the argument of "
            "get_config or from a flag --config.FIELD=VALUE."
        )

    read = readline = readlines = __next__ = fileno = _refuse


@contextlib.contextmanager
def _alone(page: str) -> Iterator[None]:
    """Runs a page in time, without a keyboard or standard output, which is for results."""

    def stop(number: int, frame: object) -> NoReturn:
        del number, frame
        raise ConfigError(
            f"config page {page} does not end: get_config took more than {_SECONDS} seconds."
        )

    # Signals are for the main thread, and alarms not for Windows; elsewhere, as in a notebook's, a
    # person can interrupt.
    timed = threading.current_thread() is threading.main_thread() and hasattr(signal, "SIGALRM")
    keyboard, sys.stdin = sys.stdin, _NoKeyboard(page)
    before = signal.signal(signal.SIGALRM, stop) if timed else None
    if timed:
        signal.alarm(_SECONDS)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        if timed:
            signal.alarm(0)
            signal.signal(signal.SIGALRM, before)
        sys.stdin = keyboard
