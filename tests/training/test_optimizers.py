"""Laws of the optimisers: each follows its definition, and sees what learns alone."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from radimagenet_jax.models import KerasLayer
from radimagenet_jax.training import freezing
from radimagenet_jax.training.optimizers import OPTIMIZERS, make_optimizer

RNG = np.random.default_rng(0)
PARAMS = {"kernel": RNG.normal(size=(3, 4)), "bias": RNG.normal(size=4)}
GRADIENTS = [jax.tree.map(lambda leaf: RNG.normal(size=leaf.shape), PARAMS) for _ in range(4)]


def moved(tx, gradients=GRADIENTS, params=PARAMS):
    """The parameters after a step for each gradient."""
    params = jax.tree.map(jnp.float32, params)
    state = tx.init(params)
    for one in gradients:
        updates, state = tx.update(jax.tree.map(jnp.float32, one), state, params)
        params = optax.apply_updates(params, updates)
    return params


def by_definition(step):
    """The same in float64, by a function of (parameter, gradient, memory, number of the step)."""
    params, memory = dict(PARAMS), {name: {} for name in PARAMS}
    for number, one in enumerate(GRADIENTS, start=1):
        params = {k: step(params[k], one[k], memory[k], number, k) for k in params}
    return params


def adamw(value, gradient, memory, number, name):
    m = memory["m"] = 0.9 * memory.get("m", 0) + 0.1 * gradient
    v = memory["v"] = 0.999 * memory.get("v", 0) + 0.001 * gradient**2
    update = (m / (1 - 0.9**number)) / (np.sqrt(v / (1 - 0.999**number)) + 1e-7)
    return value - 0.01 * (update + (0.1 * value if name == "kernel" else 0))


def lion(value, gradient, memory, number, name):
    m = memory.get("m", np.zeros_like(value))
    update = np.sign(0.9 * m + 0.1 * gradient)
    memory["m"] = 0.99 * m + 0.01 * gradient
    return value - 0.01 * (update + (0.1 * value if name == "kernel" else 0))


def sgd(value, gradient, memory, number, name):
    m = memory["m"] = 0.9 * memory.get("m", 0) + gradient
    return value - 0.01 * m


@pytest.mark.parametrize("step", [adamw, lion, sgd], ids=lambda step: step.__name__)
def test_it_follows_its_definition_and_decays_kernels_alone(step):
    # Every field of the config reaches every optimiser, which takes its own.
    options = {"b1": 0.9, "b2": 0.999, "eps": 1e-7, "momentum": 0.9, "weight_decay": 0.1}
    ours = moved(make_optimizer(step.__name__, 0.01, **options))
    for name, expected in by_definition(step).items():
        np.testing.assert_allclose(ours[name], expected, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_clipped_gradient_has_the_norm_that_is_allowed_and_a_smaller_one_is_left(name):
    norm = float(optax.tree.norm(GRADIENTS[0]))
    # Plain descent of rate 1 moves by the gradient itself.
    plain = {"clip_norm": norm / 2, "momentum": 0.0}
    after = moved(make_optimizer("sgd", 1.0, **plain), GRADIENTS[:1])
    taken = jax.tree.map(lambda old, new: old - np.asarray(new), PARAMS, after)
    assert float(optax.tree.norm(taken)) == pytest.approx(norm / 2, rel=1e-5)
    free, loose = (make_optimizer(name, 0.01, clip_norm=limit) for limit in (0.0, 100.0))
    jax.tree.map(np.testing.assert_array_equal, moved(free), moved(loose))


def test_the_norm_that_is_clipped_is_that_of_what_learns():
    params = {"base": {"kernel": jnp.ones((2, 2))}, "head": {"kernel": jnp.ones((2, 2))}}
    freeze = freezing.specify("freezeall", {"params": params}, [KerasLayer("base", "base")])
    gradients = freezing.mask(jax.tree.map(lambda leaf: 100 * leaf, params), freeze)
    tx = make_optimizer("sgd", 1.0, clip_norm=1.0)
    updates, _ = tx.update(gradients, tx.init(freezing.mask(params, freeze)))
    assert float(optax.tree.norm(updates)) == pytest.approx(1.0)


def test_an_unknown_one_is_refused():
    with pytest.raises(ValueError, match="unknown optimizer 'adagrad'; known are adam, adamw, sgd"):
        make_optimizer("adagrad", 1e-3)
