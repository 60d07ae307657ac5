"""Overlays: what is drawn over an image is what the map says."""

import jax
import numpy as np
import pytest

from radimagenet_jax.reports import overlays

GREY = np.full((40, 60, 1), 100, np.uint8)


def test_a_map_is_interpolated_as_the_network_does():
    raw = np.random.default_rng(0).normal(size=(7, 7)).astype(np.float32)
    expected = jax.image.resize(raw, (56, 84), "bilinear")
    np.testing.assert_allclose(overlays.resized(raw, (56, 84)), expected, atol=1e-5)


def test_no_evidence_leaves_the_image_as_it_is():
    drawn = overlays.overlay(GREY, np.zeros((4, 6)), 1.0)
    np.testing.assert_array_equal(drawn, np.repeat(GREY, 3, -1))


@pytest.mark.parametrize(("value", "channel"), [(2.0, 0), (-2.0, 2)])
def test_what_speaks_for_a_class_is_warm_and_what_speaks_against_it_cold(value, channel):
    drawn = overlays.overlay(GREY, np.full((4, 6), value), 1.0)
    assert drawn.shape == (40, 60, 3)
    assert (drawn.argmax(-1) == channel).all()
    # What is beyond the scale is drawn as its end.
    np.testing.assert_array_equal(drawn, overlays.overlay(GREY, np.full((4, 6), value / 2), 1.0))


def test_an_outline_runs_along_the_mask_and_leaves_the_rest():
    mask = np.zeros((40, 60), bool)
    mask[10:30, 20:50] = True
    image = np.repeat(GREY, 3, -1)
    drawn = overlays.outlined(image, mask, (0, 255, 255))
    np.testing.assert_array_equal(image, 100)
    assert (drawn[10, 25:45, 1] > 200).all()
    assert (drawn[15:25, 30:40] == 100).all()
    assert (drawn[:5] == 100).all()
    np.testing.assert_array_equal(overlays.outlined(image, np.zeros_like(mask), (9, 9, 9)), image)


def test_one_scale_serves_several_maps():
    maps = np.zeros((10, 10, 10))
    maps[0, 0, 0] = 100  # one place of a thousand does not make all others pale
    maps[1:] = 0.5
    assert overlays.common_limit(maps) == pytest.approx(0.5)
    assert overlays.common_limit(np.zeros((0, 7, 7))) == 1.0
