"""A run that streams its data, in either form, computes what one with them on the devices does."""

import json

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
    for streaming in ("false", "true", "decoded"):
        runs[streaming] = finished(
            start,
            page,
            tmp_path / streaming,
            *common,
            f"--config.dataset.streaming={streaming}",
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
