"""Laws of the losses for many classes of uneven size."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from radimagenet_jax.training import losses

RNG = np.random.default_rng(0)
LOGITS = RNG.normal(size=(40, 6)).astype(np.float32)
LABELS = RNG.choice(6, 40, p=[0.5, 0.2, 0.1, 0.1, 0.1, 0.0]).astype(np.int32)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.7])
def test_smoothing_is_the_cross_entropy_of_smoothed_targets(smoothing):
    found = losses.loss_of("softmax", smoothing)(LOGITS, LABELS)
    targets = optax.smooth_labels(jax.nn.one_hot(LABELS, 6), smoothing)
    np.testing.assert_allclose(
        found, optax.softmax_cross_entropy(LOGITS, targets), rtol=2e-5, atol=1e-6
    )


def test_balanced_weights_give_every_class_the_same_sum_and_the_images_a_mean_of_one():
    weights = losses.class_weights(LABELS, 6)
    assert weights[LABELS].mean() == pytest.approx(1, rel=1e-6)
    sums = [weights[LABELS][label == LABELS].sum() for label in np.unique(LABELS)]
    np.testing.assert_allclose(sums, sums[0], rtol=1e-5)
    assert weights[5] == 0  # without images


def test_a_weighted_loss_is_the_loss_times_the_weight_of_its_label():
    weights = losses.class_weights(LABELS, 6)
    plain = losses.loss_of("softmax")(LOGITS, LABELS)
    weighted = losses.loss_of("softmax", 0.0, weights)(LOGITS, LABELS)
    np.testing.assert_allclose(weighted, plain * weights[LABELS], rtol=1e-6)


def test_the_plain_loss_is_untouched_bit_for_bit():
    for name, loss in losses.LOSSES.items():
        logits, labels = jnp.asarray(LOGITS[:, :2]), jnp.asarray(LABELS % 2)
        np.testing.assert_array_equal(losses.loss_of(name)(logits, labels), loss(logits, labels))


def test_only_the_softmax_loss_can_be_smoothed():
    with pytest.raises(ValueError, match="takes no label smoothing"):
        losses.loss_of("keras2", 0.1)
