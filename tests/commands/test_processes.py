"""Laws of runs of several processes: two processes of two devices each, as two hosts would be."""

import json
import os
import signal
import socket
import time

import numpy as np
import pytest

# Sums in another order differ in their last bits. A unit of the ReLU that flips for it changes a
# gradient for good, and Adam divides such differences by themselves: so the steps are small.
STEADY = (
    "--config.optimizer.name=sgd",
    "--config.optimizer.learning_rate=1e-6",
    "--config.optimizer.momentum=0.0",
    "--config.epochs=1",
)


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


@pytest.fixture(scope="module")
def pair(start, page):
    """Starts both processes of a run; `more` are further arguments of the second."""

    def begin(workdir, *arguments, more=()):
        port = free_port()
        return [
            start(
                "main",
                f"--config={page}",
                f"--workdir={workdir}",
                *arguments,
                *(more if number else ()),
                f"--coordinator=127.0.0.1:{port}",
                "--processes=2",
                f"--process_id={number}",
                JAX_PLATFORMS="cpu",
                JAX_NUM_CPU_DEVICES="2",
            )
            for number in range(2)
        ]

    return begin


def ended(processes, timeout=300):
    """Waits; returns exit codes and what was said on standard error."""
    said = [process.communicate(timeout=timeout)[1] for process in processes]
    return [process.returncode for process in processes], said


def rows(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def wait_for_rows(workdir, processes, count):
    log = workdir / "metrics.jsonl"
    deadline = time.monotonic() + 200
    while time.monotonic() < deadline and all(process.poll() is None for process in processes):
        if log.exists() and len(log.read_text().splitlines()) >= count:
            return
        time.sleep(0.05)
    raise AssertionError(ended(processes, 5))


@pytest.fixture(scope="module")
def together(tmp_path_factory, pair):
    """A finished run of two processes."""
    workdir = tmp_path_factory.mktemp("together") / "run"
    codes, said = ended(pair(workdir, *STEADY))
    assert codes == [0, 0], said
    assert "validation loss" in said[0]
    assert "validation loss" not in said[1]  # one voice
    return workdir


@pytest.mark.slow
@pytest.mark.alone
def test_two_processes_learn_and_predict_what_one_does(together, tmp_path, start, page):
    alone = tmp_path / "run"
    code, said = ended([start("main", f"--config={page}", f"--workdir={alone}", *STEADY)])
    assert code == [0], said
    for one, other in zip(rows(together), rows(alone), strict=True):
        assert (one["step"], one["split"]) == (other["step"], other["split"])
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-5)
    for split in ("val", "test"):
        tables = [
            (workdir / f"predictions_{split}.csv").read_text().splitlines()
            for workdir in (together, alone)
        ]
        for one, other in zip(*tables, strict=True):
            key, *found = one.rsplit(",", 2)
            expected_key, *expected = other.rsplit(",", 2)
            assert key == expected_key
            if not key.startswith("key"):
                np.testing.assert_allclose(
                    np.array(found, float), np.array(expected, float), atol=1e-5
                )


@pytest.mark.slow
@pytest.mark.alone
def test_sigterm_to_one_process_saves_and_stops_both_and_they_resume_bit_for_bit(
    together, tmp_path, pair
):
    workdir = tmp_path / "run"
    processes = pair(workdir, *STEADY)
    wait_for_rows(workdir, processes, 3)
    processes[1].send_signal(signal.SIGTERM)
    codes, said = ended(processes)
    assert codes == [143, 143], said
    assert "SIGTERM: saved step" in said[0]
    codes, said = ended(pair(workdir, *STEADY))
    assert codes == [0, 0], said
    assert "resuming at step" in said[0]
    digests = [
        json.loads((folder / "result.json").read_text())["params_digest"]
        for folder in (workdir, together)
    ]
    assert digests[0] == digests[1]


@pytest.mark.slow
@pytest.mark.alone
def test_processes_that_hold_parts_of_the_images_compute_the_same_and_resume(
    together, tmp_path, pair
):
    workdir = tmp_path / "run"
    in_parts = (*STEADY, "--config.dataset.streaming=sharded")
    processes = pair(workdir, *in_parts)
    wait_for_rows(workdir, processes, 3)
    processes[0].send_signal(signal.SIGTERM)
    codes, said = ended(processes)
    assert codes == [143, 143], said
    codes, said = ended(pair(workdir, *in_parts))
    assert codes == [0, 0], said
    assert "on the devices in parts" in said[0]
    results = [json.loads((folder / "result.json").read_text()) for folder in (workdir, together)]
    assert results[0]["params_digest"] == results[1]["params_digest"]
    assert results[0]["test"] == results[1]["test"]


@pytest.mark.slow
@pytest.mark.alone
def test_a_run_goes_on_with_other_devices_and_hosts(together, tmp_path, start, page, pair):
    workdir = tmp_path / "run"
    flags = (f"--config={page}", f"--workdir={workdir}", *STEADY)
    for devices, until in ((4, 2), (1, 4)):
        alone = start("main", *flags, JAX_PLATFORMS="cpu", JAX_NUM_CPU_DEVICES=str(devices))
        wait_for_rows(workdir, [alone], until)
        alone.send_signal(signal.SIGTERM)
        codes, said = ended([alone])
        assert codes == [143], said
        assert f"{devices} x cpu" in said[0]
    codes, said = ended(pair(workdir, *STEADY))
    assert codes == [0, 0], said
    assert "resuming at step" in said[0]
    for one, other in zip(rows(workdir), rows(together), strict=True):
        assert (one["step"], one["split"]) == (other["step"], other["split"])
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-5)


@pytest.mark.slow
@pytest.mark.alone
@pytest.mark.parametrize("victim", [0, 1])
def test_a_process_that_dies_ends_the_other_within_a_minute_and_both_resume(
    together, tmp_path, pair, victim
):
    workdir = tmp_path / "run"
    processes = pair(workdir, *STEADY)
    wait_for_rows(workdir, processes, 3)
    processes[victim].kill()
    began = time.monotonic()
    codes, said = ended(processes, 90)
    assert time.monotonic() - began < 60
    assert codes[1 - victim] not in (0, None)
    assert "with the same command: the run resumes from its last" in said[1 - victim]
    codes, said = ended(pair(workdir, *STEADY))
    assert codes == [0, 0], said
    digests = [
        json.loads((folder / "result.json").read_text())["params_digest"]
        for folder in (workdir, together)
    ]
    assert digests[0] == digests[1]


@pytest.mark.slow
@pytest.mark.alone
def test_processes_fall_back_from_a_damaged_checkpoint_together(together, tmp_path, pair):
    workdir = tmp_path / "run"
    processes = pair(workdir, *STEADY, "--config.checkpoint_every=1")
    wait_for_rows(workdir, processes, 5)
    processes[0].send_signal(signal.SIGTERM)
    codes, said = ended(processes)
    assert codes == [143, 143], said
    before, newest = sorted(int(path.name) for path in workdir.glob("checkpoints/[0-9]*"))[-2:]
    for path in (workdir / "checkpoints" / str(newest)).rglob("d/*"):
        path.write_bytes(path.read_bytes()[:-1])
    codes, said = ended(pair(workdir, *STEADY, "--config.checkpoint_every=1"))
    assert codes == [0, 0], said
    assert f"goes on from step {before}." in said[0].replace("\n", " ")
    digests = [
        json.loads((folder / "result.json").read_text())["params_digest"]
        for folder in (workdir, together)
    ]
    assert digests[0] == digests[1]


def test_processes_that_disagree_on_the_config_are_refused_in_one_sentence(tmp_path, pair):
    codes, said = ended(pair(tmp_path / "run", more=["--config.seed=5"]), 120)
    assert codes == [1, 1]
    for each in said:
        assert "the config of process 1 is not that of process 0" in each.replace("\n", " ")
        assert "Traceback" not in each
    assert not (tmp_path / "run").exists()


def test_what_the_first_process_refuses_all_refuse(tmp_path, pair):
    (tmp_path / "notes.txt").write_text("not a run")
    codes, said = ended(pair(tmp_path), 120)
    assert codes == [1, 1]
    for each in said:
        assert "is not empty and holds no run" in each.replace("\n", " ")
        assert "Traceback" not in each
    assert os.listdir(tmp_path) == ["notes.txt"] or {".lock", "notes.txt"} == set(
        os.listdir(tmp_path)
    )


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--processes=2"], "need --coordinator"),
        (["--coordinator=here", "--processes=2", "--process_id=0"], "must be HOST:PORT"),
        (["--coordinator=h:1", "--processes=2", "--process_id=2"], "must be from 0 to 1"),
        (["--coordinator=h:1", "--processes=2"], "needs --processes=N and --process_id=I"),
    ],
)
def test_flags_that_contradict_each_other_are_refused(tmp_path, start, page, flags, message):
    codes, said = ended([start("main", f"--config={page}", f"--workdir={tmp_path}/run", *flags)])
    assert codes == [1]
    assert message in said[0].replace("\n", " ")
