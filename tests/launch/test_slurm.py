"""Training on Slurm: what is asked for, and when the job comes back."""

import signal

import pytest

from tests.launch.machine import TRAINING, Machine, wait_for


def test_slurm_is_asked_for_a_process_for_each_gpu_and_for_coming_back(machine: Machine) -> None:
    dry = machine.run(
        "slurm.sh", "--nodes=2", "--gpus=8", "--qos=spot", "--sbatch=--mem=0", "--restarts=7",
        "--dry_run", *TRAINING,
    )  # fmt: skip
    (command,) = dry.stdout.splitlines()
    for part in (
        "RESTARTS=7 sbatch ", "--nodes=2", "--ntasks-per-node=8", "--gpus-per-node=8", "--requeue",
        "--signal=B:TERM@120", "--open-mode=append", "--qos=spot", "--mem=0",
        "slurm_job.sh --config=configs/quickstart.py --workdir=/mnt/radimagenet/runs/a\\ b",
    ):  # fmt: skip
        assert part in command


SLURM_JOB = {"SLURM_JOB_ID": "12", "SLURM_CPUS_PER_TASK": "8"}


@pytest.mark.parametrize(
    ("code", "state", "turn", "comes_back"),
    [
        (143, "RUNNING", "0", True),
        (143, "COMPLETING", "0", False),  # cancelled, or put back by Slurm itself
        (143, "RUNNING", "3", False),  # often enough
        (0, "RUNNING", "0", False),
        (1, "RUNNING", "0", False),
    ],
)
def test_a_slurm_job_comes_back_only_after_a_termination_that_nobody_wanted(
    machine: Machine, code: int, state: str, turn: str, comes_back: bool
) -> None:
    machine.program("srun", f"echo cores $SRUN_CPUS_PER_TASK; exit {code}")
    machine.program("squeue", f"echo {state}")
    machine.program("scontrol", "")
    job = machine.run(
        "slurm_job.sh", "--config=c", RESTARTS="3", SLURM_RESTART_COUNT=turn, **SLURM_JOB
    )
    assert job.returncode == code
    assert "cores 8" in job.stdout
    assert machine.calls("scontrol") == (["scontrol requeue 12"] if comes_back else [])


def test_a_signal_to_the_slurm_job_reaches_the_training_and_not_srun(machine: Machine) -> None:
    # srun kills its processes when it gets SIGTERM; only scancel passes it on to them.
    machine.program(
        "srun",
        'trap "exit 9" TERM; touch "$HERE/up"\n'
        'until [ -e "$HERE/signalled" ]; do sleep 0.05; done; sleep 0.2; exit 143',
    )
    machine.program("scancel", 'touch "$HERE/signalled"')
    machine.program("squeue", "echo RUNNING")
    machine.program("scontrol", "")
    job = machine.start("slurm_job.sh", "--config=c", **SLURM_JOB)
    wait_for(machine.folder / "up")
    job.send_signal(signal.SIGTERM)
    job.communicate(timeout=30)
    assert job.returncode == 143
    assert machine.calls("scancel") == ["scancel --signal=TERM 12"]
    assert machine.calls("scontrol") == ["scontrol requeue 12"]
