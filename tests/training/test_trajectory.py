"""Training is Keras': same weights, same batches, the same losses, weights and statistics.

This is Keras 3 on JAX; `python -m tests.benchmarks.trajectory` does the same with Keras 2, whose
training the published figures come from.
"""

import numpy as np
import pytest

from tests.networks import KNOWN
from tests.training import trajectory

STEPS = 3
# Smaller images than the benchmark takes: what takes the time here is compiling.
SIZES = {name: max(64, known.size) for name, known in KNOWN.items()}


def assert_trains_as_keras(name, structure, base):
    import keras

    images, labels = trajectory.batches(SIZES[name], STEPS)
    start = trajectory.calibrated(name, trajectory.values_of(base, name), images)
    run = (name, structure, start, images, labels)
    # Of probabilities, Keras clips those below 1e-7, which random features reach in two steps.
    loss = keras.losses.CategoricalCrossentropy(from_logits=True)
    theirs = trajectory.trained_by_keras(keras, base, *run, loss=loss, activation=None)
    # Keras corrects the moving variance in its fused TensorFlow kernels only.
    ours, freeze = trajectory.trained_by_us(*run, bessel_correction=False)
    np.testing.assert_allclose(theirs.losses[0], np.log(2), rtol=1e-6)  # of a head of zeros
    assert len(set(theirs.losses)) == STEPS
    # What one rounding error in the first kernel makes of our own losses, nobody can do better.
    disturbed = (name, structure, trajectory.disturbed(name, start), images, labels)
    again, _ = trajectory.trained_by_us(*disturbed, bessel_correction=False)
    rounding = np.abs(np.divide(again.losses, ours.losses) - 1).max()
    np.testing.assert_allclose(ours.losses, theirs.losses, rtol=max(1e-3, 5 * rounding))
    distances = trajectory.relative_distances(ours, theirs, start, freeze, name)
    # Adam divides a gradient by its own size, and so makes rounding errors in the smallest
    # gradients as large as the rate: the more layers they come through, the more so.
    tolerance = {"freezeall": 0.01, "unfreezetop10": 0.1, "unfreezeall": 0.9}[structure]
    assert np.median(list(distances.values())) < tolerance


@pytest.mark.parametrize(
    "structure", ["freezeall", pytest.param("unfreezetop10", marks=pytest.mark.slow)]
)
def test_resnet50_trains_as_keras(structure, keras_reference):
    assert_trains_as_keras("resnet50", structure, keras_reference("resnet50").base)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "structure"),
    [
        ("resnet50", "unfreezeall"),
        ("densenet121", "unfreezetop10"),
        ("inception_v3", "unfreezetop10"),
        ("inception_resnet_v2", "unfreezetop10"),
    ],
)
def test_every_network_trains_as_keras(name, structure, keras_reference):
    assert_trains_as_keras(name, structure, keras_reference(name).base)
