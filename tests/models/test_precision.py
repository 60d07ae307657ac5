"""float32 means float32 on every chip: what is lowered for a GPU and a TPU says so."""

import re
from functools import partial

import jax
import jax.numpy as jnp
import pytest

from radimagenet_jax import models
from radimagenet_jax.models.layers import PRECISIONS

CHIPS = ("cuda", "tpu")
PRODUCT = re.compile(r"stablehlo\.(convolution|dot_general)\b.*")
LEVELS = re.compile(r"#stablehlo<precision (\w+)>|precision = \[(\w+), (\w+)\]")
SMALL = {name: dict(models.architecture(name).small) for name in models.names()}


def precisions(function, *arguments, chip):
    """How often each precision occurs among the products of a function, lowered for a chip."""
    text = jax.jit(function).trace(*arguments).lower(lowering_platforms=(chip,)).as_text()
    found = {}
    for product in PRODUCT.finditer(text):
        levels = {
            level for match in LEVELS.finditer(product[0]) for level in match.groups() if level
        }
        assert len(levels) <= 1, product[0]
        level = levels.pop() if levels else "DEFAULT"
        found[level] = found.get(level, 0) + 1
    return found


def network(name, **fields):
    net = models.create(name, num_classes=2, **SMALL[name], **fields)
    size = models.architecture(name).min_image_size
    x = jax.ShapeDtypeStruct((2, size, size, 3), jnp.float32)
    return net, jax.eval_shape(partial(net.init, jax.random.key(0)), x), x


@pytest.mark.parametrize("chip", CHIPS)
@pytest.mark.parametrize("name", models.names())
def test_a_forward_pass_is_exact(name, chip):
    net, variables, x = network(name)
    found = precisions(net.apply, variables, x, chip=chip)
    assert found.keys() == {"HIGHEST"}
    assert found["HIGHEST"] > 4


@pytest.mark.parametrize("chip", CHIPS)
@pytest.mark.parametrize(
    ("name", "precision", "level"),
    [
        *((name, "auto", "HIGH") for name in models.names()),
        ("resnet50", "highest", "HIGHEST"),
        ("resnet50", "default", "DEFAULT"),
    ],
)
def test_a_training_step_is_as_exact_as_is_asked(name, chip, precision, level):
    net, variables, x = network(name, precision=precision)

    def loss(params, stats, x):
        (logits, _), moved = net.apply(
            {"params": params, "batch_stats": stats}, x, train=True, mutable=["batch_stats"]
        )
        return logits.sum(), moved

    found = precisions(
        jax.grad(loss, has_aux=True), variables["params"], variables["batch_stats"], x, chip=chip
    )
    # The head's few products are always exact.
    head = found.pop("HIGHEST") if level != "HIGHEST" else 0
    assert head <= 3
    assert found.keys() == {level}
    # Forward, and both gradients of all convolutions but the first.
    forward = precisions(net.apply, variables, x, chip=chip)
    convolutions = sum(forward.values()) - 1
    assert found[level] + head >= 3 * convolutions - 1


def test_products_of_16_bits_are_left_to_the_chip():
    net, variables, x = network("resnet50", dtype=jnp.bfloat16)
    found = precisions(net.apply, variables, x, chip="cuda")
    assert found.pop("HIGHEST") == 1  # the head is float32
    assert found.keys() == {"DEFAULT"}


def test_there_are_the_precisions_that_the_config_names():
    assert set(PRECISIONS) == {"highest", "auto", "default"}
