"""Laws of locks: one process at a time, on every system; what a system lacks is said at once."""

import errno
import fcntl
import os
import subprocess
import sys
import threading
import time
import types
from pathlib import Path

import pytest

from radimagenet_jax import locks
from radimagenet_jax.data import registry
from radimagenet_jax.errors import ConfigError, DataError, WeightsError
from radimagenet_jax.prediction.journal import Journal
from radimagenet_jax.training import config as config_pages
from radimagenet_jax.training.workdir import Workdir
from radimagenet_jax.weights import hdf5

PROJECT = Path(__file__).resolve().parents[1]


@pytest.fixture(params=["fcntl", "msvcrt"])
def system(request, monkeypatch) -> str:
    """This system, and one without `fcntl`, whose `msvcrt` locks a byte at the file's position."""
    if request.param == "msvcrt":

        def locking(number: int, mode: int, count: int) -> None:
            assert (mode, count) == (2, 1)
            try:
                fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise PermissionError(errno.EACCES, "Permission denied") from error

        windows = types.SimpleNamespace(LK_NBLCK=2, locking=locking)
        monkeypatch.setitem(sys.modules, "msvcrt", windows)
        monkeypatch.setitem(sys.modules, "fcntl", None)
    return request.param


def test_a_lock_is_held_until_its_file_is_closed(system, tmp_path):
    path = tmp_path / "lock"
    with path.open("a") as first, path.open("a") as second:
        first.write("kept")
        assert locks.take(first.fileno(), path)
        assert not locks.take(second.fileno(), path)
        first.close()
        assert locks.take(second.fileno(), path)
    assert path.read_text() == "kept"


def test_who_waits_gets_the_lock_once_it_is_free(system, tmp_path):
    path = tmp_path / "lock"
    with path.open("a") as first, path.open("a") as second:
        assert locks.take(first.fileno(), path)
        held_for = 0.3
        threading.Timer(held_for, first.close).start()
        began = time.monotonic()
        assert locks.take(second.fileno(), path, wait=True)
        assert time.monotonic() - began >= held_for / 2


def test_a_second_process_is_refused_by_runs_and_predictions(system, tmp_path):
    config = config_pages.load(f"{PROJECT}/configs/quickstart.py:smoke")
    run = Workdir(tmp_path / "run", config)
    with pytest.raises(ConfigError, match="another process is running in"):
        Workdir(tmp_path / "run", config)
    run.close()
    Workdir(tmp_path / "run", config).close()
    journal = Journal(tmp_path / "scores", {"inputs": "a"})
    with pytest.raises(ConfigError, match="another process is predicting into"):
        Journal(tmp_path / "scores", {"inputs": "a"})
    journal.close()
    Journal(tmp_path / "scores", {"inputs": "a"}).close()


def test_a_file_system_without_locks_is_named(tmp_path, monkeypatch):
    def refuse(number: int, how: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with (
        (tmp_path / "lock").open("w") as file,
        pytest.raises(ConfigError, match=r"lock cannot be locked \(No locks available\)"),
    ):
        locks.take(file.fileno(), tmp_path / "lock")


def test_what_windows_has_not_is_said_at_once(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "array_record", None)
    with pytest.raises(DataError, match=r"'busi' needs .* array_record.*Windows; prepare .* WSL"):
        registry.builder("busi", tmp_path)
    with (tmp_path / "w.h5").open("wb+") as file, monkeypatch.context() as patched:
        patched.setattr("radimagenet_jax.weights.hdf5.os.name", "nt")
        with pytest.raises(
            WeightsError, match=r"w\.h5 is HDF5, which is read under Linux.*convert"
        ):
            hdf5._Worker(file, "w.h5")


def test_networks_load_and_score_without_the_modules_of_posix(tmp_path):
    script = f"""
import signal, subprocess, sys, types  # subprocess would take msvcrt for a sign of Windows
sys.modules["msvcrt"] = types.SimpleNamespace(LK_NBLCK=2, locking=lambda *_: None)
for name in ("fcntl", "resource", "pwd", "grp", "array_record"):
    sys.modules[name] = None
for name in ("SIGALRM", "SIGPIPE", "pthread_sigmask"):
    delattr(signal, name)
import numpy as np
import radimagenet_jax as rin
from radimagenet_jax import command, predict, study
net = rin.create_model("resnet50", class_names=("a", "b"), image_size=32)
net.save({str(tmp_path / "net")!r})
import cv2
cv2.imwrite({str(tmp_path / "a.png")!r}, np.zeros((32, 32), np.uint8))
sys.argv = ["", "--weights={tmp_path / "net"}", "--inputs={tmp_path}", "--output={tmp_path / "o"}"]
command.run(predict.main)
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        cwd=PROJECT,
        timeout=300,
        # So that commands are not started over, which has no meaning there.
        env={**os.environ, "GLIBC_TUNABLES": "glibc.malloc.hugetlb=0"},
    )
    assert done.returncode == 0, done.stderr
    assert len((tmp_path / "o/predictions.csv").read_text().splitlines()) == 2
