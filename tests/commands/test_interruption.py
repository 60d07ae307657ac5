"""Ctrl-C at any moment ends a command in one line, with exit code 130 and nothing lost."""

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

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
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )

    return begin


def interrupted(process, after):
    """Interrupts a command after so many seconds; tells whether it was still running."""
    try:
        process.wait(after)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=60)[1]
    if process.returncode == 0 or (process.returncode == 1 and "Traceback" not in said):
        return False  # it had ended with an outcome of its own
    assert process.returncode == 130, said
    assert said.rstrip().endswith("error: interrupted."), said
    for word in ("Traceback", "Exception", "shutdown", "loop is closed"):
        assert word not in said, said
    return True


@pytest.mark.parametrize(
    "count", [pytest.param(2, id="few"), pytest.param(24, id="many", marks=pytest.mark.slow)]
)
def test_a_training_ends_in_one_line_and_the_same_command_finishes_it(tmp_path, begin, page, count):
    draws = random.Random(count)
    command = ("-m", "radimagenet_jax.main", f"--config={page}", "--config.checkpoint_every=8")
    struck = 0
    for number in range(count):
        process = begin(*command, f"--workdir={tmp_path / f'run{number // 2}'}")
        struck += interrupted(process, draws.uniform(EARLIEST, LATEST))
    assert struck
    process = begin(*command, f"--workdir={tmp_path / 'run0'}")
    said = process.communicate(timeout=200)[1]
    assert process.returncode == 0, said
    assert json.loads((tmp_path / "run0" / "result.json").read_text())["best_step"]


def test_preparing_predicting_and_studying_end_in_one_line(tmp_path, begin, data_dir):
    commands = (
        ("prepare", "--dataset=phantom", f"--data_dir={tmp_path / 'data'}"),
        (
            *("study", "--config=configs/study_breast.py:smoke", f"--workdir={tmp_path / 's'}"),
            "--config.dataset.name=phantom",
            f"--config.dataset.data_dir={data_dir}",
        ),
    )
    for name, *flags in commands:
        process = begin("-m", f"radimagenet_jax.{name}", *flags)
        time.sleep(EARLIEST)
        if process.poll() is None:
            interrupted(process, 0.5)


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
