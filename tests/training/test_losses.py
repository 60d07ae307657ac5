"""Laws of the losses, against Keras."""

import numpy as np
import pytest
from scipy.special import softmax

from radimagenet_jax.training.losses import LOSSES


@pytest.fixture
def logits():
    return np.random.default_rng(0).normal(0, 3, (64, 2)).astype(np.float32)


@pytest.fixture
def labels():
    return np.random.default_rng(1).integers(0, 2, 64)


def by_keras(labels, outputs, **options):
    import keras

    return keras.losses.binary_crossentropy(np.eye(2, dtype=np.float32)[labels], outputs, **options)


def test_softmax_is_keras_binary_cross_entropy_of_a_two_way_softmax(logits, labels):
    expected = by_keras(labels, softmax(logits, axis=-1))
    np.testing.assert_allclose(LOSSES["softmax"](logits, labels), expected, rtol=1e-4, atol=1e-6)


def test_keras2_is_keras_binary_cross_entropy_of_the_logits_of_a_sigmoid(logits, labels):
    expected = by_keras(labels, logits, from_logits=True)
    np.testing.assert_allclose(LOSSES["keras2"](logits, labels), expected, rtol=1e-5)


def test_losses_agree_only_where_nothing_is_known(labels):
    for loss in LOSSES.values():
        np.testing.assert_allclose(loss(np.zeros((64, 2)), labels), np.log(2), rtol=1e-6)
