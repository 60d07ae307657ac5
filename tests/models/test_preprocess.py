"""Laws of the input schemes, with Keras' own preprocess_input as the reference."""

import os

os.environ.setdefault("KERAS_BACKEND", "jax")

import numpy as np
import pytest
from keras.src.applications.imagenet_utils import preprocess_input

from radimagenet_jax.models.preprocess import PUBLISHED, SCHEMES, normalize

IMAGES = np.random.default_rng(0).integers(0, 256, (3, 9, 7, 3), dtype=np.uint8)


def keras_input(images: np.ndarray, scheme: str) -> np.ndarray:
    mode = {"caffe_div255": "caffe"}.get(scheme, scheme)
    x = np.asarray(preprocess_input(images.astype(np.float32), "channels_last", mode))
    # The published generators apply preprocess_input first and rescale=1/255 after it.
    return x / 255 if scheme == "caffe_div255" else x


@pytest.mark.parametrize("scheme", SCHEMES)
def test_every_scheme_equals_keras(scheme):
    expected = keras_input(IMAGES, scheme)
    scale = np.abs(expected).max()
    np.testing.assert_allclose(normalize(IMAGES, scheme), expected, atol=2e-6 * scale)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_grey_channel_equals_the_image_loaded_as_rgb(scheme):
    grey = IMAGES[..., :1]
    np.testing.assert_array_equal(
        normalize(grey, scheme), normalize(grey.repeat(3, axis=-1), scheme)
    )


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_order_of_a_contract_turns_the_channels_and_nothing_else(scheme):
    own = np.asarray(normalize(IMAGES, scheme))
    order = SCHEMES[scheme].channel_order
    np.testing.assert_array_equal(normalize(IMAGES, scheme, order), own)
    np.testing.assert_array_equal(normalize(IMAGES, scheme, order[::-1]), own[..., ::-1])


def test_the_published_input_lies_about_zero():
    extremes = np.array([0, 255], np.uint8).reshape(2, 1, 1, 1)
    out = np.asarray(normalize(extremes, PUBLISHED))
    # PROTOCOL of the published scripts: about [-0.49, 0.59].
    assert out.min() == pytest.approx(-0.485, abs=0.001)
    assert out.max() == pytest.approx(0.592, abs=0.001)


def test_unknown_schemes_and_shapes_are_refused():
    with pytest.raises(ValueError, match="caffe_div255"):
        normalize(IMAGES, "imagenet")
    with pytest.raises(ValueError, match="1 or 3"):
        normalize(IMAGES[..., :2], "tf")
