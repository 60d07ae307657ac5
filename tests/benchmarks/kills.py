"""Random kills of a training run: does it end as if nothing had happened?

    pip install -e . && python -m tests.benchmarks.kills

A shallow network on the phantom images, in one process and in two, saving every second step and
evaluating every eighth. Each process, or one of two, is killed (SIGKILL) or asked to stop (SIGTERM)
at a random moment after its first step; the same command then goes on, until it is struck again or
ends. A finished run is compared bit for bit with an undisturbed one: parameters, every logged
loss, chosen epoch, test figures and prediction files. The last line of the output is one JSON
object; the exit code is 1 if a run differs.
"""

import argparse
import collections
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from radimagenet_jax.console import console
from radimagenet_jax.data.preparation import prepare

RUN = (
    "--config=configs/quickstart.py:smoke",
    "--config.epochs=4",
    "--config.checkpoint_every=2",
    "--config.log_every=1",
    "--config.model_options.width=8",
)
SIGNALS = (signal.SIGKILL, signal.SIGTERM)
# A kill comes so many seconds after the first new step, at most: a session lasts about as long.
LATEST = 3.0
PATIENCE = 600.0


def main() -> int:
    """Strikes until there were so many kills, and compares every run with an undisturbed one."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.kills")
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng = random.Random(options.seed)
    struck: collections.Counter[str] = collections.Counter()
    runs, differing = 0, []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare("phantom", folder / "data")
        # Two thirds of the kills strike runs of one process.
        shares = {1: options.kills * 2 // 3, 2: options.kills}
        for processes, until in shares.items():
            job = Job(folder, processes)
            expected = job.undisturbed(folder / f"undisturbed{processes}")
            while struck.total() < until:
                workdir = folder / f"run{runs}"
                job.disturbed(workdir, rng, struck, until)
                runs += 1
                differences = sorted(
                    name for name, value in outcome(workdir).items() if value != expected[name]
                )
                differing += [
                    f"run {runs} of {processes} processes: {what}" for what in differences
                ]
                console.print(f"{struck.total()} kills, {runs} runs, {len(differing)} differences")
    described = {"kills": struck.total(), "by": dict(struck), "runs": runs, "seed": options.seed}
    print(json.dumps(described | {"differences": differing}))
    return int(bool(differing))


class Job:
    """The run as one process or several.

    Attributes:
      processes: Their number.
    """

    def __init__(self, folder: Path, processes: int):
        self.processes = processes
        self._data = folder / "data"
        self._environment = os.environ | {
            "JAX_PLATFORMS": "cpu",
            "JAX_NUM_CPU_DEVICES": str(processes),
            "JAX_COMPILATION_CACHE_DIR": str(folder / "xla"),
        }

    def undisturbed(self, workdir: Path) -> dict[str, object]:
        """Runs to the end and returns what came out."""
        self._finish(self._start(workdir))
        return outcome(workdir)

    def disturbed(
        self, workdir: Path, rng: random.Random, struck: "collections.Counter[str]", until: int
    ) -> None:
        """Runs to the end, struck at random moments until there were so many strikes in all."""
        while struck.total() < until:
            started, before = self._start(workdir), lines(workdir)
            deadline = time.monotonic() + PATIENCE
            while all(each.poll() is None for each in started) and lines(workdir) <= before:
                if time.monotonic() > deadline:
                    raise RuntimeError(f"{workdir} took no step in {PATIENCE:.0f} s")
                time.sleep(0.01)
            time.sleep(rng.uniform(0, LATEST))
            number = rng.choice(SIGNALS)
            victim = rng.choice(started)
            if victim.poll() is not None:
                self._finish(started)
                return
            victim.send_signal(number)
            codes = [each.wait(PATIENCE) for each in started]
            if codes == [0] * len(codes):
                return  # it came too late to change anything
            struck[f"{number.name}, {self.processes} process{'es' * (self.processes > 1)}"] += 1
        self._finish(self._start(workdir))

    def _start(self, workdir: Path) -> list[subprocess.Popen[bytes]]:
        with socket.socket() as found:
            found.bind(("127.0.0.1", 0))
            port = found.getsockname()[1]
        command = [sys.executable, "-m", "radimagenet_jax.main", *RUN, f"--workdir={workdir}"]
        command.append(f"--config.dataset.data_dir={self._data}")
        started = []
        for number in range(self.processes):
            place = [f"--coordinator=127.0.0.1:{port}", f"--processes={self.processes}"]
            more = [*place, f"--process_id={number}"] if self.processes > 1 else []
            with open(workdir.with_suffix(f".{number}.log"), "ab") as log:
                started.append(
                    subprocess.Popen(
                        [*command, *more], env=self._environment, stdout=log, stderr=log
                    )
                )
        return started

    def _finish(self, started: Sequence[subprocess.Popen[bytes]]) -> None:
        codes = [each.wait(PATIENCE) for each in started]
        if any(codes):
            raise RuntimeError(f"an undisturbed session ended with the exit codes {codes}")


def lines(workdir: Path) -> int:
    """How many rows the run has logged."""
    log = workdir / "metrics.jsonl"
    return len(log.read_bytes().splitlines()) if log.exists() else 0


def outcome(workdir: Path) -> dict[str, object]:
    """What has to be the same, whatever struck the run."""
    result = json.loads((workdir / "result.json").read_text())
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    found: dict[str, object] = {
        "parameters": result["params_digest"],
        "chosen epoch": result["best_step"],
        "test figures": result["test"],
        "losses": [(row["step"], row["split"], row["loss"]) for row in rows],
    }
    for split in ("val", "test"):
        found[f"{split} predictions"] = (workdir / f"predictions_{split}.csv").read_bytes()
    return found


if __name__ == "__main__":
    sys.exit(main())
