"""Laws of decoded records: what they give is what decoding gives, or they are refused."""

import contextlib
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest

from radimagenet_jax.data import datasets, decoded, streaming
from radimagenet_jax.data.preparation import prepare
from radimagenet_jax.errors import DataError
from radimagenet_jax.training.order import DataOrder
from tests.data.test_streaming import CLASSES, opened
from tests.radimagenet_source import write_source

SIZE = 20
SPLITS = ("train", "val", "test")


def source_of(folder, images=200, seed=0):
    return write_source(
        folder / "downloads/manual/radimagenet", images, 24, seed=seed, classes=CLASSES
    )


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A prepared set with its index, and nothing decoded."""
    folder = tmp_path_factory.mktemp("decoded")
    source_of(folder)
    opened(folder, SIZE, streaming="true")
    return folder


@pytest.fixture
def data_dir(prepared, tmp_path):
    """A copy, of the same time stamps."""
    return shutil.copytree(prepared, tmp_path / "data", copy_function=shutil.copy2)


def place_in(data_dir):
    return Path(prepare("radimagenet", data_dir).data_dir) / f"decoded_{SIZE}"


@pytest.fixture
def decoding(monkeypatch):
    """Collects the places of all examples that are decoded."""
    places = []
    original = streaming.StreamedSplit.read

    def read(self, chosen):
        if self.pixels is None:
            places.extend(np.asarray(chosen).tolist())
        return original(self, chosen)

    monkeypatch.setattr(streaming.StreamedSplit, "read", read)
    return places


def test_every_image_of_every_split_is_that_of_the_encoded_record(data_dir):
    held, streamed = opened(data_dir, SIZE), opened(data_dir, SIZE, streaming="decoded")
    assert streamed.fingerprint == held.fingerprint
    for name in SPLITS:
        split = getattr(streamed, name)
        assert isinstance(split.pixels, decoded.Pixels)
        np.testing.assert_array_equal(split.read(range(len(split))), getattr(held, name).images)
    assert not list(place_in(data_dir).parent.glob("*unfinished*"))


def test_one_colour_image_makes_three_channels_of_all(tmp_path):
    rows = source_of(tmp_path, 60)
    pixels = np.zeros((16, 16), np.uint8)
    coloured = cv2.imencode(".png", np.dstack([pixels, pixels, pixels + 200]))[1].tobytes()
    (tmp_path / "downloads/manual/radimagenet" / rows["val"][0][0]).write_bytes(coloured)
    held, streamed = opened(tmp_path, SIZE), opened(tmp_path, SIZE, streaming="decoded")
    for name in SPLITS:
        one, other = getattr(held, name), getattr(streamed, name)
        assert other.read([0]).shape == (1, SIZE, SIZE, 3)
        np.testing.assert_array_equal(one.images, other.read(range(len(one))))


@pytest.mark.parametrize("first", [0, 3, 9])
def test_shuffled_batches_are_those_of_encoded_records_from_any_step_of_any_epoch(data_dir, first):
    splits = [opened(data_dir, SIZE, streaming=way).train for way in ("true", "decoded")]
    order = DataOrder(len(splits[0]), 48, seed=5, shuffle=True)
    last = 3 * order.steps_per_epoch
    assert first < last
    found = [streaming.batches(split, order, np.arange(48), first, last) for split in splits]
    count = 0
    for one, other in zip(*found, strict=True):
        for part in ("images", "labels", "ids", "mask"):
            ours, theirs = getattr(one, part), getattr(other, part)
            assert ours.dtype == theirs.dtype
            np.testing.assert_array_equal(ours, theirs)
        count += 1
    assert count == last - first


def test_what_is_written_is_read_again_and_hardly_anything_decoded(data_dir, decoding):
    opened(data_dir, SIZE, streaming="decoded")
    decoding.clear()
    again = opened(data_dir, SIZE, streaming="decoded")
    assert 0 < len(decoding) <= 8 * len(SPLITS)
    again.train.read(range(len(again.train)))
    assert len(decoding) <= 8 * len(SPLITS)


@pytest.mark.parametrize(
    ("memory", "written", "kind"),
    [
        (10**9, (SIZE,), None),
        (10_000, (SIZE,), decoded.Pixels),
        (10_000, (SIZE + 1,), type(None)),
        (10_000, (), type(None)),
    ],
)
def test_auto_takes_what_is_there_for_its_size_and_makes_nothing(data_dir, memory, written, kind):
    for size in written:
        opened(data_dir, size, streaming="decoded")
    found = opened(data_dir, SIZE, streaming="auto", memory=memory).train
    if kind is None:
        assert isinstance(found, datasets.Split)
    else:
        assert isinstance(found.pixels, kind)
    there = place_in(data_dir).parent.glob("decoded_*")
    assert sorted(path.name for path in there) == sorted(f"decoded_{size}" for size in written)


def truncate(place):
    path = place / "val.pixels"
    os.truncate(path, path.stat().st_size - 1)


def of_other_records(place):
    page = json.loads((place / "decoded.json").read_text())
    (place / "decoded.json").write_text(json.dumps(page | {"fingerprint": "0" * 64}))


def foreign(place):
    """The pixels of other records of the same number, under these records' page."""
    other = place.parents[3] / "other"
    source_of(other, seed=1)
    opened(other, SIZE, streaming="decoded")
    for path in place_in(other).glob("*.pixels"):
        shutil.copy(path, place / path.name)


OF_NO_USE = {
    "a file cut short": (truncate, r"val\.pixels has [0-9,]+ bytes where [0-9,]+ were written"),
    "a file missing": (lambda place: (place / "test.pixels").unlink(), r"test\.pixels: No such"),
    "no page": (lambda place: (place / "decoded.json").unlink(), r"decoded\.json cannot be read"),
    "half a page": (
        lambda place: (place / "decoded.json").write_text('{"version": 1, "fing'),
        r"decoded\.json is damaged",
    ),
    "other records": (of_other_records, "its fingerprint is 000"),
    "foreign pixels": (foreign, "train: decoding gives other pixels today"),
}


@pytest.mark.parametrize("fault", OF_NO_USE)
def test_what_is_stale_cut_or_foreign_is_refused_and_auto_reads_the_records(
    data_dir, capsys, fault
):
    harm, message = OF_NO_USE[fault]
    expected = opened(data_dir, SIZE, streaming="decoded").train.read(range(9))
    place = place_in(data_dir)
    harm(place)
    with pytest.raises(DataError, match=message) as info:
        opened(data_dir, SIZE, streaming="decoded")
    assert "\n" not in str(info.value)
    assert f"delete {place}" in str(info.value) or "delete this folder" in str(info.value)
    capsys.readouterr()
    found = opened(data_dir, SIZE, streaming="auto", memory=0).train
    assert found.pixels is None
    np.testing.assert_array_equal(found.read(range(9)), expected)
    assert "warning: encoded records are read" in capsys.readouterr().err
    shutil.rmtree(place)  # as the message says
    found = opened(data_dir, SIZE, streaming="decoded").train
    np.testing.assert_array_equal(found.read(range(9)), expected)


@pytest.mark.parametrize("byte", [0, SIZE * SIZE - 1, SIZE * SIZE + 1])
def test_one_flipped_bit_reaches_whoever_takes_the_batch(data_dir, byte):
    split = opened(data_dir, SIZE, streaming="decoded").train
    path = place_in(data_dir) / "train.pixels"
    content = bytearray(path.read_bytes())
    content[5 * (SIZE * SIZE + 4) + byte] ^= 16  # in place 5, which opening does not compare
    path.write_bytes(content)
    split.read([4, 6])
    order = DataOrder(len(split), 16, seed=1, shuffle=False)
    with pytest.raises(DataError, match=r"train\.pixels is damaged at example 5\)"):
        list(streaming.batches(split, order, np.arange(16), 0, 2))


def test_a_file_that_shrinks_under_a_run_ends_it_in_a_sentence(data_dir):
    split = opened(data_dir, SIZE, streaming="decoded").train
    os.truncate(place_in(data_dir) / "train.pixels", 1000)
    with pytest.raises(DataError, match="damaged at example 50"):
        split.read([0, 50])


_WRITE = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs of a shell ignore it
from tests.data.test_streaming import opened
from radimagenet_jax.data import streaming
original = streaming.StreamedSplit.read
def read(self, places):
    if places[0] == int(sys.argv[3]):
        print("there", flush=True)
        sys.stdin.read()
    return original(self, places)
streaming.StreamedSplit.read = read
opened(sys.argv[1], int(sys.argv[2]), streaming="decoded")
"""


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGINT])
def test_a_kill_leaves_nothing_half_used_and_the_next_run_goes_on(data_dir, decoding, signum):
    process = subprocess.Popen(
        [sys.executable, "-c", _WRITE, str(data_dir), str(SIZE), "160"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    assert process.stdout.readline() == "there\n"  # one thread of those that decode, in `train`
    process.send_signal(signum)
    process.communicate(timeout=60)
    place = place_in(data_dir)
    unfinished = place.with_name(f"{place.name}.unfinished")
    assert not place.exists()
    assert unfinished.is_dir()
    assert opened(data_dir, SIZE, streaming="auto", memory=0).train.pixels is None
    # What was being written when it was killed.
    with (unfinished / "train.pixels").open("ab") as file:
        file.write(b"half an entry")
    held = opened(data_dir, SIZE)
    decoding.clear()
    streamed = opened(data_dir, SIZE, streaming="decoded")
    for name in SPLITS:
        one, other = getattr(held, name), getattr(streamed, name)
        np.testing.assert_array_equal(other.read(range(len(one))), one.images)
    assert not unfinished.exists()


def test_the_next_run_decodes_what_is_left_and_no_more(data_dir, decoding, monkeypatch):
    total = sum(len(getattr(opened(data_dir, SIZE), name)) for name in SPLITS)
    original = streaming.StreamedSplit.read

    def stop(self, places):
        if places[0] == 96:
            raise KeyboardInterrupt
        return original(self, places)

    with monkeypatch.context() as patch:
        patch.setattr(streaming.StreamedSplit, "read", stop)
        with pytest.raises(KeyboardInterrupt):
            opened(data_dir, SIZE, streaming="decoded")
    decoding.clear()
    opened(data_dir, SIZE, streaming="decoded")
    assert len(decoding) == total - 96 + 3 * 8  # and those compared when it is opened


def test_what_other_records_or_decoders_left_unfinished_is_not_gone_on_with(data_dir):
    expected = opened(data_dir, SIZE, streaming="decoded").train.read(range(9))
    place = place_in(data_dir)
    unfinished = place.rename(place.with_name(f"{place.name}.unfinished"))
    page = json.loads((unfinished / "decoded.json").read_text())
    (unfinished / "decoded.json").write_text(json.dumps(page | {"decoders": "OpenCV 1"}))
    length = SIZE * SIZE + 4
    zeros = np.zeros((9, length), np.uint8)
    zeros[:, -4:] = np.array([decoded.zlib.crc32(bytes(SIZE * SIZE))], "<u4").view(np.uint8)
    (unfinished / "train.pixels").write_bytes(zeros.tobytes())
    found = opened(data_dir, SIZE, streaming="decoded").train.read(range(9))
    np.testing.assert_array_equal(found, expected)
    assert found.any()


def test_too_little_room_is_told_before_anything_is_written(data_dir, monkeypatch):
    usage = shutil.disk_usage(data_dir)._replace(free=50_000)
    monkeypatch.setattr(decoded.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(
        DataError, match=r"images of 20 x 20 pixels need 0\.1 MB more in .*0\.1 MB free; make room"
    ):
        opened(data_dir, SIZE, streaming="decoded")
    assert not list(place_in(data_dir).parent.glob("decoded*"))


@contextlib.contextmanager
def largest_file(size):
    """A disk's refusal, from the system itself."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_disk_that_refuses_ends_it_in_a_sentence_and_with_room_it_goes_on(data_dir):
    held = opened(data_dir, SIZE)
    with largest_file(30_000), pytest.raises(DataError) as info:
        opened(data_dir, SIZE, streaming="decoded")
    place = place_in(data_dir)
    message = str(info.value)
    assert f"{place} cannot be written (File too large); make room" in message
    assert f"what was decoded is kept in {place}.unfinished" in message
    assert "config.dataset.streaming=true" in message
    assert not place.exists()
    found = opened(data_dir, SIZE, streaming="decoded").train
    np.testing.assert_array_equal(found.read(range(len(found))), held.train.images)


def test_two_that_write_at_once_wait_for_each_other(data_dir, decoding, monkeypatch):
    total = sum(len(getattr(opened(data_dir, SIZE), name)) for name in SPLITS)
    monkeypatch.setattr(datasets, "_check_records", lambda *_: None)
    with ThreadPoolExecutor(2) as pool:
        both = [
            pool.submit(datasets.load, "radimagenet", data_dir, SIZE, streaming="decoded")
            for _ in range(2)
        ]
    for one in both:
        assert one.result().train.pixels is not None
    assert len(decoding) <= total + 2 * 8 * len(SPLITS)
