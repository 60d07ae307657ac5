"""Laws of the figures of a report."""

import numpy as np

from radimagenet_jax.reports import figures
from radimagenet_jax.statistics import metrics


def test_heat_map_is_opaque_where_a_row_has_all_its_images():
    rng = np.random.default_rng(0)
    labels, scores = rng.integers(0, 4, 200), rng.dirichlet(np.ones(4), 200)
    counts = metrics.confusion_matrix(scores, labels)
    alpha = np.asarray(figures.heat_map(counts))[..., 3] / 255
    np.testing.assert_allclose(alpha**2, counts / counts.sum(axis=1, keepdims=True), atol=0.005)
    assert np.asarray(figures.heat_map([[2, 0], [0, 0]]))[..., 3].tolist() == [[255, 0], [0, 0]]
