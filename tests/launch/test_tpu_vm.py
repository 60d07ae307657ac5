"""Training on TPU VMs: what is asked for, and when it begins again."""

import signal

import pytest

from tests.launch.machine import PROJECT, TPU, TRAINING, Machine, wait_for


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
