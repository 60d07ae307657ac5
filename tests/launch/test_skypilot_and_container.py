"""SkyPilot and the container file."""

import os
import re
import subprocess

import pytest
import yaml

from tests.launch.machine import LAUNCH, PROJECT, Machine, extras


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
