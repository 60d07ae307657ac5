"""What every network promises of its modes, its padding, its precision and its outputs."""

import functools

import flax.errors
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import traverse_util

from radimagenet_jax import models
from radimagenet_jax.models.layers import Head
from radimagenet_jax.models.ops.activation import residual_relu
from tests.networks import KNOWN

SIZE = 75
QUICKLY = {"xla_backend_optimization_level": 0}

every_network = pytest.mark.parametrize("name", models.names())


def images(count, seed=0):
    return np.random.default_rng(seed).normal(0, 1, (count, SIZE, SIZE, 3)).astype(np.float32)


def flat(tree):
    return traverse_util.flatten_dict(tree, sep="/")


def norms_of(variables):
    return sorted({name.rpartition("/")[0] for name in flat(variables["batch_stats"])})


def compiled(model, **arguments):
    return jax.jit(functools.partial(model.apply, **arguments), compiler_options=QUICKLY)


@pytest.fixture(scope="module")
def inference(shallow, random_variables):
    """Each shallow network's variables, and what it makes of three images in inference mode."""

    @functools.cache
    def get(name):
        model = shallow(name)
        variables = random_variables(model, SIZE)
        return variables, compiled(model)(variables, images(3))

    return get


@every_network
def test_a_frozen_batch_norm_is_in_inference_mode_and_the_others_are_not(name, shallow, inference):
    variables, (_, expected) = inference(name)
    norms = norms_of(variables)
    # The last norm of the network learns, so that all before it can be seen to be frozen.
    table = models.architecture(name).keras_layers()
    learning = [layer.path for layer in table if layer.path in norms][-1]
    model = shallow(name, frozen_stats=frozenset(norms) - {learning})
    (_, out), updates = compiled(model, train=True, mutable=["batch_stats"])(variables, images(3))
    after = flat(updates["batch_stats"])
    for leaf, value in flat(variables["batch_stats"]).items():
        if leaf.startswith(f"{learning}/"):
            assert np.abs(after[leaf] - value).min() > 0
        else:
            np.testing.assert_array_equal(after[leaf], value)
    last = learning.split("/")[0]
    before = [block for block in out if block not in (last, "spatial", "pooled", "logits")]
    assert len(before) > 2
    for block in before:
        scale = np.abs(expected[block]).max()
        np.testing.assert_allclose(out[block], expected[block], atol=1e-5 * scale, err_msg=block)
    assert np.abs(out["logits"] - expected["logits"]).max() > 1e-3


@every_network
def test_what_padding_shows_changes_no_statistic_and_no_logit(name, shallow, inference):
    # As functions of the parameters, then, the losses are the same: so are their gradients.
    variables, _ = inference(name)
    run = compiled(shallow(name), train=True, mutable=["batch_stats"])
    mask = np.array([1, 1, 0], np.float32)
    x = images(3)
    other = x.copy()
    other[2] = 7 * images(1, seed=9)
    (left, _), left_stats = run(variables, x, mask=mask)
    (right, _), right_stats = run(variables, other, mask=mask)
    np.testing.assert_array_equal(left[:2], right[:2])
    for leaf, value in flat(left_stats).items():
        np.testing.assert_array_equal(value, flat(right_stats)[leaf], err_msg=leaf)
    assert np.abs(left[2] - right[2]).max() > 0
    unmasked = run(variables, x, mask=np.ones(3, np.float32))[0][0]
    assert np.abs(unmasked[:2] - left[:2]).max() > 1e-3


def test_padding_contributes_to_no_gradient(shallow, random_variables):
    model = shallow("resnet50", stage_sizes=(1,), width=4)
    variables = random_variables(model, SIZE)
    labels = np.array([0, 1, 1, 0])

    @functools.partial(jax.jit, compiler_options=QUICKLY)
    def gradients(params, x, mask):
        def loss(params):
            (logits, _), _ = model.apply(
                {**variables, "params": params}, x, train=True, mask=mask, mutable=["batch_stats"]
            )
            losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels[: len(x)])
            return jnp.sum(losses * mask) / jnp.sum(mask)

        return jax.grad(loss)(params)

    x = images(4)
    padded = flat(gradients(variables["params"], x, np.array([1, 1, 1, 0], np.float32)))
    alone = flat(gradients(variables["params"], x[:3], np.ones(3, np.float32)))
    for leaf, value in padded.items():
        # A bias before a BatchNorm has no gradient but rounding errors: hence the floor.
        scale = max(np.abs(alone[leaf]).max(), 1e-2)
        np.testing.assert_allclose(value, alone[leaf], atol=1e-3 * scale, rtol=0, err_msg=leaf)


@every_network
def test_bfloat16_computes_close_and_keeps_float32_variables_and_logits(name, shallow, inference):
    variables, (_, reference) = inference(name)
    model = shallow(name, dtype=jnp.bfloat16)
    shapes = models.variable_shapes(model, SIZE)
    assert {leaf.dtype for leaf in jax.tree.leaves(shapes)} == {jnp.dtype("float32")}
    logits, out = compiled(model)(variables, images(3))
    assert logits.dtype == jnp.float32
    assert out["pooled"].dtype == jnp.float32
    assert out["spatial"].dtype == jnp.bfloat16
    # bfloat16 has 8 bits of mantissa; errors add up over some tens of layers.
    scale = np.abs(reference["pooled"]).max()
    np.testing.assert_allclose(out["pooled"], reference["pooled"], atol=0.05 * scale)
    _, updates = jax.eval_shape(
        functools.partial(model.apply, train=True, mutable=["batch_stats"]), variables, images(3)
    )
    assert {leaf.dtype for leaf in jax.tree.leaves(updates)} == {jnp.dtype("float32")}


@every_network
def test_intermediates_are_named_after_the_blocks(name):
    model = models.create(name, num_classes=7)
    x = jax.ShapeDtypeStruct((2, 96, 96, 3), jnp.float32)
    (logits, out), _ = jax.eval_shape(model.init_with_output, jax.random.key(0), x)
    table = models.architecture(name).keras_layers()
    blocks = {layer.path.split("/")[0] for layer in table if layer.path is not None}
    assert blocks - set(out) <= {"final_bn", "conv7b"}  # their result is 'spatial'
    assert set(out) - blocks <= {"spatial", "pooled", "logits"}
    features = KNOWN[name].features
    assert logits.shape == out["logits"].shape == (2, 7)
    assert out["pooled"].shape == (2, features)
    assert out["spatial"].shape[::3] == (2, features)


@every_network
def test_without_classes_there_is_no_head(name, shallow):
    model = shallow(name, num_classes=None)
    x = jax.ShapeDtypeStruct((2, SIZE, SIZE, 3), jnp.float32)
    (logits, out), variables = jax.eval_shape(model.init_with_output, jax.random.key(0), x)
    assert logits is None
    assert "logits" not in out
    assert "head" not in variables["params"]


@every_network
def test_a_network_draws_for_dropout_in_training_alone_and_only_if_it_drops(
    name, shallow, inference
):
    variables, _ = inference(name)

    def run(dropout, *, train):
        model = shallow(name, dropout=dropout)
        apply = functools.partial(model.apply, train=train, mutable=["batch_stats"])
        return jax.eval_shape(apply, variables, images(3))

    run(0.5, train=False)
    run(0.0, train=True)
    with pytest.raises(flax.errors.InvalidRngError, match="dropout"):
        run(0.5, train=True)


def test_dropout_takes_its_share_and_scales_what_is_left():
    features = np.ones((1, 10_000), np.float32)
    head = Head(1, 0.3, "zeros")
    kernel = {"params": {"kernel": np.ones((10_000, 1), np.float32), "bias": np.zeros(1)}}
    kept = [
        float(
            head.apply(kernel, features, train=True, rngs={"dropout": jax.random.key(seed)})[0, 0]
        )
        for seed in range(3)
    ]
    assert len(set(kept)) == 3
    # Three standard deviations of the mean of 10,000 draws at 0.3.
    np.testing.assert_allclose(kept, 10_000, rtol=3 * np.sqrt(0.3 / 0.7) / 100)
    np.testing.assert_allclose(head.apply(kernel, features, train=False), 10_000)


@every_network
def test_the_head_starts_as_asked(name, shallow):
    def head(**fields):
        model = shallow(name, **fields)
        # XLA drops all that the head does not depend on, so that this compiles at once.
        return jax.jit(lambda key: model.init(key, images(1))["params"]["head"])(jax.random.key(0))

    zeros, drawn = head(head_init="zeros"), head(head_init="glorot_uniform")
    assert not np.any(zeros["kernel"])
    assert not np.any(zeros["bias"])
    assert not np.any(drawn["bias"])
    limit = np.sqrt(6 / sum(drawn["kernel"].shape))
    assert 0.5 * limit < np.abs(drawn["kernel"]).max() <= limit


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_a_blocks_relu_has_the_gradient_of_any_other(dtype):
    tiny = jnp.finfo(dtype).tiny
    x = jnp.asarray([-jnp.inf, -2, -tiny, -0.0, 0.0, tiny, 3, jnp.inf], dtype)
    for function in (residual_relu, jax.jit(residual_relu)):
        ours, back = jax.vjp(function, x)
        theirs, expected = jax.vjp(jax.nn.relu, x)
        np.testing.assert_array_equal(ours, theirs)
        np.testing.assert_array_equal(back(x)[0], expected(x)[0])
