"""Features from Keras files equal Keras' own."""

from dataclasses import replace

import h5py
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util
from safetensors.numpy import save_file

from radimagenet_jax import load_pretrained, models
from radimagenet_jax.models.preprocess import normalize
from tests.networks import KNOWN, each

# These files do not tell their input, and their features here are of inputs that are given.
SAID = "tf"


def assert_close(ours, theirs):
    for key, expected in theirs.items():
        scale = np.abs(expected).max()
        assert scale > 0.01, "a reference of zeros would agree with anything"
        worst = np.abs(np.asarray(ours[key]) - expected).max() / scale
        assert worst < 1e-4, f"{key} differs by {worst:.1e} of its largest magnitude"


def assert_same(ours, theirs, form=""):
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    for one, other in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_array_equal(one, other, err_msg=form)


def images(size, count=2):
    return np.random.default_rng(3).normal(0, 0.5, (count, size, size, 3)).astype(np.float32)


def renumbered(layers):
    """Automatic names as a process gives them that has built other models before."""
    moved = []
    for name, values in layers:
        stem, _, count = name.rpartition("_")
        if name in ("conv2d", "batch_normalization"):
            name = f"{name}_{94 if name == 'conv2d' else 7}"
        elif stem in ("conv2d", "batch_normalization"):
            name = f"{stem}_{int(count) + (94 if stem == 'conv2d' else 7)}"
        moved.append((name, values))
    return moved


def with_slashes(layers):
    """Layer names of DenseNet as Keras 2 writes them."""
    return [
        (
            name.replace("conv1_", "conv1/", 1) if name in ("conv1_conv", "conv1_bn") else name,
            values,
        )
        for name, values in layers
    ]


@pytest.fixture(scope="module")
def released_form(tmp_path_factory, keras_reference, write_keras_2):
    """Each network in the released form, its counters not starting at zero."""
    folder = tmp_path_factory.mktemp("networks")
    paths = {}

    def get(name):
        if name not in paths:
            layers = renumbered(keras_reference(name).layers)
            layers = with_slashes(layers) if name == "densenet121" else layers
            paths[name] = write_keras_2(folder / f"{name}.h5", layers)
        return paths[name]

    return get


@each(quick="resnet50")
def test_features_equal_keras(name, released_form, keras_reference, quick_features):
    pretrained = load_pretrained(released_form(name), preprocessing=SAID)
    assert pretrained.contract.architecture == name
    x = images(96)
    assert_close(quick_features(pretrained, x), keras_reference(name).features(x))


@pytest.mark.slow
@pytest.mark.parametrize("size", [224, 256])
@pytest.mark.parametrize("name", models.names())
def test_features_equal_keras_at_the_published_sizes(name, size, released_form, keras_reference):
    x = images(size)
    pretrained = load_pretrained(released_form(name), preprocessing=SAID)
    assert_close(pretrained.features(x), keras_reference(name).features(x))


def test_every_form_of_a_keras_file_gives_the_same_variables(
    released, tmp_path, keras_reference, write_keras_2
):
    reference = keras_reference("resnet50")
    expected = load_pretrained(released).variables
    forms = {
        "weights only": write_keras_2(tmp_path / "bare.h5", reference.layers, full=False),
        "without ':0'": write_keras_2(tmp_path / "suffix.h5", reference.layers, suffix=""),
        "safetensors": tmp_path / "keras.safetensors",
    }
    named = {
        f"{layer}/{role}": value
        for layer, values in reference.layers
        for role, value in values.items()
    }
    save_file(named, forms["safetensors"])
    for form, path in forms.items():
        got = load_pretrained(path, preprocessing=SAID).variables
        assert_same(got, expected, form)
        path.unlink()


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # Keras' own
@each(quick="densenet121")
@pytest.mark.parametrize(
    "form", ["model.h5", "model.keras", "model.weights.h5", "positions.weights.h5"]
)
def test_what_keras_3_writes_gives_the_same_variables(
    name, form, tmp_path, released_form, keras_reference
):
    path = tmp_path / form
    base = keras_reference(name).base
    if form.endswith(".weights.h5"):
        base.save_weights(path)
    else:
        base.save(path)
    if form.startswith("positions"):
        # Keras before 3.10 did not note the layers' names.
        with h5py.File(path, "r+") as file:
            for group in file["layers"].values():
                group["vars"].attrs.clear()
    try:
        ours = load_pretrained(path, preprocessing=SAID)
        assert "origin not stated" in ours.contract.origin
        expected = load_pretrained(released_form(name), preprocessing=SAID)
        assert_same(ours.variables, expected.variables)
    finally:
        path.unlink()


@pytest.mark.parametrize("name", models.names())
def test_the_native_input_is_that_of_keras_applications(name):
    import keras

    image = np.random.default_rng(0).integers(0, 256, (1, 4, 4, 3)).astype(np.float32)
    expected = getattr(keras.applications, KNOWN[name].module).preprocess_input(image.copy())
    np.testing.assert_allclose(
        normalize(jnp.asarray(image), models.architecture(name).native_input), expected, atol=1e-5
    )


@pytest.mark.parametrize("name", ["densenet121", "inception_v3", "inception_resnet_v2"])
def test_each_layer_gets_its_own_tensors_wherever_the_counters_start(
    name, tmp_path, hollow_layers, write_keras_2
):
    """Every tensor is filled with its own number, which must arrive at the layer's path."""
    paths = {layer.name: layer.path for layer in models.architecture(name).keras_layers()}
    numbered, expected = [], {}
    for layer, values in hollow_layers(name):
        numbered.append((layer, {}))
        for role, value in values.items():
            number = float(len(expected) + 1)
            numbered[-1][1][role] = replace(value, fill=number)
            expected[paths[layer], role] = number
    layers = with_slashes(renumbered(numbered)) if name == "densenet121" else renumbered(numbered)
    path = write_keras_2(tmp_path / "counted.h5", layers)
    variables = load_pretrained(path, preprocessing=SAID).variables
    roles = {
        ("conv", "bias"): "bias",
        ("bn", "bias"): "beta",
        ("conv", "kernel"): "kernel",
        ("bn", "scale"): "gamma",
        ("bn", "mean"): "moving_mean",
        ("bn", "var"): "moving_variance",
    }
    arrived = {}
    for collection in variables.values():
        for target, leaf in traverse_util.flatten_dict(collection, sep="/").items():
            path, _, leaf_name = target.rpartition("/")
            kind = "bn" if "bn" in path.rpartition("/")[2] else "conv"
            assert np.ptp(leaf) == 0
            arrived[path, roles[kind, leaf_name]] = float(np.ravel(leaf)[0])
    assert arrived == expected


def test_attributes_are_not_needed_to_tell_layers_apart(tmp_path, hollow_layers, write_keras_2):
    path = write_keras_2(tmp_path / "plain.h5", hollow_layers("resnet50"))
    with h5py.File(path, "r+") as file:
        for group in (file, file["model_weights"]):
            for attribute in list(group.attrs):
                del group.attrs[attribute]
    assert load_pretrained(path, preprocessing=SAID).contract.architecture == "resnet50"
