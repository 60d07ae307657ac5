"""Laws of the freeze specification: one source for gradients, optimiser, statistics and table."""

import io

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import traverse_util
from rich.console import Console

from radimagenet_jax import models
from radimagenet_jax.errors import ConfigError
from radimagenet_jax.models.preprocess import Input
from radimagenet_jax.training import freezing, initialise, state, step
from radimagenet_jax.training.optimizers import make_optimizer

SIZE, BATCH = 32, 4
QUICKLY = {"xla_backend_optimization_level": 0}  # LLVM's costly passes change no FLOP
TABLE = models.architecture("resnet50").keras_layers()
STRUCTURES = [
    "freezeall",
    "unfreezeall",
    "unfreezetop10",
    "top=40",
    "layers=stage4_.*",
    "layers=stage4_block1/(conv|bn)2,stem/bn",
]

every_structure = pytest.mark.parametrize("structure", STRUCTURES)


def flat(tree):
    return traverse_util.flatten_dict(tree, sep="/")


def trainable_below_the_head(freeze):
    return sum(row.trainable for row in freeze.rows if row.block != "head")


def network(**fields):
    """A ResNet50 with one block a stage; its blocks are among those of Keras' table."""
    return models.create(
        "resnet50", **{"num_classes": 2, "stage_sizes": (1, 1, 1, 1), "width": 8, **fields}
    )


@pytest.fixture(scope="module")
def variables():
    return initialise.scratch(network(), SIZE, 0, "glorot_uniform")


@pytest.fixture(scope="module")
def full():
    """Shapes of the whole ResNet50."""
    return models.variable_shapes(models.create("resnet50", num_classes=2), 64)


@every_structure
def test_merge_undoes_mask(structure, variables):
    params = variables["params"]
    freeze = freezing.specify(structure, variables, TABLE)
    masked = freezing.mask(params, freeze)
    assert len(jax.tree.leaves(masked)) == len(freeze.trainable) >= 2
    back = freezing.merge(masked, params)
    assert jax.tree.structure(back) == jax.tree.structure(params)
    assert all(new is old for new, old in zip(*map(jax.tree.leaves, (back, params)), strict=True))


@every_structure
def test_merge_replaces_what_learns_and_keeps_the_rest(structure, variables):
    params = variables["params"]
    freeze = freezing.specify(structure, variables, TABLE)
    moved = jax.tree.map(lambda leaf: leaf + 1, freezing.mask(params, freeze))
    merged = flat(freezing.merge(moved, params))
    for name, leaf in flat(params).items():
        np.testing.assert_array_equal(merged[name], leaf + (name in freeze.trainable))


@every_structure
def test_the_optimiser_keeps_moments_of_what_learns_alone(structure, variables):
    freeze = freezing.specify(structure, variables, TABLE)
    params = variables["params"]
    learning = [leaf for name, leaf in flat(params).items() if name in freeze.trainable]
    (adam, _) = make_optimizer("adam", 1e-3).init(freezing.mask(params, freeze))
    for moments in (adam.mu, adam.nu):
        kept = sorted(leaf.shape for leaf in jax.tree.leaves(moments))
        assert kept == sorted(leaf.shape for leaf in learning)


@every_structure
def test_a_global_norm_sees_what_learns_alone(structure, variables):
    freeze = freezing.specify(structure, variables, TABLE)
    ones = jax.tree.map(np.ones_like, variables["params"])
    count = (
        trainable_below_the_head(freeze) + ones["head"]["kernel"].size + ones["head"]["bias"].size
    )
    norm = optax.tree.norm(freezing.mask(ones, freeze))
    np.testing.assert_allclose(norm, np.sqrt(count), rtol=1e-6)


@every_structure
def test_statistics_freeze_with_their_layer(structure, full):
    freeze = freezing.specify(structure, full, TABLE)
    norms = {layer.path for layer in TABLE if layer.kind == "batch_norm"}
    learning = {name.rpartition("/")[0] for name in freeze.trainable}
    assert freeze.frozen_stats == norms - learning


@every_structure
def test_the_first_trainable_layer_is_the_first_in_the_networks_order(structure, full):
    freeze = freezing.specify(structure, full, TABLE)
    learning = {name.rpartition("/")[0] for name in freeze.trainable}
    order = [*(layer.path for layer in TABLE if layer.path is not None), "head"]
    assert freeze.first_trainable == next(name for name in order if name in learning)


def run_step(structure, variables, steps=2):
    freeze = freezing.specify(structure, variables, TABLE)
    model = network(frozen_stats=freeze.frozen_stats, dropout=0.5)
    tx = make_optimizer("adam", 1e-2)
    train_step = jax.jit(
        step.make_train_step(model, freeze, Input("tf"), step.Recipe(tx), step.Draws(1, 9)),
        compiler_options=QUICKLY,
    )
    current = state.create(variables, tx, freeze)
    for _ in range(steps):
        current, sums = train_step(current, examples(), np.arange(BATCH), np.ones(BATCH))
    assert np.isfinite(sums["loss"])
    return freeze, current


def examples():
    rng = np.random.default_rng(0)
    return step.Examples(
        images=jnp.asarray(rng.integers(0, 256, (BATCH, SIZE, SIZE, 1), np.uint8)),
        labels=jnp.asarray([0, 1, 1, 0], jnp.int32),
        ids=jnp.arange(BATCH, dtype=jnp.uint32),
    )


@pytest.mark.parametrize("structure", ["freezeall", "layers=stage4_block1/(conv|bn)3"])
def test_steps_move_what_learns_and_not_one_bit_of_the_rest(structure, variables):
    freeze, after = run_step(structure, variables)
    params, stats = flat(after.params), flat(after.batch_stats)
    for name, before in flat(variables["params"]).items():
        # Each step of Adam moves a leaf by about the learning rate.
        moved = np.abs(params[name] - before).max()
        assert moved > 1e-4 if name in freeze.trainable else moved == 0, name
    for name, before in flat(variables["batch_stats"]).items():
        frozen = name.rpartition("/")[0] in freeze.frozen_stats
        assert np.array_equal(stats[name], before) == frozen, name


def step_flops(name, structure, fields, variables, size):
    """FLOPs of the compiled training step, and of the forward pass of evaluation."""
    batch = step.Examples(
        images=jnp.zeros((BATCH, size, size, 1), jnp.uint8),
        labels=jnp.zeros(BATCH, jnp.int32),
        ids=jnp.zeros(BATCH, jnp.uint32),
    )
    index = jnp.arange(BATCH)
    if structure is None:
        function = step.make_eval_step(models.create(name, num_classes=2, **fields), Input("tf"))
        arguments = (variables["params"], variables["batch_stats"], batch, index)
    else:
        freeze = freezing.specify(structure, variables, models.architecture(name).keras_layers())
        model = models.create(
            name, num_classes=2, dropout=0.5, frozen_stats=freeze.frozen_stats, **fields
        )
        tx = make_optimizer("adam", 1e-3)
        function = step.make_train_step(
            model, freeze, Input("tf"), step.Recipe(tx), step.Draws(0, 1)
        )
        arguments = (state.create(variables, tx, freeze), batch, index, jnp.ones(BATCH))
    compiled = jax.jit(function, compiler_options=QUICKLY).lower(*arguments).compile()
    return compiled.cost_analysis()["flops"]


def test_a_step_costs_a_forward_pass_and_what_learns():
    """Gradients of frozen layers are not computed at all."""
    fields = {"width": 32, "stage_sizes": (1, 1)}
    variables = initialise.scratch(network(**fields), 64, 0, "zeros")
    forward, frozen, last, everything = (
        step_flops("resnet50", structure, fields, variables, 64)
        for structure in (None, "freezeall", "layers=stage2_.*", "unfreezeall")
    )
    assert frozen <= 1.05 * forward
    assert 1.05 * forward < last < 0.9 * everything
    assert everything > 2 * forward


@pytest.mark.slow
@pytest.mark.parametrize("name", models.names())
def test_a_freezeall_step_of_a_whole_network_costs_a_forward_pass(name):
    variables = initialise.scratch(models.create(name, num_classes=2), 75, 0, "zeros")
    forward, frozen = (
        step_flops(name, structure, {}, variables, 75) for structure in (None, "freezeall")
    )
    assert frozen <= 1.05 * forward


def test_top_counts_keras_layer_objects(full):
    def layers(structure):
        freeze = freezing.specify(structure, full, TABLE)
        return {name.rpartition("/")[0] for name in freeze.trainable}

    assert layers("top=10") == layers("unfreezetop10")
    assert layers("top=0") == layers("freezeall") == {"head"}
    # Pooling, the last ReLU and the addition come first, none of which has parameters.
    assert layers("top=3") == {"head"}
    assert layers("top=4") == {"head", "stage4_block3/bn3"}
    assert layers("top=6") == {"head", "stage4_block3/bn3", "stage4_block3/conv3"} | layers("top=5")
    assert layers("top=176") == layers("unfreezeall")
    assert all(layers(f"top={n}") <= layers(f"top={n + 1}") for n in range(0, 176, 5))


def test_expressions_match_whole_names_and_add_up(full):
    def layers(structure):
        freeze = freezing.specify(structure, full, TABLE)
        return {name.rpartition("/")[0] for name in freeze.trainable} - {"head"}

    assert layers("layers=stem/conv") == {"stem/conv"}
    assert layers("layers=stem/.*") == {"stem/conv", "stem/bn"}
    fourth = layers("layers=stage4_.*")
    assert len(fourth) == 20
    assert all(name.startswith("stage4_") for name in fourth)
    assert layers("layers=stem/bn,stage4_.*") == fourth | {"stem/bn"}
    assert layers("layers=.*") == layers("unfreezeall")
    assert layers("layers=head") == set()
    with pytest.raises(ConfigError, match="no layer's whole name matches 'stage4'"):
        layers("layers=stage4")


@pytest.mark.parametrize(
    ("structure", "words"),
    [
        ("freezenone", "structure 'freezenone' is not known; use freezeall"),
        ("", "is not known"),
        ("top=", "is not known"),
        ("top=-1", "is not known"),
        ("unfreezetop", "is not known"),
        ("FREEZEALL", "is not known"),
        ("top=177", "asks for 177 layers, but the network has 176"),
        ("unfreezetop1000", "has 176 in Keras' order; ask for fewer"),
        ("layers=stage(4", r"'stage\(4' is not a regular expression"),
        ("layers=stage4_.*,nothing", "no layer's whole name matches 'nothing'; names are like"),
        ("layers=", "no layer's whole name matches ''"),
    ],
)
def test_a_structure_that_means_nothing_is_refused_with_a_sentence(structure, words, full):
    with pytest.raises(ConfigError, match=words) as error:
        freezing.specify(structure, full, TABLE)
    assert "\n" not in str(error.value)


@every_structure
def test_the_table_adds_up_and_is_in_the_networks_order(structure, full):
    freeze = freezing.specify(structure, full, TABLE)
    head = 2048 * 2 + 2
    params = flat(full["params"])
    assert sum(row.parameters for row in freeze.rows) == sum(leaf.size for leaf in params.values())
    assert sum(row.trainable for row in freeze.rows) == trainable_below_the_head(freeze) + head
    blocks = [row.block for row in freeze.rows]
    assert blocks[0] == "stem"
    assert blocks[-1] == "head"
    assert blocks[1:-1] == sorted(blocks[1:-1])
    assert sum(row.layers for row in freeze.rows) == 53 + 53 + 1
    for row in freeze.rows[:-1]:
        frozen = [name for name in freeze.frozen_stats if name.startswith(f"{row.block}/")]
        norms = [
            layer
            for layer in TABLE
            if layer.kind == "batch_norm" and layer.path.startswith(f"{row.block}/")
        ]
        expected = {0: "batch", len(norms): "moving"}.get(len(frozen), "mixed")
        assert row.batch_norm == expected
    assert freeze.rows[-1].batch_norm == ""


def test_the_printed_table_says_where_gradients_stop_and_what_learns(full):
    freeze = freezing.specify("unfreezetop10", full, TABLE)
    text = io.StringIO()
    Console(file=text, width=120).print(freezing.table(freeze))
    shown = text.getvalue()
    assert "unfreezetop10: gradients stop at the input of stage4_block3/bn1" in shown
    assert "3,416,576" in shown
    assert f"{23_534_592 + 4_098:,}" in shown
