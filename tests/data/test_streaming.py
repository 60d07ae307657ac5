"""Laws of streamed splits: what they give is what memory holds, whatever the step they begin at."""

import itertools
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from radimagenet_jax.data import datasets, streaming
from radimagenet_jax.data.preparation import prepare
from radimagenet_jax.errors import ConfigError, DataError
from radimagenet_jax.training.order import DataOrder
from tests.radimagenet_source import write_source
from tests.worker_processes import has_ended, workers_of

CLASSES = ("CT-abd-normal", "MR-knee-normal", "US-usabd-liver")


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("streaming")
    write_source(folder / "downloads/manual/radimagenet", 200, 24, classes=CLASSES)
    return folder


def opened(folder, size=20, **options):
    """The set as it is loaded, with three of the 165 classes only."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets, "_check_records", lambda *_: None)
        return datasets.load("radimagenet", folder, size, **options)


@pytest.fixture(scope="module")
def both(data_dir):
    return opened(data_dir), opened(data_dir, streaming="true")


def test_a_streamed_data_set_is_the_one_in_memory(both):
    held, streamed = both
    assert streamed.fingerprint == held.fingerprint
    assert streamed.notes == held.notes
    assert streamed.class_names == held.class_names
    for split in ("train", "val", "test"):
        one, other = getattr(held, split), getattr(streamed, split)
        assert isinstance(other, streaming.StreamedSplit)
        assert (one.keys, one.patients) == (other.keys, other.patients)
        np.testing.assert_array_equal(one.labels, other.labels)
        np.testing.assert_array_equal(one.ids, other.ids)
        places = np.random.default_rng(0).permutation(len(one))[:20]
        np.testing.assert_array_equal(one.read(places), other.read(places))
        assert other.channels == 1


@pytest.mark.parametrize(
    ("first", "threads", "workers"), [*itertools.product((0, 1, 7, 11), (1, 3), (0,)), (1, 3, 2)]
)
def test_batches_are_those_of_the_order_from_any_step_on(both, first, threads, workers):
    held, streamed = both
    order = DataOrder(len(held.train), 48, seed=5, shuffle=True)
    rows = np.arange(48)
    found = streaming.batches(
        streamed.train, order, rows, first, 14, threads=threads, workers=workers
    )
    count = 0
    for step, batch in enumerate(found, first):
        index, mask = order.batch(step)
        np.testing.assert_array_equal(batch.images, held.train.images[index])
        np.testing.assert_array_equal(batch.labels, held.train.labels[index])
        np.testing.assert_array_equal(batch.ids, held.train.ids[index])
        np.testing.assert_array_equal(batch.mask, mask)
        count += 1
    assert count == 14 - first


def test_hosts_read_only_their_own_rows(both, monkeypatch):
    held, streamed = both
    order = DataOrder(len(held.train), 64, seed=1, shuffle=True)
    read = []
    original = streaming.StreamedSplit.read
    monkeypatch.setattr(
        streaming.StreamedSplit,
        "read",
        lambda self, places: read.extend(np.asarray(places).tolist()) or original(self, places),
    )
    for rows in (np.arange(32), np.arange(32, 64)):
        read.clear()
        (batch,) = streaming.batches(streamed.train, order, rows, 2, 3)
        assert sorted(read) == sorted(order.batch(2)[0][rows].tolist())
        np.testing.assert_array_equal(batch.images, held.train.images[order.batch(2)[0][rows]])


def test_a_stream_that_is_left_early_reads_no_further(both, monkeypatch):
    _, streamed = both
    reads = itertools.count()
    original = streaming.StreamedSplit.read
    monkeypatch.setattr(streaming.StreamedSplit, "read", lambda *a: [next(reads), original(*a)][1])
    order = DataOrder(len(streamed.train), 16, seed=1, shuffle=True)
    found = streaming.batches(streamed.train, order, np.arange(16), 0, 10_000, threads=2)
    next(found)
    del found
    assert next(reads) < 30


@pytest.mark.parametrize(
    ("memory", "expected"), [(10**9, datasets.Split), (10_000, streaming.StreamedSplit)]
)
def test_auto_streams_what_does_not_fit(data_dir, memory, expected):
    dataset = opened(data_dir, streaming="auto", memory=memory)
    assert isinstance(dataset.train, expected)


def test_one_colour_image_makes_three_channels_of_all(tmp_path):
    root = tmp_path / "downloads/manual/radimagenet"
    rows = write_source(root, 60, 16, classes=CLASSES)
    pixels = np.zeros((16, 16), np.uint8)
    coloured = cv2.imencode(".png", np.dstack([pixels, pixels, pixels + 200]))[1].tobytes()
    (root / rows["val"][0][0]).write_bytes(coloured)
    held, streamed = opened(tmp_path), opened(tmp_path, streaming="true")
    assert held.train.read([0]).shape == (1, 20, 20, 3)
    for split in ("train", "val"):
        one, other = getattr(held, split), getattr(streamed, split)
        np.testing.assert_array_equal(one.read(range(9)), other.read(range(9)))


def test_the_index_is_read_again_and_made_anew_when_it_is_of_no_use(data_dir, monkeypatch):
    expected = opened(data_dir, streaming="true").fingerprint
    built = prepare("radimagenet", data_dir)
    path = next(path for path in Path(built.data_dir).glob(".train_index.npz"))
    scans = []
    original = streaming._scan
    monkeypatch.setattr(
        streaming, "_scan", lambda source: scans.append(source.split) or original(source)
    )
    assert opened(data_dir, streaming="true").fingerprint == expected
    assert not scans
    whole = path.read_bytes()
    for place in (100, len(whole) // 3, len(whole) // 2, len(whole) - 10):
        flipped = bytearray(whole)
        flipped[place] ^= 16
        for damaged in (whole[:place], bytes(flipped), b""):
            scans.clear()
            path.write_bytes(damaged)
            assert opened(data_dir, streaming="true").fingerprint == expected
            # Of a zip archive, some bits mean nothing, and where they are depends on its writer.
            assert scans == ["train"] or (damaged == bytes(flipped) and not scans)
            made = list(scans)
            assert opened(data_dir, streaming="true").fingerprint == expected
            assert scans == made  # it was made anew


def test_an_index_that_cannot_be_written_stops_nobody_and_leaves_nothing(data_dir, monkeypatch):
    expected = opened(data_dir, streaming="true").fingerprint
    folder = Path(prepare("radimagenet", data_dir).data_dir)
    for path in folder.glob(".*_index.npz"):
        path.unlink()

    def full(file, **arrays):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(streaming.np, "savez", full)
        assert opened(data_dir, streaming="true").fingerprint == expected
    assert not list(folder.glob(".*_index*"))
    opened(data_dir, streaming="true")
    assert list(folder.glob(".*_index.npz"))


@pytest.mark.parametrize(("is_noticed_at_once", "workers"), [(True, 0), (False, 0), (False, 2)])
def test_damaged_records_are_told_in_one_sentence(tmp_path, is_noticed_at_once, workers):
    write_source(tmp_path / "downloads/manual/radimagenet", 60, 16, classes=CLASSES)
    opened(tmp_path, streaming="true")
    (records,) = Path(prepare("radimagenet", tmp_path).data_dir).glob("*train.array*")
    times = records.stat()
    content = bytearray(records.read_bytes())
    middle = len(content) // 2
    content[middle - 4000 : middle + 4000] = bytes(8000)
    records.write_bytes(content)
    if not is_noticed_at_once:  # a disk that fails changes no time stamp
        os.utime(records, ns=(times.st_atime_ns, times.st_mtime_ns))

    def use():
        split = opened(tmp_path, streaming="true").train
        order = DataOrder(len(split), 16, seed=1, shuffle=False)
        last = order.steps_per_epoch
        list(streaming.batches(split, order, np.arange(16), 0, last, workers=workers))

    with pytest.raises(DataError, match=r"prepared data set in .* is damaged .*prepare it again"):
        use()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc tells which they are")
def test_a_killed_worker_is_told_in_one_sentence_and_the_others_end(both):
    order = DataOrder(len(both[1].train), 16, seed=5, shuffle=True)
    found = streaming.batches(both[1].train, order, np.arange(16), 0, 10_000, workers=2)
    next(found)
    one, other = workers_of(os.getpid())
    os.kill(one, signal.SIGKILL)
    with pytest.raises(ConfigError, match=r"worker process .* \(signal 9\).*dataset.workers=0"):
        list(found)
    assert other not in workers_of(os.getpid())


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc tells which they are")
def test_workers_end_with_their_process_and_leave_no_shared_memory(data_dir):
    program = f"""
import numpy as np
from tests.data.test_streaming import opened, streaming, DataOrder
split = opened({str(data_dir)!r}, streaming="true").train
order = DataOrder(len(split), 16, seed=5, shuffle=True)
found = streaming.batches(split, order, np.arange(16), 0, 10_000, workers=2)
next(found)
print("begun", flush=True)
input()
"""
    before = set(os.listdir("/dev/shm"))
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "begun\n"
    workers = workers_of(process.pid)
    assert len(workers) == 2
    process.kill()
    process.wait()
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        alive = [pid for pid in workers if not has_ended(pid)]
        if not alive and set(os.listdir("/dev/shm")) <= before:
            return
        time.sleep(0.1)
    pytest.fail(f"left: processes {alive}, files {set(os.listdir('/dev/shm')) - before}")
