"""Laws of where a run's images are: the first place that has room, or what is asked for."""

import types

import pytest

from configs import base
from radimagenet_jax.errors import ConfigError
from radimagenet_jax.training import residence, sharding
from radimagenet_jax.training.residence import Room

SIZE = 32
GIB = 2**30


@pytest.fixture(scope="module")
def config_of(tmp_path_factory):
    folder = str(tmp_path_factory.mktemp("residence"))

    def make(streaming, memory_gib=-1.0):
        config = base.get_config()
        config.image_size = SIZE
        config.dataset.data_dir = folder
        config.dataset.streaming = streaming
        config.dataset.memory_gib = memory_gib
        return config

    return make


def chosen(config, free, devices):
    dataset = residence.load(config, "phantom", free.whole)
    return residence.choose(config, dataset, free, devices)


def test_the_first_place_that_has_room_is_chosen(config_of):
    config = config_of("auto")
    everything = chosen(config, Room(GIB, GIB, GIB), 8)
    size = everything.images * SIZE**2
    assert (everything.where, everything.bytes) == ("whole", size)
    # A part has room for as many images as the largest one has, of each split.
    part = chosen(config, Room(size - 1, size // 4, GIB), 8)
    assert part.where == "parts"
    assert size / 8 <= part.bytes <= size / 8 + 3 * SIZE**2
    assert chosen(config, Room(size - 1, part.bytes, GIB), 8).where == "parts"
    assert chosen(config, Room(size - 1, part.bytes - 1, GIB), 8).where == "disk"


@pytest.mark.parametrize(
    ("streaming", "where"), [("false", "whole"), ("sharded", "parts"), ("true", "disk")]
)
def test_what_is_asked_for_is_done_whatever_room_there_is(config_of, streaming, where):
    for room in (Room(GIB, GIB, GIB), Room(0, 0, GIB)):
        assert chosen(config_of(streaming), room, 2).where == where


@pytest.mark.parametrize(
    ("streaming", "remedy"),
    [
        ("false", "use config.dataset.streaming='sharded' or 'true'"),
        ("sharded", "use more devices, or config.dataset.streaming='true'"),
    ],
)
def test_what_the_devices_cannot_hold_is_refused_with_the_figures(config_of, streaming, remedy):
    with pytest.raises(ConfigError) as refused:
        chosen(config_of(streaming), Room(0, 0, 100_000), 2)
    message = str(refused.value)
    assert f"config.dataset.streaming='{streaming}' puts" in message
    assert "MiB of images on each device (2 in all), which has 0.1 MiB of memory" in message
    assert remedy in message


def test_the_log_says_where_and_how_many_bytes_a_device(config_of):
    cases = [("false", 1), ("sharded", 1), ("false", 2), ("sharded", 2), ("true", 2)]
    told = [
        str(chosen(config_of(streaming), Room(GIB, GIB, GIB), devices))
        for streaming, devices in cases
    ]
    assert told == [
        "images: 1,524, on the device, 1.5 MiB",
        "images: 1,524, on the device, 1.5 MiB",
        "images: 1,524, on the devices, 1.5 MiB each",
        "images: 1,524, on the devices in parts, 0.7 MiB each",
        "images: 1,524, read from disk batch by batch",
    ]


@pytest.mark.parametrize(
    ("memory_gib", "device_gib", "whole", "part"),
    [
        (-1.0, None, 4, 4),  # CPUs share the machine's
        (-1.0, 60, 4, 20),
        (-1.0, 6, 2, 2),
        (10.0, 60, 10, 10),
        (0.5, None, 0.5, 0.5),
        (0.0, 60, 0, 0),
    ],
)
def test_the_room_is_a_share_of_the_memory_or_what_is_given(
    config_of, monkeypatch, memory_gib, device_gib, whole, part
):
    memory = None if device_gib is None else device_gib * GIB
    monkeypatch.setattr(sharding, "device_memory", lambda mesh: memory)
    room = residence.room(config_of("auto", memory_gib), sharding.make_mesh({"data": 1}, 4))
    assert (room.whole / GIB, room.part / GIB) == pytest.approx((whole, part))
    assert memory is None or room.there == memory


def test_cpus_share_the_machines_memory(config_of):
    mesh = types.SimpleNamespace(
        size=8, local_devices=[sharding.make_mesh({"data": 1}, 4).local_devices[0]] * 4
    )
    room = residence.room(config_of("auto"), mesh)
    assert room.whole == room.part == GIB // 2
    assert residence.host_bytes(config_of("auto")) == 4 * GIB
