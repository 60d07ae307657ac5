"""Wherever a run has its data, on the devices or on disk, it computes the same."""

import json
import signal
import time

import pytest


def finished(start, page, workdir, *overrides, **environment):
    process = start("main", f"--config={page}", f"--workdir={workdir}", *overrides, **environment)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return rows, json.loads((workdir / "result.json").read_text())


@pytest.mark.slow
@pytest.mark.parametrize("devices", [1, 4])
def test_losses_scores_and_weights_are_equal_bit_for_bit(
    start, page, tmp_path, environment, devices
):
    flags = f"{environment['XLA_FLAGS']} --xla_force_host_platform_device_count={devices}"
    common = ("--config.epochs=1", "--config.augment=rotate_flip")
    runs = {}
    for way in ("false", "true", "true workers=2", "decoded", "sharded"):
        streaming, *workers = way.split()
        runs[way] = finished(
            start,
            page,
            tmp_path / way,
            *common,
            f"--config.dataset.streaming={streaming}",
            *(f"--config.dataset.{given}" for given in workers),
            XLA_FLAGS=flags,
        )
    rows, result = runs.pop("false")
    assert len(rows) == 9
    for way, (streamed_rows, streamed_result) in runs.items():
        for row, streamed in zip(rows, streamed_rows, strict=True):
            assert (row["step"], row["loss"]) == (streamed["step"], streamed["loss"])
        assert result["params_digest"] == streamed_result["params_digest"]
        for split in ("val", "test"):
            assert result[split] == streamed_result[split]
            name = f"predictions_{split}.csv"
            assert (tmp_path / "false" / name).read_bytes() == (tmp_path / way / name).read_bytes()
        assert 0 <= streamed_result["train"]["input_wait"] < 1


@pytest.mark.slow
def test_a_run_in_parts_that_was_stopped_resumes_bit_for_bit(start, page, tmp_path, environment):
    flags = f"{environment['XLA_FLAGS']} --xla_force_host_platform_device_count=4"
    in_parts = ("--config.epochs=2", "--config.dataset.streaming=sharded")
    _, expected = finished(start, page, tmp_path / "whole", *in_parts, XLA_FLAGS=flags)
    workdir = tmp_path / "run"
    arguments = (f"--config={page}", f"--workdir={workdir}", *in_parts)
    for number in (signal.SIGKILL, signal.SIGTERM):
        process = start("main", *arguments, XLA_FLAGS=flags)
        log = workdir / "metrics.jsonl"
        seen = len(log.read_text().splitlines()) if log.exists() else 0
        while process.poll() is None:
            if log.exists() and len(log.read_text().splitlines()) > seen + 2:
                process.send_signal(number)
                break
            time.sleep(0.02)
        process.communicate(timeout=120)
        assert process.returncode in (-number, 128 + number)
    _, result = finished(start, page, workdir, *in_parts, XLA_FLAGS=flags)
    assert result["params_digest"] == expected["params_digest"]
    assert result["test"] == expected["test"]
