"""What is published of the networks: parameters, and what learns under each structure."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

import radimagenet_jax as rin
from radimagenet_jax import models
from radimagenet_jax.training import freezing
from tests.networks import KNOWN

every_network = pytest.mark.parametrize("name", models.names())


@pytest.fixture(scope="module")
def shapes():
    """Shapes of each network's variables, with a head of two classes."""
    return {name: models.variable_shapes(models.create(name, num_classes=2), 96) for name in KNOWN}


def base_parameters(variables):
    """Statistics counted, as Keras does; the head not."""
    leaves = traverse_util.flatten_dict(variables, sep="/")
    return sum(leaf.size for name, leaf in leaves.items() if "/head/" not in name)


def trainable_below_the_head(freeze):
    return sum(row.trainable for row in freeze.rows if row.block != "head")


def test_every_network_is_found_by_name_alone():
    assert set(models.names()) == set(KNOWN)
    with pytest.raises(ValueError, match="densenet121"):
        models.create("resnet5")


@every_network
def test_parameters_are_the_published_number(name, shapes):
    assert base_parameters(shapes[name]) == KNOWN[name].parameters


@every_network
def test_the_size_that_a_page_states_is_the_one_that_is_counted(name, shapes):
    stated = models.architecture(name).size(models.create(name))
    counted = dataclasses.replace(models.architecture(name), parameters=0)
    assert stated == counted.size(models.create(name)) == (sum(KNOWN[name].layers), stated[1])
    assert stated.parameters == base_parameters(shapes[name])


@every_network
def test_the_layer_table_names_every_variable_once(name, shapes):
    table = models.architecture(name).keras_layers()
    paths = [layer.path for layer in table if layer.path is not None]
    leaves = [
        leaf
        for collection in shapes[name].values()
        for leaf in traverse_util.flatten_dict(collection, sep="/")
    ]
    assert sorted(paths) == sorted({leaf.rpartition("/")[0] for leaf in leaves} - {"head"})
    kinds = [layer.kind for layer in table]
    assert (kinds.count("conv"), kinds.count("batch_norm")) == KNOWN[name].layers


@every_network
def test_feature_size_is_the_width_of_the_pooled_features(name, shapes):
    assert shapes[name]["params"]["head"]["kernel"].shape == (KNOWN[name].features, 2)


@every_network
def test_the_last_ten_keras_layers_hold_the_published_parameters(name, shapes):
    table = models.architecture(name).keras_layers()
    freeze = freezing.specify("unfreezetop10", shapes[name], table)
    parameters, layers = KNOWN[name].top_ten
    assert trainable_below_the_head(freeze) == parameters
    learning = {leaf.rpartition("/")[0] for leaf in freeze.trainable} - {"head"}
    norms = {layer.path for layer in table if layer.kind == "batch_norm"}
    assert learning == layers
    assert freeze.frozen_stats == norms - layers


@every_network
def test_a_published_network_has_all_of_keras_layers(name):
    architecture = models.architecture(name)
    whole = models.create(name, num_classes=2)
    assert architecture.layers(whole, architecture.min_image_size) == architecture.keras_layers()


@pytest.mark.parametrize(
    ("name", "options", "first"),
    [
        ("resnet50", {"stage_sizes": (1, 1, 1, 1)}, "stage4_block1/conv2"),
        # As the published network ends, with the block before the last one.
        ("resnet50", {"stage_sizes": (2, 1, 1, 2)}, "stage4_block2/bn1"),
        ("densenet121", {"block_sizes": (1, 1, 1, 2)}, "stage4_block2/bn1"),
    ],
)
def test_the_last_ten_layers_of_a_shallow_network_are_its_own(name, options, first):
    shallow = models.create(name, num_classes=2, **options)
    layers = models.architecture(name).layers(shallow, 64)
    variables = models.variable_shapes(shallow, 64)
    leaves = {leaf for part in variables.values() for leaf in traverse_util.flatten_dict(part)}
    assert {layer.path for layer in layers if layer.path} == {
        "/".join(leaf[:-1]) for leaf in leaves
    } - {"head"}
    assert freezing.specify("unfreezetop10", variables, layers).first_trainable == first
    assert rin.freeze(variables, "unfreezetop10").first_trainable == first


@every_network
def test_freezeall_leaves_only_the_head_and_unfreezeall_nothing_frozen(name, shapes):
    table = models.architecture(name).keras_layers()
    nothing = freezing.specify("freezeall", shapes[name], table)
    assert trainable_below_the_head(nothing) == 0
    assert nothing.trainable == {"head/kernel", "head/bias"}
    assert nothing.frozen_stats == {layer.path for layer in table if layer.kind == "batch_norm"}
    everything = freezing.specify("unfreezeall", shapes[name], table)
    assert trainable_below_the_head(everything) == sum(
        leaf.size
        for leaf_name, leaf in traverse_util.flatten_dict(shapes[name]["params"], sep="/").items()
        if not leaf_name.startswith("head/")
    )
    assert not everything.frozen_stats


@every_network
def test_too_small_images_are_refused(name, shallow):
    smallest = models.architecture(name).min_image_size
    model = models.create(name)
    for shape in ((1, smallest - 1, 96, 3), (1, 96, smallest - 1, 3), (1, 96, 96, 1), (96, 96, 3)):
        with pytest.raises(ValueError, match=f"at least {smallest} pixels"):
            jax.eval_shape(model.init, jax.random.key(0), jnp.zeros(shape))
    accepted = jnp.zeros((1, smallest, smallest, 3))
    shapes = jax.eval_shape(shallow(name).init, jax.random.key(0), accepted)
    assert set(shapes) == {"params", "batch_stats"}


@every_network
def test_an_unknown_variant_is_refused(name):
    x = jnp.zeros((1, 96, 96, 3))
    with pytest.raises(ValueError, match="variant"):
        jax.eval_shape(models.create(name, variant="v3").init, jax.random.key(0), x)


@every_network
def test_no_variant_is_the_default_one(name):
    assert models.create(name, variant="") == models.create(name)


def test_resnet50_variants_share_their_weights_and_differ_in_their_features(
    shallow, random_variables
):
    # Two stages: the stride of the second is what the variants disagree about.
    first, second = shallow("resnet50", variant="v1"), shallow("resnet50", variant="v1.5")
    variables = random_variables(second, 64)
    with_zero_biases = traverse_util.flatten_dict(random_variables(first, 64), sep="/")
    shared = traverse_util.flatten_dict(variables, sep="/")
    assert set(shared) < set(with_zero_biases)
    for name, value in with_zero_biases.items():
        with_zero_biases[name] = shared.get(name, np.zeros_like(value))
        assert with_zero_biases[name].shape == value.shape
    x = np.random.default_rng(0).normal(0, 1, (2, 64, 64, 3)).astype(np.float32)
    _, ours = first.apply(traverse_util.unflatten_dict(with_zero_biases, sep="/"), x)
    _, theirs = second.apply(variables, x)
    before, after = "stage1_block2", "stage2_block1"
    np.testing.assert_allclose(ours[before], theirs[before], rtol=1e-3, atol=1e-3)
    assert np.abs(ours[after] - theirs[after]).max() > 0.1 * np.abs(ours[after]).max()
