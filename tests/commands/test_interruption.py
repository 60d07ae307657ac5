"""Ctrl-C at any moment ends a command in one line, with exit code 130 and nothing lost."""

import csv
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.worker_processes import workers_of

PROJECT = Path(__file__).resolve().parents[2]
# Before, Python and our first modules are still being read.
EARLIEST, LATEST = 2.0, 9.0


@pytest.fixture(scope="module")
def begin(environment):
    """Starts a command of a shell that lets its Ctrl-C through, unlike one in the background."""

    def begin(*command):
        return subprocess.Popen(
            [sys.executable, *map(str, command)],
            cwd=PROJECT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )

    return begin


def interrupted(process, after):
    """Interrupts a command after so many seconds; tells whether it was still running."""
    try:
        process.wait(after)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGINT)  # a terminal sends it to all of a command's processes
    said = process.communicate(timeout=60)[1]
    if process.returncode == 0:
        return False  # it was done
    assert process.returncode == 130, said
    assert said.rstrip().endswith("error: interrupted."), said
    for word in ("Traceback", "Exception", "shutdown", "loop is closed", "leaked"):
        assert word not in said, said
    return True


def finished(process):
    """Waits for a command that is left alone, which succeeds."""
    said = process.communicate(timeout=300)[1]
    assert process.returncode == 0, said


MANY = 24


@pytest.mark.parametrize("count", [2, pytest.param(MANY, marks=pytest.mark.slow)])
def test_a_training_ends_in_one_line_and_the_same_command_finishes_it(tmp_path, begin, page, count):
    draws = random.Random(count)
    command = ("-m", "radimagenet_jax.main", f"--config={page}", "--config.checkpoint_every=8")
    struck = 0
    for number in range(count):
        process = begin(*command, f"--workdir={tmp_path / f'run{number // 2}'}")
        struck += interrupted(process, draws.uniform(EARLIEST, LATEST))
    assert struck
    finished(begin(*command, f"--workdir={tmp_path / 'run0'}"))
    assert json.loads((tmp_path / "run0" / "result.json").read_text())["best_step"]


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc tells which they are")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_worker_processes_are_not_heard_of(tmp_path, begin, page, number):
    command = (
        *("-m", "radimagenet_jax.main", f"--config={page}", "--config.dataset.streaming=true"),
        *("--config.dataset.workers=2", "--config.epochs=100", f"--workdir={tmp_path / 'run'}"),
    )
    for after in (0, 1, 3, 6):  # they are starting, or at work
        process = begin(*command)
        while not workers_of(process.pid):
            assert process.poll() is None, process.communicate()[1]
            time.sleep(0.02)
        time.sleep(after)
        os.killpg(process.pid, number)
        said = process.communicate(timeout=60)[1]
        assert process.returncode == 128 + number, said
        for word in ("Traceback", "worker", "leaked"):
            assert word not in said, said


@pytest.mark.slow
def test_a_study_ends_in_one_line_and_the_same_command_finishes_it(tmp_path, begin, data_dir):
    draws = random.Random(MANY)
    # The covid task has a single split, as the phantoms have.
    command = (
        *("-m", "radimagenet_jax.study", "--config=configs/study_covid.py:smoke"),
        *("--config.dataset.name=phantom", f"--config.dataset.data_dir={data_dir}"),
        *("--config.dataset.positive=lesion", "--config.study.models=('resnet50',)"),
        "--config.study.settings=(('unfreezeall', 1e-3), ('freezeall', 1e-2))",
    )
    struck = 0
    for number in range(MANY):
        process = begin(*command, f"--workdir={tmp_path / f'study{number // 4}'}")
        # The first early enough to meet it on any machine.
        struck += interrupted(process, draws.uniform(EARLIEST, 2 * LATEST if number else 3.0))
    assert struck
    finished(begin(*command, f"--workdir={tmp_path / 'study0'}"))
    with open(tmp_path / "study0" / "study.csv", newline="") as file:
        assert [row["status"] for row in csv.DictReader(file)] == ["ok"] * 2


@pytest.mark.slow
def test_a_preparation_ends_in_one_line_and_the_same_command_finishes_it(tmp_path, begin):
    draws = random.Random(MANY)
    command = ("-m", "radimagenet_jax.prepare", "--dataset=phantom")
    struck = 0
    for number in range(MANY):
        process = begin(*command, f"--data_dir={tmp_path / str(number)}")
        struck += interrupted(process, draws.uniform(EARLIEST, 4))
    assert struck
    finished(begin(*command, f"--data_dir={tmp_path / '0'}"))
    assert [path.name for path in (tmp_path / "0" / "phantom").iterdir()] == ["1.0.0"]


# Runs in a process of its own, which the interruption ends.
_SCRIPT = """
import os, signal, sys, threading, time
from radimagenet_jax import command
def main(arguments):
    {body}
command.run(main)
"""


@pytest.mark.parametrize(
    "body",
    [
        # A library that makes another error of it, one that passes over it, a destructor that
        # loses it, a thread that outlives it, and a second Ctrl-C.
        "try:\n        os.kill(os.getpid(), 2); time.sleep(9)\n    except BaseException as error:"
        "\n        raise ValueError('lost') from error",
        "try:\n        os.kill(os.getpid(), 2); time.sleep(9)\n    except BaseException:"
        "\n        pass",
        "class Lossy:\n        def __del__(self):\n            os.kill(os.getpid(), 2)"
        "\n            time.sleep(0.1)\n    Lossy(); time.sleep(9)",
        "threading.Thread(target=time.sleep, args=(99,)).start(); os.kill(os.getpid(), 2)"
        "\n    time.sleep(9)",
        "try:\n        os.kill(os.getpid(), 2); time.sleep(9)\n    finally:"
        "\n        os.kill(os.getpid(), 2); time.sleep(9)",
    ],
)
def test_nothing_that_a_library_does_with_it_prints_a_traceback(begin, body):
    assert interrupted(begin("-c", _SCRIPT.format(body=body)), 30)
