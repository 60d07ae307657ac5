"""Laws of examples on the devices: whole or in parts, a step gets the batch that it asks for."""

import json
import os
import subprocess
import sys

import jax
import numpy as np
import pytest

from radimagenet_jax.data.datasets import Split
from radimagenet_jax.errors import DataError
from radimagenet_jax.training import examples, sharding
from tests.conftest import PROJECT
from tests.training import on_eight_devices


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What a process of eight devices found."""
    flags = "--xla_backend_optimization_level=0 --xla_force_host_platform_device_count=8"
    process = subprocess.run(
        [sys.executable, "-m", "tests.training.on_eight_devices", tmp_path_factory.mktemp("data")],
        env=os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags},
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    return json.loads(process.stdout.splitlines()[-1])


def test_any_batch_is_gathered_from_the_parts_in_its_order(found):
    assert set(found["gathered"]) == set(on_eight_devices.batches())
    for name, right in found["gathered"].items():
        # Images, labels, ids, and where they are.
        assert right == [True] * 4, name


def test_in_parts_a_run_computes_what_it_does_from_disk_and_with_all_on_every_device(found):
    runs = found["trained"]
    assert len(runs["parts"]["losses"]) == on_eight_devices.LAST - on_eight_devices.FIRST
    for one, other in (
        ("parts", "disk"),
        ("parts", "whole"),
        ("parts, accumulated, looped", "whole, accumulated"),
    ):
        assert runs[one]["losses"] == runs[other]["losses"]
        assert runs[one]["digest"] == runs[other]["digest"]
    assert runs["parts"]["logits"] == runs["disk"]["logits"] == runs["whole"]["logits"]
    # Another number of devices sums in another order.
    np.testing.assert_allclose(runs["parts"]["losses"], runs["one device"]["losses"], rtol=1e-5)
    np.testing.assert_allclose(runs["parts"]["logits"], runs["one device"]["logits"], atol=1e-5)


@pytest.mark.parametrize("name", ["parts", "parts, accumulated, looped"])
def test_a_device_holds_its_part_and_no_program_the_whole(found, name):
    run, devices = found["trained"][name], on_eight_devices.DEVICES
    rows, *image = run["shape"]
    size = examples.part_size(run["count"], devices)
    assert rows == devices * size
    assert run["bytes"] == [size * 1024] * devices  # 32 x 32 pixels each
    part = f"u8[{size},{image[0]},{image[1]}]"
    counts = {array: np.prod(json.loads(array[2:])) for array in run["arrays"]}
    # The largest array of pixels in the program is the device's part, and it is not copied.
    assert max(counts, key=counts.get) == part
    assert part not in run["copied"]
    # What all devices get of one another are the indices of the batch.
    assert [shape.partition("{")[0] for shape in run["gathered"]] in (["s32[48]"], ["s32[1,48]"])


def test_what_is_sent_is_about_a_batch(found):
    head = 4 * 3 * (64 * 8 * 2 + 2)  # gradients of the head and the sums, at most
    batch = on_eight_devices.BATCH * 1024
    assert found["trained"]["parts"]["sent"] < 1.5 * batch + head


@pytest.mark.parametrize(
    ("share", "devices", "size"),
    # Four deviations of a mean of 32; all of a share; few of many.
    [(256, 8, 55), (1, 8, 1), (128, 256, 4), (7, 1, 7)],
)
def test_a_round_moves_little_more_than_the_batch(share, devices, size):
    assert examples.round_size(share, devices) == size


def split(count, side=5):
    images = np.random.default_rng(0).integers(0, 256, (count, side, side, 1), dtype=np.uint8)
    keys = tuple(map(str, range(count)))
    labels = np.arange(count, dtype=np.int32)
    return Split(images, labels, keys, ("",) * count, labels.astype(np.uint32))


@pytest.mark.parametrize("place", [examples.place_whole, examples.place_in_parts])
def test_on_one_device_both_ways_hold_all(place):
    of = split(11)
    held = place(of, sharding.make_mesh({"data": 1}, 4))
    assert held.images.nbytes == 11 * examples.stored_bytes((5, 5, 1)) == 11 * 128
    index = np.array([3, 10, 3, 0], np.int32)
    batch = jax.jit(lambda held, index: held.at(index))(held, index)
    np.testing.assert_array_equal(batch.images, of.images[index])
    np.testing.assert_array_equal(batch.labels, of.labels[index])
    np.testing.assert_array_equal(batch.ids, of.ids[index])


def test_an_image_that_cannot_be_read_is_told(monkeypatch):
    def read(self, places):
        if 100 in places:
            raise DataError("the record of image 100 is damaged.")
        return self.images[np.asarray(places)]

    monkeypatch.setattr(Split, "read", read)
    with pytest.raises(DataError, match="image 100"):
        examples.place_in_parts(split(300), sharding.make_mesh({"data": 1}, 4))
