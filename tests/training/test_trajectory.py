"""Training is Keras': same weights, same batches, the same losses, weights and statistics.

This is Keras 3 on JAX; `python -m tests.benchmarks.trajectory` does the same with Keras 2, whose
training the published figures come from.
"""

import itertools

import numpy as np
import pytest

from tests.training import trajectory

STEPS = 3


def assert_trains_as_keras(name, structure, base):
    import keras

    images, labels = trajectory.batches(trajectory.SIZES[name], STEPS)
    start = trajectory.calibrated(name, trajectory.values_of(base, name), images)
    run = (name, structure, start, images, labels)
    theirs = trajectory.trained_by_keras(keras, base, *run)
    # Keras corrects the moving variance in its fused TensorFlow kernels only.
    ours, freeze = trajectory.trained_by_us(*run, bessel_correction=False)
    np.testing.assert_allclose(theirs.losses[0], np.log(2), rtol=1e-6)  # of a head of zeros
    assert len(set(theirs.losses)) == STEPS
    np.testing.assert_allclose(ours.losses, theirs.losses, rtol=1e-3)
    distances = trajectory.relative_distances(ours, theirs, start, freeze, name)
    # Adam divides a gradient by its own size, and so makes rounding errors in the smallest
    # gradients as large as the rate: the more layers they come through, the more so.
    tolerance = {"freezeall": 1e-4, "unfreezetop10": 0.15, "unfreezeall": 0.5}[structure]
    assert max(distances.values()) < tolerance


@pytest.mark.parametrize("structure", ["freezeall", "unfreezetop10"])
def test_resnet50_trains_as_keras(structure, keras_reference):
    assert_trains_as_keras("resnet50", structure, keras_reference("resnet50").base)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "structure"),
    [
        ("resnet50", "unfreezeall"),
        *itertools.product(
            ("densenet121", "inception_v3", "inception_resnet_v2"), trajectory.LEARNING_RATES
        ),
    ],
)
def test_every_network_trains_as_keras(name, structure, keras_reference):
    assert_trains_as_keras(name, structure, keras_reference(name).base)
