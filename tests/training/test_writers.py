"""Laws of the log of a run."""

import itertools
import os
import resource

import pytest

from radimagenet_jax.errors import DataError
from radimagenet_jax.training import writers


def log(folder, steps, resume_step=0):
    writer = writers.MetricWriter(folder, resume_step=resume_step)
    for step in steps:
        writer.write(step, "train", loss=1 / step)
    writer.close()


def test_a_row_is_on_disk_as_soon_as_it_is_written(tmp_path):
    writer = writers.MetricWriter(tmp_path, resume_step=0)
    writer.write(1, "train", loss=0.5)
    assert writers.read_metrics(tmp_path) == [{"step": 1, "split": "train", "loss": 0.5}]
    writer.close()


def test_a_log_cut_anywhere_resumes_with_each_row_once(tmp_path):
    log(tmp_path, range(1, 6))
    path = tmp_path / "metrics.jsonl"
    whole = path.read_bytes()
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        kept = [row["step"] for row in writers.read_metrics(tmp_path)]
        assert kept == list(range(1, whole[:size].count(b"\n") + 1))
    log(tmp_path, range(4, 6), resume_step=3)
    assert path.read_bytes() == whole


def test_a_damaged_line_is_named(tmp_path):
    log(tmp_path, range(1, 4))
    path = tmp_path / "metrics.jsonl"
    for damage in (b"\0" * 20, b'{"step": 2, ', b"[]", b'{"step": 2}', b"\xff\xfe"):
        lines = path.read_bytes().split(b"\n")
        lines[1] = damage
        path.write_bytes(b"\n".join(lines))
        with pytest.raises(DataError, match=r"metrics\.jsonl, line 2, is damaged"):
            writers.MetricWriter(tmp_path, resume_step=3)


def write_forever(writer):
    for step in itertools.count(1):
        writer.write(step, "train", loss=1 / step)


def test_a_full_disk_is_one_sentence_and_the_log_can_be_resumed(tmp_path):
    writer = writers.MetricWriter(tmp_path, resume_step=0)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(DataError, match=r"cannot be written: File too large.*resumes"):
            write_forever(writer)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        writer.close()
    steps = [row["step"] for row in writers.read_metrics(tmp_path)]
    assert steps == list(range(1, len(steps) + 1))
    assert len(steps) > 10
    log(tmp_path, [11], resume_step=10)
    assert len(writers.read_metrics(tmp_path)) == 11


def test_tensorboard_hides_what_a_killed_run_wrote_beyond_its_checkpoint(tmp_path):
    from tensorboardX.proto.event_pb2 import Event, SessionLog

    log(tmp_path, range(1, 6))
    before = set(os.listdir(tmp_path / "tensorboard"))
    log(tmp_path, [4], resume_step=3)
    (new,) = set(os.listdir(tmp_path / "tensorboard")) - before or before
    data = (tmp_path / "tensorboard" / new).read_bytes()
    events, at = [], 0
    while at < len(data):  # TFRecord: length (8), its checksum (4), payload, its checksum (4)
        size = int.from_bytes(data[at : at + 8], "little")
        events.append(Event.FromString(data[at + 12 : at + 12 + size]))
        at += 16 + size
    starts = [event.step for event in events if event.session_log.status == SessionLog.START]
    assert 4 in starts
    values = [(e.step, v.tag) for e in events for v in e.summary.value]
    assert values[-1] == (4, "train/loss")
