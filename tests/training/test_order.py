"""Laws of the data order: a pure function of seed and step."""

import numpy as np
import pytest

from radimagenet_jax.training.order import Classes, DataOrder


@pytest.mark.parametrize(("examples", "batch_size"), [(425, 16), (16, 16), (5, 8), (17, 4), (1, 1)])
@pytest.mark.parametrize("shuffle", [True, False])
def test_an_epoch_meets_every_example_exactly_once(examples, batch_size, shuffle):
    order = DataOrder(examples, batch_size, seed=3, shuffle=shuffle)
    for epoch in (0, 4):
        seen = []
        for k in range(order.steps_per_epoch):
            index, mask = order.batch(epoch * order.steps_per_epoch + k)
            assert index.shape == mask.shape == (batch_size,)
            assert order.epoch(epoch * order.steps_per_epoch + k) == epoch
            seen += index[mask == 1].tolist()
            assert set(mask.tolist()) <= {0.0, 1.0}
        assert sorted(seen) == list(range(examples))


def test_a_step_can_be_asked_for_in_any_order_and_by_any_process():
    order = DataOrder(100, 8, seed=1, shuffle=True)
    forwards = [order.batch(k)[0] for k in range(40)]
    again = DataOrder(100, 8, seed=1, shuffle=True)
    for k in reversed(range(40)):
        np.testing.assert_array_equal(again.batch(k)[0], forwards[k])


def test_epochs_and_seeds_have_their_own_orders_and_no_shuffle_has_none():
    order = DataOrder(64, 64, seed=1, shuffle=True)
    first, second = order.batch(0)[0], order.batch(1)[0]
    other = DataOrder(64, 64, seed=2, shuffle=True).batch(0)[0]
    assert (first != second).sum() > 32
    assert (first != other).sum() > 32
    plain = DataOrder(64, 64, seed=1, shuffle=False)
    np.testing.assert_array_equal(plain.batch(7)[0], np.arange(64))


def test_the_order_is_the_same_on_every_machine():
    # Written down once: a change of this list changes every published result.
    assert DataOrder(10, 10, seed=0, shuffle=True).batch(0)[0].tolist() == ORDER_OF_SEED_0


@pytest.mark.parametrize("counts", [(90, 9, 1), (5, 5, 5), (40, 0, 3), (1, 1, 96)])
def test_balanced_epochs_have_as_many_of_each_class_and_lose_no_example_for_good(counts):
    labels = np.repeat(np.arange(len(counts)), counts).astype(np.int32)
    order = DataOrder(len(labels), 16, seed=2, shuffle=True, classes=Classes(labels))
    met = set()
    for epoch in range(80):
        seen = []
        for k in range(order.steps_per_epoch):
            index, mask = order.batch(epoch * order.steps_per_epoch + k)
            seen += index[mask == 1].tolist()
        assert len(seen) == len(labels)
        shares = np.bincount(labels[seen], minlength=len(counts))[np.array(counts) > 0]
        assert shares.max() - shares.min() <= 1
        _, times = np.unique(seen, return_counts=True)
        for label in set(labels[seen]):
            own = times[labels[np.unique(seen)] == label]
            assert own.max() - own.min() <= 1
        met |= set(seen)
    assert met == set(range(len(labels)))


ORDER_OF_SEED_0 = [9, 3, 7, 1, 4, 2, 5, 6, 0, 8]
