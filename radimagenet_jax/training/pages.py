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

_PACKAGE = Path(__file__).resolve().parents[1]
# A page assigns a few dozen values; importing what it needs takes some of this on a slow disk.
_SECONDS = 25


def config_of(page: str) -> ConfigDict:
    """What the page's `get_config` returns.

    Args:
      page: The name of one of the project's pages, such as `covid`, or the path of a Python file;
        and optionally a colon and the argument of `get_config`.

    Raises:
      ConfigError: If there is no such page, or it ends in an error, exits, asks the keyboard,
        does not end, or returns something else than a `ConfigDict`.
    """
    # A path may have colons before its end, a name has none.
    found = re.fullmatch(r"(.*?\.py|[^:]*)(?::(.*))?", page, flags=re.DOTALL)
    path_text, argument = (found[1], found[2]) if found else (page, None)
    path = _file(path_text)
    # The project's are there for a page elsewhere that builds on `configs.base`.
    for folder in (_home(), path.resolve().parent.parent):
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


def names() -> tuple[str, ...]:
    """The names of the project's pages, in alphabetical order."""
    pages = _home().glob("configs/*.py")
    return tuple(sorted(page.stem for page in pages if not page.stem.endswith("base")))


def _home() -> Path:
    """The folder that `configs` is in: `pages` of an installed package, or the checkout."""
    installed = _PACKAGE / "pages"
    return installed if installed.is_dir() else _PACKAGE.parent


def _file(text: str) -> Path:
    """The file of a page. What is called like one of the project's is that, wherever one stands."""
    path = expanded(text)
    if text in names():
        return _home() / "configs" / f"{text}.py"
    if path.is_file():
        return path
    # As the help of each command and the pages themselves name them, seen from a checkout.
    if path.parent == Path("configs") and path.suffix == ".py" and path.stem in names():
        return _home() / path
    raise ConfigError(
        f"there is no config page {text}; the project's are {', '.join(names())}, and a page of "
        "your own is given by its path."
    )


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
