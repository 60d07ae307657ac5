"""Adam steps as Keras' does, also where gradients are as small as its epsilon."""

import jax
import numpy as np
import optax
import pytest

from radimagenet_jax.training.adam import keras_adam
from radimagenet_jax.training.optimizers import make_optimizer

STEPS = 6


def gradients():
    """Of a magnitude from 1e-10 to 1, one element each, over some steps."""
    rng = np.random.default_rng(0)
    magnitudes = np.logspace(-10, 0, 64)
    return (magnitudes * rng.normal(0.5, 1, (STEPS, 64))).astype(np.float32)


def start():
    return np.zeros(64, np.float32)


def walked(transformation):
    params = {"w": start()}
    state = transformation.init(params)
    path = []
    for gradient in gradients():
        updates, state = transformation.update({"w": gradient}, state, params)
        params = optax.apply_updates(params, updates)
        path.append(np.asarray(params["w"]))
    return np.stack(path)


@pytest.mark.parametrize("options", [{}, {"b1": 0.8, "b2": 0.9, "eps": 1e-4}])
def test_it_follows_keras_step_by_step(options):
    import keras

    names = {"b1": "beta_1", "b2": "beta_2", "eps": "epsilon"}
    theirs = keras.optimizers.Adam(
        1e-2, **{"epsilon": 1e-7, **{names[name]: value for name, value in options.items()}}
    )
    variable = keras.Variable(start())
    path = walked(keras_adam(1e-2, **options))
    for ours, gradient in zip(path, gradients(), strict=True):
        theirs.apply([gradient], [variable])
        np.testing.assert_allclose(ours, variable.value, rtol=2e-4, atol=1e-8)


def test_it_is_not_optax_adam_where_gradients_are_small():
    ours, theirs = walked(keras_adam(1e-2)), walked(optax.adam(1e-2, eps=1e-7))
    np.testing.assert_allclose(ours[:, -8:], theirs[:, -8:], rtol=1e-3)
    small = slice(16, 32)  # about 1e-7
    assert (np.abs(ours[0, small]) < 0.6 * np.abs(theirs[0, small])).all()


def test_its_state_is_that_of_optax_adam():
    params = {"w": start()}
    ours, theirs = make_optimizer("adam", 1e-3).init(params), optax.adam(1e-3).init(params)
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
