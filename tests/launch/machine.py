"""A machine whose cluster is made of stand-ins, for the launchers to work on."""

import os
import subprocess
import time
import tomllib
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
LAUNCH = PROJECT / "launch"
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


def extras() -> set[str]:
    settings = tomllib.loads((PROJECT / "pyproject.toml").read_text())
    return set(settings["project"]["optional-dependencies"])


def wait_for(path: Path) -> None:
    end = time.monotonic() + 30
    while not path.exists():
        assert time.monotonic() < end, f"{path.name} does not come"
        time.sleep(0.02)
