"""Laws of the augmentation, with Keras and scipy as the reference."""

import os

os.environ.setdefault("KERAS_BACKEND", "jax")

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage
from keras.src.legacy.preprocessing import image as keras_image

from radimagenet_jax.data import augment
from radimagenet_jax.models import ops

ONE_THOUSANDTH_OF_GREY = 0.255


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    """A smooth picture with an edge, 0..255; smooth so that float32 coordinates cannot matter."""
    y, x = np.mgrid[0:96, 0:96].astype(np.float32)
    waves = 90 * np.sin(x / 7) * np.cos(y / 11) + 110
    waves[30:60, 40:80] += 45
    return waves[..., None]


@pytest.mark.parametrize("seed", range(6))
def test_the_affine_map_is_keras_own(picture, seed):
    rng = np.random.default_rng(seed)
    theta, shear = rng.uniform(-10, 10), rng.uniform(-5, 5)
    tx, ty = rng.uniform(-9.6, 9.6, 2)
    zx, zy = rng.uniform(0.9, 1.1, 2)
    matrix = np.asarray(augment.keras_matrix(theta, tx, ty, shear, zx, zy, (96, 96)))
    # The legacy module still calls scipy.ndimage.interpolation, which newer scipys
    # no longer have: its matrix is taken, and scipy applies it.
    captured = {}

    def capture(channel, linear, offset, **options):
        captured.update(options, matrix=np.concatenate([linear, offset[:, None]], 1))
        return scipy.ndimage.affine_transform(channel, linear, offset, **options)

    with pytest.MonkeyPatch.context() as patch:
        interpolation = type("interpolation", (), {"affine_transform": staticmethod(capture)})
        patch.setattr(
            keras_image,
            "scipy",
            type("scipy", (), {"ndimage": type("ndimage", (), {"interpolation": interpolation})}),
        )
        expected = keras_image.apply_affine_transform(
            picture,
            theta=theta,
            tx=tx,
            ty=ty,
            shear=shear,
            zx=zx,
            zy=zy,
            row_axis=0,
            col_axis=1,
            channel_axis=2,
            fill_mode="nearest",
            order=1,
        )
    assert captured["order"] == 1
    assert captured["mode"] == "nearest"
    np.testing.assert_allclose(matrix, captured["matrix"], atol=2e-5)
    ours = ops.affine_bilinear(jnp.asarray(picture)[None], jnp.asarray(matrix)[None])
    np.testing.assert_allclose(np.asarray(ours)[0], expected, atol=ONE_THOUSANDTH_OF_GREY)


@pytest.mark.parametrize("name", ["rotate_flip", "shift_zoom"])
def test_a_batch_equals_scipy_and_a_flip_after_it_at_full_size(name):
    policy = augment.POLICIES[name]
    rng = np.random.default_rng(0)
    coarse = rng.uniform(0, 255, (4, 14, 14))
    images = np.stack([scipy.ndimage.zoom(c, 16, order=1) for c in coarse])[..., None]
    images = np.clip(images, 0, 255).astype(np.uint8)
    ids = jnp.arange(4, dtype=jnp.uint32) + 7
    key = jax.random.key(3)
    ours = np.asarray(augment.augment(images, ids, 5, key, policy))
    flips = 0
    for k in range(4):
        example_key = jax.random.fold_in(jax.random.fold_in(key, 5), ids[k])
        matrix, flipped = augment.draw(example_key, policy, (224, 224))
        matrix = np.asarray(matrix, np.float64)
        expected = scipy.ndimage.affine_transform(
            images[k, ..., 0].astype(np.float64),
            matrix[:, :2],
            matrix[:, 2],
            order=1,
            mode="nearest",
        )
        expected = expected[:, ::-1] if flipped else expected
        flips += int(flipped)
        np.testing.assert_allclose(ours[k, ..., 0], expected, atol=ONE_THOUSANDTH_OF_GREY)
    assert (flips > 0) == policy.horizontal_flip


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_every_pixel_of_noise_has_its_own_weight(dtype):
    """Compiled, where a coordinate that is computed twice may be rounded in two ways."""
    policy = augment.POLICIES["rotate_flip"]
    images = np.random.default_rng(2).integers(0, 256, (8, 96, 96, 3)).astype(dtype)
    images[0] = 255
    ids, key = np.arange(8, dtype=np.uint32), jax.random.key(0)
    ours = np.asarray(jax.jit(lambda x: augment.augment(x, ids, 0, key, policy))(images))
    for image, number, found in zip(images, ids, ours, strict=True):
        example_key = jax.random.fold_in(jax.random.fold_in(key, 0), number)
        matrix = np.asarray(augment.drawn_map(example_key, policy, (96, 96)), np.float64)
        for channel in range(3):
            expected = scipy.ndimage.affine_transform(
                image[..., channel].astype(np.float64),
                matrix[:, :2],
                matrix[:, 2],
                order=1,
                mode="nearest",
            )
            np.testing.assert_allclose(found[..., channel], expected, atol=ONE_THOUSANDTH_OF_GREY)


def test_draws_depend_on_seed_epoch_and_example_alone():
    policy = augment.POLICIES["rotate_flip"]
    images = np.random.default_rng(1).integers(0, 255, (6, 32, 32, 1), dtype=np.uint8)
    ids = np.arange(6, dtype=np.uint32) * 1000
    key = jax.random.key(0)
    whole = np.asarray(augment.augment(images, ids, 2, key, policy))
    order = np.array([4, 0, 5])
    part = np.asarray(augment.augment(images[order], ids[order], 2, key, policy))
    np.testing.assert_array_equal(whole[order], part)
    other_epoch = np.asarray(augment.augment(images, ids, 3, key, policy))
    other_seed = np.asarray(augment.augment(images, ids, 2, jax.random.key(1), policy))
    assert np.abs(whole - other_epoch).mean() > 1
    assert np.abs(whole - other_seed).mean() > 1


def test_draws_cover_the_published_ranges():
    policy = augment.POLICIES["rotate_flip"]
    keys = jax.random.split(jax.random.key(0), 4000)
    matrices, flips = jax.vmap(lambda k: augment.draw(k, policy, (200, 200)))(keys)
    linear = np.asarray(matrices)[:, :, :2]
    zoom_y = np.linalg.norm(linear[:, :, 0], axis=1)
    zoom_x = np.linalg.norm(linear[:, :, 1], axis=1)
    angle = np.rad2deg(np.arctan2(linear[:, 0, 1], linear[:, 1, 1]))
    for values, low, high in [(zoom_y, 0.9, 1.1), (zoom_x, 0.9, 1.1), (angle, -10, 10)]:
        width = high - low
        assert low - 1e-3 <= values.min() < low + 0.01 * width
        assert high - 0.01 * width < values.max() <= high + 1e-3
        assert abs(values.mean() - (low + high) / 2) < 0.03 * width
    # The zooms of the two axes are drawn apart.
    assert abs(np.corrcoef(zoom_x, zoom_y)[0, 1]) < 0.05
    assert abs(np.asarray(flips).mean() - 0.5) < 0.03


def test_grey_and_rgb_forms_of_an_image_are_augmented_alike():
    policy = augment.POLICIES["shift_zoom"]
    grey = np.random.default_rng(1).integers(0, 255, (2, 40, 40, 1), dtype=np.uint8)
    ids = np.array([1, 2], np.uint32)
    one = np.asarray(augment.augment(grey, ids, 0, jax.random.key(0), policy))
    three = np.asarray(augment.augment(grey.repeat(3, -1), ids, 0, jax.random.key(0), policy))
    np.testing.assert_array_equal(one.repeat(3, -1), three)


def test_no_policy_leaves_the_images_as_they_are():
    images = np.random.default_rng(1).integers(0, 255, (2, 8, 8, 1), dtype=np.uint8)
    out = augment.augment(images, np.zeros(2, np.uint32), 0, jax.random.key(0), None)
    assert out.dtype == jnp.float32
    np.testing.assert_array_equal(np.asarray(out), images)
