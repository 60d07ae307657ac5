"""The launchers: what they would run, what they refuse, and how they come back."""

import os
import re
import shutil
import signal
import subprocess
import time
import tomllib
from pathlib import Path

import pytest
import yaml

PROJECT = Path(__file__).resolve().parents[1]
LAUNCH = PROJECT / "launch"
SCRIPTS = sorted(LAUNCH.glob("*.sh"))
TRAINING = ("--", "--config=configs/quickstart.py", "--workdir=/mnt/radimagenet/runs/a b")
TPU = ("--name=rin", "--zone=us-west4-a", "--type=v5litepod-8", "--shared=10.0.0.2:/share")


class Machine:
    """A folder of stand-ins for the programs of a cluster, which write down how they are called.

    Attributes:
      folder: Where the stand-ins and what they remember are.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self._environment = {
            "PATH": f"{folder}:{os.environ['PATH']}",
            "HOME": str(folder),
            "HERE": str(folder),
        }
        # A test that forgets its stand-in must not reach the cluster it happens to run on.
        for name in ("gcloud", "sbatch", "srun", "scancel", "scontrol", "squeue", "sudo"):
            self.program(name, "exit 97")

    def program(self, name: str, body: str) -> None:
        path = self.folder / name
        path.write_text(f'#!/usr/bin/env bash\necho "{name} $*" >>"$HERE/calls"\n{body}\n')
        path.chmod(0o755)

    def calls(self, containing: str = "") -> list[str]:
        path = self.folder / "calls"
        lines = path.read_text().splitlines() if path.exists() else []
        return [line for line in lines if containing in line]

    def start(self, script: str, *words: str, **environment: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            ["bash", str(LAUNCH / script), *words],
            env=self._environment | environment,
            cwd=self.folder,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )

    def run(self, script: str, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
        process = self.start(script, *words, **environment)
        output, errors = process.communicate(timeout=60)
        return subprocess.CompletedProcess(words, process.returncode, output, errors)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


# ------------------------------------------------------------------ All scripts


def test_all_scripts_pass_shellcheck() -> None:
    if not shutil.which("shellcheck"):
        pytest.skip("shellcheck is not installed")
    found = subprocess.run(
        ["shellcheck", "--external-sources", *map(str, SCRIPTS)],
        cwd=PROJECT,
        capture_output=True,
        text=True,
    )
    assert found.returncode == 0, found.stdout


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_a_script_is_bash_that_can_be_parsed(script: Path) -> None:
    assert subprocess.run(["bash", "-n", str(script)]).returncode == 0


@pytest.mark.parametrize("script", ["local.sh", "slurm.sh", "tpu_vm.sh", "tpu_worker.sh"])
def test_help_names_every_flag_that_the_script_takes(machine: Machine, script: str) -> None:
    helped = machine.run(script, "--help")
    assert helped.returncode == 0
    taken = set(re.findall(r"^ +(--[a-z_]+)(?:=\*)?\)", (LAUNCH / script).read_text(), re.M))
    missing = {flag for flag in taken if flag not in helped.stdout} - {"--help", "--"}
    assert not missing


@pytest.mark.parametrize(
    ("script", "words", "complaint"),
    [
        ("local.sh", ["--processes=0", *TRAINING], "--processes must be a whole number from 1"),
        ("slurm.sh", [], "give the training's flags after --"),
        ("slurm.sh", ["--", "--config=configs/covid.py"], "lack --workdir=DIR"),
        ("slurm.sh", ["--", "--workdir=runs/a"], "lack --config=PAGE"),
        ("slurm.sh", ["--nodes=two", *TRAINING], "--nodes must be a whole number from 1"),
        ("slurm.sh", ["--gpus=0", *TRAINING], "--gpus must be a whole number from 1, not '0'"),
        ("slurm.sh", ["--time=tomorrow", *TRAINING], "--time must be MINUTES"),
        ("slurm.sh", ["--job_name=a b", *TRAINING], "--job_name may have letters"),
        ("slurm.sh", ["--gpu=1", *TRAINING], "unknown argument '--gpu=1'"),
        ("slurm.sh", ["--partition=", *TRAINING], "unknown argument '--partition='"),
        ("tpu_vm.sh", ["destroy"], "unknown command 'destroy'"),
        ("tpu_vm.sh", ["delete", "--zone=us-west4-a"], "--name must be"),
        ("tpu_vm.sh", ["delete", "--name=Rin", "--zone=us-west4-a"], "not 'Rin'"),
        ("tpu_vm.sh", ["delete", "--name=rin", "--zone=us-west4"], "--zone must be"),
        ("tpu_vm.sh", ["create", "--name=rin", "--zone=us-west4-a", "--type=h100"], "--type must"),
        ("tpu_vm.sh", ["copy", "--name=rin", "--zone=us-west4-a"], "--shared must be"),
        ("tpu_vm.sh", ["status", *TPU, "--config=x"], "unknown argument '--config=x'"),
        ("tpu_vm.sh", ["stop", *TPU, *TRAINING], "stop takes no flags of the training"),
        ("tpu_vm.sh", ["train", *TPU], "give the training's flags after --"),
        ("tpu_vm.sh", ["train", *TPU, "--poll=0", *TRAINING], "--poll must be a whole number"),
        (
            "tpu_vm.sh",
            ["run", *TPU, "--", "--config=configs/covid.py", "--workdir=runs/a"],
            "--workdir must be in /mnt/radimagenet",
        ),
        ("tpu_worker.sh", ["install", "share"], "give the shared disk as SERVER:/SHARE"),
        ("tpu_worker.sh", ["walk"], "unknown command 'walk'"),
    ],
)
def test_a_wrong_argument_is_refused_in_a_sentence(
    machine: Machine, script: str, words: list[str], complaint: str
) -> None:
    refused = machine.run(script, *words)
    assert refused.returncode == 2
    assert refused.stderr.startswith("error: ")
    assert complaint in refused.stderr
    assert refused.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("script", "words", "program"),
    [("slurm.sh", TRAINING, "sbatch"), ("tpu_vm.sh", ("status", *TPU), "gcloud")],
)
def test_the_program_of_the_cluster_is_missed_in_a_sentence(
    machine: Machine, tmp_path: Path, script: str, words: tuple[str, ...], program: str
) -> None:
    few = tmp_path / "few"
    few.mkdir()
    for name in ("bash", "dirname"):
        (few / name).symlink_to(str(shutil.which(name)))
    refused = machine.run(script, *words, PATH=str(few))
    assert refused.returncode == 2
    assert refused.stderr.startswith(f"error: {program} is not found; ")


def test_a_dry_run_starts_nothing(machine: Machine) -> None:
    machine.program("tar", "exit 97")
    words = ("--dry_run", *TRAINING)
    for script, before in (("local.sh", ()), ("slurm.sh", ()), ("tpu_vm.sh", ("train", *TPU))):
        dry = machine.run(script, *before, *words)
        assert dry.returncode == 0, dry.stderr
        assert dry.stdout
    assert machine.calls() == []


# ------------------------------------------------------------------ Slurm


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


# ------------------------------------------------------------------ TPU VMs


@pytest.mark.parametrize(
    ("kind", "version"),
    [
        ("v5litepod-256", "v2-alpha-tpuv5-lite"),
        ("v6e-16", "v2-alpha-tpuv6e"),
        ("v5p-8", "v2-alpha-tpuv5"),
        ("v4-8", "tpu-ubuntu2204-base"),
    ],
)
def test_a_tpu_is_asked_for_as_spot_with_the_software_of_its_type(
    machine: Machine, kind: str, version: str
) -> None:
    words = ("create", "--name=rin", "--zone=us-west4-a", f"--type={kind}", "--dry_run")
    asked = machine.run("tpu_vm.sh", *words).stdout.splitlines()[0]
    assert asked == (
        "gcloud compute tpus queued-resources create rin --node-id=rin --zone=us-west4-a "
        f"--accelerator-type={kind} --runtime-version={version} --spot"
    )
    assert "--spot" not in machine.run("tpu_vm.sh", *words, "--on_demand").stdout


def test_train_creates_copies_runs_and_deletes_in_this_order(machine: Machine) -> None:
    dry = machine.run("tpu_vm.sh", "train", *TPU, "--project=p", "--dry_run", *TRAINING)
    wanted = [
        "queued-resources create rin --node-id=rin --project=p --zone=us-west4-a",
        "queued-resources describe rin",
        "tar -C ",
        "tpu-vm scp PROJECT.tar.gz rin:radimagenet_jax.tar.gz",
        "tpu_worker.sh\\ install\\ 10.0.0.2:/share",
        "tpu_worker.sh\\ run\\ --config=configs/quickstart.py",
        "queued-resources delete rin --project=p --zone=us-west4-a --force --quiet",
    ]
    lines = dry.stdout.splitlines()
    assert len(lines) == len(wanted)
    for line, part in zip(lines, wanted, strict=True):
        assert part in line
    assert all("--worker=all" in line for line in lines if " ssh " in line or " scp " in line)


def test_what_is_archived_for_the_workers_exists(machine: Machine) -> None:
    dry = machine.run("tpu_vm.sh", "copy", *TPU, "--dry_run")
    archived = dry.stdout.splitlines()[0].split(" -czf PROJECT.tar.gz ")[1].split()
    assert "radimagenet_jax" in archived
    assert all((PROJECT / name).exists() for name in archived)


# A TPU that exists from `create` to `delete`. Each training ends as the next line of `outcomes`
# says: its exit code, and whether the TPU is then gone.
GCLOUD = r"""
case "$*" in
  *"queued-resources describe"*)
    [ ! -e "$HERE/offline" ] || { rm "$HERE/offline"; echo "ERROR: no network" >&2; exit 1; }
    [ -e "$HERE/request" ] || { echo "ERROR: NOT_FOUND: rin" >&2; exit 1; }
    cat "$HERE/request" ;;
  *"queued-resources create"*)
    [ ! -e "$HERE/refuse" ] || { echo "ERROR: no quota" >&2; exit 1; }
    [ ! -e "$HERE/request" ] || { echo "ERROR: ALREADY_EXISTS" >&2; exit 1; }
    echo ACTIVE >"$HERE/request" ;;
  *"queued-resources delete"*) rm "$HERE/request" ;;
  *"tpu-vm describe"*) if grep -q ACTIVE "$HERE/request"; then echo READY; else exit 1; fi ;;
  *"tpu-vm ssh"*"tpu_worker.sh run"*)
    read -r code gone <"$HERE/outcomes"; sed -i 1d "$HERE/outcomes"
    [ -z "$gone" ] || echo "$gone" >"$HERE/request"
    exit "$code" ;;
esac
"""


@pytest.mark.parametrize(
    ("outcomes", "code", "created", "trained"),
    [
        (["0"], 0, 1, 1),
        (["143 SUSPENDED", "0"], 0, 2, 2),  # preempted after a save
        (["255 SUSPENDED", "1 SUSPENDING", "0"], 0, 3, 3),  # preempted without one
        (["255", "0"], 0, 1, 2),  # only the connection broke
        (["1"], 1, 1, 1),  # the training failed: again would fail again
        (["2"], 2, 1, 1),
        (["143", "143", "143", "0"], 143, 1, 3),  # --restarts=2
    ],
)
def test_train_begins_again_when_the_tpu_is_lost_and_only_then(
    machine: Machine, outcomes: list[str], code: int, created: int, trained: int
) -> None:
    machine.program("gcloud", GCLOUD)
    machine.program("sleep", "")
    (machine.folder / "outcomes").write_text("\n".join(outcomes) + "\n")
    done = machine.run("tpu_vm.sh", "train", *TPU, "--restarts=2", *TRAINING)
    assert done.returncode == code, done.stderr
    assert len(machine.calls("queued-resources create")) == created
    assert len(machine.calls("tpu_worker.sh run")) == trained
    assert not (machine.folder / "request").exists(), "the TPU still costs"


def test_train_keeps_the_tpu_when_told_so_and_says_that_it_costs(machine: Machine) -> None:
    machine.program("gcloud", GCLOUD)
    (machine.folder / "outcomes").write_text("0\n")
    done = machine.run("tpu_vm.sh", "train", *TPU, "--keep", *TRAINING)
    assert done.returncode == 0
    assert (machine.folder / "request").exists()
    assert "launch/tpu_vm.sh delete --name=rin --zone=us-west4-a" in done.stderr


def test_a_refused_request_ends_the_launch(machine: Machine) -> None:
    machine.program("gcloud", GCLOUD)
    (machine.folder / "refuse").touch()
    done = machine.run("tpu_vm.sh", "train", *TPU, *TRAINING)
    assert done.returncode == 2
    assert "no quota" in done.stderr
    assert len(machine.calls("queued-resources create")) == 1


def test_a_state_that_cannot_be_asked_for_is_not_taken_for_a_missing_tpu(machine: Machine) -> None:
    machine.program("gcloud", GCLOUD)
    (machine.folder / "offline").touch()
    (machine.folder / "request").write_text("ACTIVE\n")
    done = machine.run("tpu_vm.sh", "create", *TPU)
    assert done.returncode == 0, done.stderr
    assert not machine.calls("queued-resources create")


def test_a_signal_to_train_stops_the_training_and_deletes_the_tpu(machine: Machine) -> None:
    slow = 'touch "$HERE/up"; until [ -e "$HERE/over" ]; do /bin/sleep 0.05; done'
    machine.program("gcloud", GCLOUD.replace("    read -r code", f"    {slow}\n    read -r code"))
    (machine.folder / "outcomes").write_text("255\n")
    launch = machine.start("tpu_vm.sh", "train", *TPU, *TRAINING)
    wait_for(machine.folder / "up")
    launch.send_signal(signal.SIGTERM)
    (machine.folder / "over").touch()
    launch.communicate(timeout=30)
    assert launch.returncode == 143
    assert len(machine.calls("tpu_worker.sh stop")) == 1
    assert not (machine.folder / "request").exists()


# ------------------------------------------------------------------ On a worker of a TPU VM

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


# ------------------------------------------------------------------ SkyPilot, container, README


def test_skypilot_comes_back_after_a_termination_on_spot_machines_that_stop_by_themselves() -> None:
    task = yaml.safe_load((LAUNCH / "skypilot.yaml").read_text())
    resources = task["resources"]
    assert resources["job_recovery"]["recover_on_exit_codes"] == [143]
    assert resources["use_spot"] is True
    assert resources["autostop"]["down"] is True
    assert task["envs"]["EXTRA"] in extras()
    for part in (task["setup"], task["run"]):
        assert subprocess.run(["bash", "-n"], input=part, text=True).returncode == 0


@pytest.mark.parametrize("nodes", [1, 2])
def test_skypilot_trains_with_the_flags_of_its_node(machine: Machine, nodes: int) -> None:
    task = yaml.safe_load((LAUNCH / "skypilot.yaml").read_text())
    (machine.folder / "venv" / "bin").mkdir(parents=True)
    machine.program("venv/bin/python", "")
    environment = {
        "HOME": str(machine.folder), "HERE": str(machine.folder), "PATH": os.environ["PATH"],
        "SKYPILOT_NUM_NODES": str(nodes), "SKYPILOT_NODE_RANK": "1",
        "SKYPILOT_NODE_IPS": "10.0.0.1\n10.0.0.2", "RUN": "covid",
        "FLAGS": "--config=configs/covid.py --config.seed=1",
    }  # fmt: skip
    subprocess.run(["bash", "-c", task["run"]], env=environment, check=True)
    (call,) = machine.calls()
    together = " --coordinator=10.0.0.1:8476 --processes=2 --process_id=1" if nodes == 2 else ""
    assert call.endswith(
        "radimagenet_jax.main --config=configs/covid.py --config.seed=1 --workdir=/runs/covid"
        + together
    )


def test_the_container_names_extras_and_files_that_exist_and_is_not_root() -> None:
    text = (LAUNCH / "Dockerfile").read_text()
    listed = re.search(r"'', ((?:\w+, )+)or several", text)
    assert listed
    named = {*re.findall(r"EXTRA=(\w+)", text), *re.findall(r"\w+", listed[1])}
    assert {"cuda12", "tpu"} <= named <= extras()
    copied = [word for line in re.findall(r"^COPY (.+) \S+$", text, re.M) for word in line.split()]
    assert {"radimagenet_jax", "configs", "tfds_builders", "pyproject.toml"} <= set(copied)
    assert all((PROJECT / name).exists() for name in copied)
    let_in = re.findall(r"^!(.+)$", (LAUNCH / "Dockerfile.dockerignore").read_text(), re.M)
    assert sorted(let_in) == sorted(copied)
    assert re.findall(r"^USER (\w+)$", text, re.M) == ["radimagenet"]


@pytest.mark.parametrize("path", sorted(LAUNCH.iterdir()), ids=lambda path: path.name)
def test_every_config_page_and_script_that_a_launcher_names_exists(path: Path) -> None:
    text = path.read_text()
    for page in re.findall(r"configs/\w+\.py", text):
        assert (PROJECT / page).is_file(), page
    for script in re.findall(r"launch/\w+\.sh", text):
        assert (PROJECT / script).is_file(), script


def test_the_readme_names_every_launcher() -> None:
    text = (LAUNCH / "README.md").read_text()
    for name in ("local.sh", "slurm.sh", "tpu_vm.sh", "skypilot.yaml", "Dockerfile"):
        assert f"`{name}`" in text


def extras() -> set[str]:
    settings = tomllib.loads((PROJECT / "pyproject.toml").read_text())
    return set(settings["project"]["optional-dependencies"])


def wait_for(path: Path) -> None:
    end = time.monotonic() + 30
    while not path.exists():
        assert time.monotonic() < end, f"{path.name} does not come"
        time.sleep(0.02)
