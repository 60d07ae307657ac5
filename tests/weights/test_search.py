"""Laws of finding a head beside a network: one dense layer on the features, and nothing else."""

import pytest

from radimagenet_jax.weights import search

DENSE = {"kernel": (8, 2), "bias": (2,)}


@pytest.mark.parametrize(
    ("around", "head"),
    [
        ({"top": DENSE}, "top"),
        ({"top": DENSE, "step": {"count": ()}}, "top"),
        ({}, ""),
        ({"top": DENSE, "other": DENSE}, ""),
        ({"top": {"kernel": (4, 2), "bias": (2,)}}, ""),
        ({"top": {"kernel": (8, 2), "bias": (3,)}}, ""),
        ({"top": DENSE, "conv": {"kernel": (1, 1, 8, 8)}}, ""),
        ({"top": DENSE, "norm": {"scale": (8,)}}, ""),
    ],
)
def test_one_dense_layer_alone_on_the_features_is_a_head(around, head):
    assert search.head(around, 8, "kernel", inputs=0) == head
    turned = {
        layer: {leaf: shape[::-1] for leaf, shape in leaves.items()}
        for layer, leaves in around.items()
    }
    assert search.head(turned, 8, "kernel", inputs=1) == head
