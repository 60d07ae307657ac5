"""What resamples on TPU equals SciPy, and is used there and nowhere else."""

import itertools
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage

from radimagenet_jax.data import augment
from radimagenet_jax.models import ops
from radimagenet_jax.models.ops import resampling_tpu

PROJECT = Path(__file__).resolve().parents[2]
POLICIES = ["rotate_flip", "shift_zoom"]
# Coordinates are float32: in noise, 3e-5 of a pixel is 0.008 of a grey value.
ROUNDING = 0.02


def noise(count, size, channels=1):
    images = np.random.default_rng(0).integers(0, 256, (count, *size, channels))
    return images.astype(np.uint8)


def in_registers(images, matrices, margin):
    interpreted = jax.jit(
        lambda images, matrices: resampling_tpu.bilinear(images, matrices, margin, interpret=True)
    )
    return np.asarray(interpreted(images, matrices))


def by_scipy(images, matrices):
    matrices = np.asarray(matrices, np.float64)
    found = np.empty(images.shape, np.float64)
    for n, channel in itertools.product(range(len(images)), range(images.shape[3])):
        found[n, ..., channel] = scipy.ndimage.affine_transform(
            images[n, ..., channel].astype(np.float64),
            matrices[n, :, :2],
            matrices[n, :, 2],
            order=1,
            mode="nearest",
        )
    return found


def drawn(name, count, size):
    keys = jax.random.split(jax.random.key(1), count)
    return jax.vmap(lambda key: augment.drawn_map(key, augment.POLICIES[name], size))(keys)


def extremes(name, size):
    """All maps whose every draw is at an end of its range, with and without a mirror."""
    policy, found = augment.POLICIES[name], []
    for theta, tx, ty, shear, zx, zy in set(
        itertools.product(
            (-policy.rotation, policy.rotation),
            (-policy.shift * size[1], policy.shift * size[1]),
            (-policy.shift * size[0], policy.shift * size[0]),
            (-policy.shear, policy.shear),
            (1 - policy.zoom, 1 + policy.zoom),
            (1 - policy.zoom, 1 + policy.zoom),
        )
    ):
        matrix = np.asarray(augment.keras_matrix(theta, tx, ty, shear, zx, zy, size))
        found.append(matrix)
        if policy.horizontal_flip:
            across, start = matrix[:, 1], matrix[:, 2]
            found.append(np.stack([matrix[:, 0], -across, start + (size[1] - 1) * across], 1))
    return np.stack(found)


@pytest.mark.parametrize("name", POLICIES)
@pytest.mark.parametrize(
    ("size", "channels"),
    [((224, 224), 1), ((96, 96), 3), ((50, 131), 1), ((150, 33), 3), ((7, 260), 1), ((1, 1), 1)],
)
def test_it_equals_scipy_pixel_by_pixel(name, size, channels):
    images, matrices = noise(6, size, channels), drawn(name, 6, size)
    found = in_registers(images, matrices, augment.margin(augment.POLICIES[name], size))
    np.testing.assert_allclose(found, by_scipy(images, matrices), rtol=0, atol=ROUNDING)
    plain = jax.jit(ops.affine_bilinear)(images, matrices)
    np.testing.assert_allclose(found, plain, rtol=0, atol=ROUNDING)


@pytest.mark.parametrize("name", POLICIES)
@pytest.mark.parametrize("size", [(40, 56), (33, 20)])
def test_it_equals_scipy_at_the_ends_of_all_ranges(name, size):
    matrices = extremes(name, size)
    images = noise(len(matrices), size)
    found = in_registers(images, matrices, augment.margin(augment.POLICIES[name], size))
    np.testing.assert_allclose(found, by_scipy(images, matrices), rtol=0, atol=ROUNDING)


@pytest.mark.parametrize("name", POLICIES)
@pytest.mark.parametrize("size", [(224, 224), (64, 256), (256, 64)])
def test_no_map_reaches_beyond_the_margin_and_some_come_near_it(name, size):
    corners = np.array(list(itertools.product((0, size[0] - 1), (0, size[1] - 1), (1,))))
    columns = extremes(name, size)[:, 1] @ corners.T
    margin = augment.margin(augment.POLICIES[name], size)
    beyond = max(-columns.min(), columns.max() - (size[1] - 1))
    assert margin - 4 < beyond <= margin


def test_images_may_be_turned_by_forty_degrees():
    size, angles = (60, 70), [-40.0, 40.0, 33.0]
    matrices = np.stack(
        [np.asarray(augment.keras_matrix(angle, 0, 0, 0, 1, 1, size)) for angle in angles]
    )
    images = noise(len(angles), size)
    found = in_registers(images, matrices, augment.margin(augment.Policy(rotation=40), size))
    np.testing.assert_allclose(found, by_scipy(images, matrices), rtol=0, atol=ROUNDING)


def kernels(chip, policy, dtype=jnp.uint8, size=224):
    images = jax.ShapeDtypeStruct((2, size, size, 1), dtype)
    ids = jax.ShapeDtypeStruct((2,), jnp.uint32)
    function = jax.jit(
        lambda images, ids: augment.augment(images, ids, 0, jax.random.key(0), policy)
    )
    lowered = function.trace(images, ids).lower(lowering_platforms=(chip,))
    return lowered.as_text().count("@tpu_custom_call")


@pytest.mark.parametrize("name", POLICIES)
def test_augmentation_is_a_kernel_on_tpu_alone(name):
    policy = augment.POLICIES[name]
    assert kernels("tpu", policy) == 1
    assert kernels("cpu", policy) == kernels("cuda", policy) == 0


def test_what_the_kernel_cannot_do_is_looked_up_pixel_by_pixel():
    policy = augment.POLICIES["rotate_flip"]
    assert kernels("tpu", policy, dtype=jnp.float32) == 0
    assert kernels("tpu", policy, size=1024) == 0
    assert kernels("tpu", augment.Policy(rotation=90)) == 0


SHARED = """
import jax, numpy as np
from radimagenet_jax.data import augment
from radimagenet_jax.models.ops import resampling_tpu
from radimagenet_jax.training import sharding

mesh = sharding.make_mesh({"data": 4}, 8)
split, whole = sharding.by_example(mesh), sharding.replicated(mesh)
images = np.random.default_rng(0).integers(0, 256, (8, 40, 40, 1)).astype(np.uint8)
keys = jax.random.split(jax.random.key(0), 8)
policy = augment.POLICIES["rotate_flip"]
maps = np.asarray(jax.vmap(lambda key: augment.drawn_map(key, policy, (40, 40)))(keys))

def resampled(images, maps):
    return resampling_tpu.bilinear(images, maps, 20, interpret=True)

alone = jax.jit(resampled)(images, maps)
each = sharding.place(images, split), sharding.place(maps, split)
shared = jax.jit(resampled, out_shardings=split).lower(*each).compile()
np.testing.assert_array_equal(shared(*each), alone)
assert not any(word in shared.as_text() for word in ("all-gather", "all-to-all", "all-reduce"))

# Lowering fails where a kernel is left to the partitioner: streamed, resident, and too few.
def augmented(images, index):
    return augment.augment(images[index], index, 0, keys[0], policy)

index = sharding.place(np.arange(8, dtype=np.uint32), split)
for rows, of, kernels in ((index, split, 1), (index, whole, 1), (np.arange(3), whole, 0)):
    traced = jax.jit(augmented).trace(sharding.place(images, of), rows)
    lowered = traced.lower(lowering_platforms=("tpu",)).as_text()
    assert lowered.count("@tpu_custom_call") == kernels, (of, kernels)
"""


def test_devices_that_share_images_do_not_talk():
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "--xla_force_host_platform_device_count=4",
    }
    subprocess.run(
        [sys.executable, "-c", SHARED],
        env=environment,
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=True,
    )
