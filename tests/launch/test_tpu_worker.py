"""What happens on each worker of a TPU VM."""

import os
import re
import signal
import time

from tests.launch.machine import PROJECT, Machine, extras, wait_for

WORKER = ("run", "--config=configs/quickstart.py", "--workdir=/mnt/radimagenet/runs/a")


def test_a_worker_gives_the_trainings_output_and_exit_code(machine: Machine) -> None:
    machine.program("python", 'echo "trains $3 in $PWD, cache $JAX_COMPILATION_CACHE_DIR"; exit 3')
    done = machine.run("tpu_worker.sh", *WORKER, PYTHON=str(machine.folder / "python"))
    assert done.returncode == 3
    assert f"trains --config=configs/quickstart.py in {PROJECT}" in done.stdout
    assert "cache /mnt/radimagenet/xla" in done.stdout


def test_a_training_outlives_its_connection_is_followed_again_and_stopped(
    machine: Machine,
) -> None:
    machine.program(
        "python",
        'trap "echo saves; exit 143" TERM; touch "$HERE/up"; while :; do sleep 0.05; done',
    )
    python = str(machine.folder / "python")
    first = machine.start("tpu_worker.sh", *WORKER, PYTHON=python)
    wait_for(machine.folder / "up")
    os.killpg(first.pid, signal.SIGKILL)
    first.communicate(timeout=30)

    again = machine.start("tpu_worker.sh", *WORKER, PYTHON=python)
    time.sleep(0.3)
    stopped = machine.run("tpu_worker.sh", "stop")
    output, _ = again.communicate(timeout=30)
    assert stopped.returncode == 0
    assert again.returncode == 143
    assert "saves" in output
    assert len(machine.calls("python -m radimagenet_jax.main")) == 1


def test_stopping_a_worker_without_a_training_is_no_error(machine: Machine) -> None:
    stopped = machine.run("tpu_worker.sh", "stop")
    assert stopped.returncode == 0
    assert "no training runs here" in stopped.stderr


def test_a_worker_mounts_the_shared_disk_and_installs_the_tpu_extra(machine: Machine) -> None:
    dry = machine.run("tpu_worker.sh", "--dry_run", "install", "10.0.0.2:/share")
    assert "sudo mount -t nfs -o hard 10.0.0.2:/share /mnt/radimagenet" in dry.stdout
    (extra,) = re.findall(rf"{PROJECT}\\\[(\w+)\\\]", dry.stdout)
    assert extra in extras()
