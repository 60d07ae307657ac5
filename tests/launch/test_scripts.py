"""All launchers: they can be read, explain themselves, and refuse what is wrong."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.launch.machine import LAUNCH, PROJECT, TPU, TRAINING, Machine

SCRIPTS = sorted(LAUNCH.glob("*.sh"))


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
