"""A run's working directory: one config, one process, finished or to be resumed."""

import os
from collections.abc import Mapping
from typing import Any, TextIO

from ml_collections import ConfigDict

from radimagenet_jax import locks, own_files
from radimagenet_jax.errors import ConfigError
from radimagenet_jax.files import expanded, make_private, replacing
from radimagenet_jax.training import config as config_pages

# What is shown again of a finished run; see `outcome.show`.
_SHOWN = {
    "n": int,
    **dict.fromkeys(("accuracy", "loss"), own_files.NUMBER_OR_NONE),
    "auroc": own_files.NUMBER_OR_NONE,
    "auroc_ci95": own_files.INTERVAL_OR_NONE,
    "warnings?": [str],
    **dict.fromkeys(
        ("top5_accuracy?", "balanced_accuracy?", "macro_f1?"), own_files.NUMBER_OR_NONE
    ),
}
_FIELDS: Mapping[str, Mapping[str, own_files.Form]] = {
    "config.json": {},
    "result.json": {
        "positive?": str,
        "provenance?": {"less": str},
        "best_step": int,
        "val": _SHOWN,
        "test": _SHOWN,
        "train": {
            "epochs": int,
            "seconds": own_files.NUMBER,
            "images_per_second": own_files.NUMBER_OR_NONE,
        },
    },
}
_REMEDIES = {
    "config.json": "remove the directory to start the run anew",
    "result.json": "remove it, and the same command makes it anew from the last checkpoint",
}


class Workdir:
    """Opens a working directory for one run and keeps others out.

    Attributes:
      path: The directory, absolute.
      result: The finished run's result.json, or None if the run is new or to be resumed.
    """

    def __init__(self, path: str | os.PathLike[str], config: ConfigDict, *, follows: bool = False):
        """Creates or reopens the directory.

        Args:
          path: The directory.
          config: The run's config.
          follows: Only look, since another process of the same run has opened it.

        Raises:
          ConfigError: If it belongs to another config, another process is running in it, or
            it is not a directory of ours.
        """
        self.path = expanded(path).absolute()
        self._lock: TextIO | None = None
        if follows:
            self.result = self._read("result.json")
            return
        try:
            make_private(self.path)
        except OSError as error:
            raise ConfigError(
                f"cannot use {self.path} as the working directory: {error.strerror}; "
                "give another one with --workdir."
            ) from error
        self._lock = self._acquire()
        kept = self._read("config.json")
        try:
            changed = [] if kept is None else config_pages.differences(config, kept)
        except ConfigError:
            self.close()
            raise
        # Before the first checkpoint there is nothing to lose: a mistyped field may be mended.
        if changed and any(self.path.glob("checkpoints/[0-9]*")):
            self.close()
            raise ConfigError(
                f"{self.path} belongs to a run with another config ({'; '.join(changed)}); "
                "give another --workdir, or the config it was made with."
            )
        if kept is None and any(entry.name[0] != "." for entry in self.path.iterdir()):
            self.close()
            raise ConfigError(
                f"{self.path} is not empty and holds no run; give an empty or new --workdir."
            )
        if kept is None or changed:
            with replacing(self.path / "config.json") as file:
                file.write(config_pages.to_json(config))
        self.result = self._read("result.json")

    def _acquire(self) -> TextIO:
        path = self.path / ".lock"
        lock = path.open("w")
        try:
            if locks.take(lock.fileno(), path):
                return lock
            raise ConfigError(
                f"another process is running in {self.path}; "
                "wait for it, or give another --workdir."
            )
        except ConfigError:
            lock.close()
            raise

    def _read(self, name: str) -> dict[str, Any] | None:
        path = self.path / name
        if not path.exists():
            return None
        try:
            return own_files.read_json(path, _FIELDS[name], _REMEDIES[name], ConfigError)
        except ConfigError:
            self.close()
            raise

    def close(self) -> None:
        """Lets other processes in."""
        if self._lock:
            self._lock.close()
