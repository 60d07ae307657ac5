"""A network is found in whatever form Keras leaves it, alone or with something built around it."""

import io
import json
import zipfile

import h5py
import jax
import numpy as np
import pytest

from radimagenet_jax import load_pretrained
from radimagenet_jax.errors import WeightsError
from tests.conftest import COMPILED_QUICKLY

NETWORK = "densenet121"
WIDTH = 1024
DROPOUT = 0.5
ENDINGS = ("h5", "keras", "weights.h5")

# One of each kind stays in the everyday suite.
EVERYDAY = {
    ("a base in a Sequential", "h5"),
    ("a base in a Sequential", "keras"),
    ("a base that is called", "weights.h5"),
    ("a head on top", "keras"),
    ("two dense layers on top", "h5"),
    ("fitted", "keras"),
}


def sequential(base):
    import keras

    layers = keras.layers
    headless = keras.Model(base.input, base.layers[-1].input, name=NETWORK)
    pooling = [layers.GlobalAveragePooling2D(), layers.Dropout(DROPOUT)]
    return keras.Sequential(
        [keras.Input((64, 64, 3)), headless, *pooling, layers.Dense(2, activation="softmax")]
    )


def called(base):
    import keras

    image = keras.Input((64, 64, 3))
    return keras.Model(image, keras.layers.Dense(3, name="out")(base(image, training=False)))


def head_on_top(base):
    import keras

    return keras.Model(base.input, keras.layers.Dense(7, name="predictions")(base.output))


def two_dense_layers(base):
    import keras

    hidden = keras.layers.Dense(16, activation="relu")(base.output)
    hidden = keras.layers.BatchNormalization()(hidden)
    return keras.Model(base.input, keras.layers.Dense(2)(hidden))


def convolution_on_top(base):
    import keras

    y = keras.layers.Conv2D(4, 1)(base.layers[-1].input)
    return keras.Model(base.input, keras.layers.GlobalAveragePooling2D()(y))


def augmented(base):
    import keras

    layers = keras.layers
    first = [keras.Input((64, 64, 3)), layers.RandomFlip(), layers.Rescaling(1 / 255)]
    return keras.Sequential([*first, base, layers.Dropout(DROPOUT), layers.Dense(4)])


def fitted(base):
    """Compiled with metrics, and with the variables that an optimiser has after a step."""
    import keras

    model = sequential(base)
    base.trainable = False
    model.compile("adam", "categorical_crossentropy", metrics=["accuracy", keras.metrics.AUC()])
    model.optimizer.build(model.trainable_variables)
    return model


def nested_twice(base):
    import keras

    image = keras.Input((64, 64, 3))
    encoder = keras.Model(image, base(image), name="encoder")
    outer = keras.Input((64, 64, 3))
    return keras.Model(outer, keras.layers.Dense(2)(encoder(outer)))


# What is built, and of how many classes a head is offered.
MODELS = {
    "a base in a Sequential": (sequential, 2),
    "a base that is called": (called, 3),
    "a head on top": (head_on_top, 7),
    "two dense layers on top": (two_dense_layers, None),
    "a convolution on top": (convolution_on_top, None),
    "augmented": (augmented, 4),
    "fitted": (fitted, 2),
    "nested twice": (nested_twice, 2),
}


@pytest.fixture(scope="module")
def expected(keras_reference, tmp_path_factory, write_keras_2):
    """The variables of the network alone, whose features other tests hold against Keras'."""
    path = tmp_path_factory.mktemp("alone") / "alone.h5"
    write_keras_2(path, keras_reference(NETWORK).layers)
    variables = load_pretrained(path, preprocessing="tf").variables
    path.unlink()
    return variables


def assert_base(pretrained, expected):
    variables = dict(pretrained.variables)
    variables["params"] = {k: v for k, v in variables["params"].items() if k != "head"}
    jax.tree.map(np.testing.assert_array_equal, variables, dict(expected))


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # Keras' own
@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5")
@pytest.mark.parametrize(
    ("kind", "ending"),
    [
        pytest.param(kind, ending, marks=[] if (kind, ending) in EVERYDAY else pytest.mark.slow)
        for kind in MODELS
        for ending in ENDINGS
    ],
)
def test_the_base_is_found_in_what_keras_3_writes(
    kind, ending, tmp_path, keras_reference, expected
):
    import keras

    build, classes = MODELS[kind]
    reference = keras_reference(NETWORK)
    reference.restore()
    model = build(reference.base)
    path = tmp_path / f"model.{ending}"
    model.save_weights(path) if ending == "weights.h5" else model.save(path)
    ours = load_pretrained(path, preprocessing="tf")
    assert_base(ours, expected)
    assert ours.num_classes == classes
    assert ours.contract.labels is None
    told = "\n".join(ours.report.lines())
    if classes:
        dense = next(each for each in model.layers[::-1] if isinstance(each, keras.layers.Dense))
        for role, value in zip(("kernel", "bias"), dense.get_weights(), strict=True):
            np.testing.assert_array_equal(ours.variables["params"]["head"][role], value)
        assert f"a head of {classes} classes, whose names the file does not state" in told
    else:
        assert "Left out, since it is no part of the network" in told
    reference.restore()


@pytest.mark.parametrize("full", [True, False])
@pytest.mark.parametrize("nested", [True, False])
def test_the_base_is_found_in_what_keras_2_writes(
    full, nested, tmp_path, keras_reference, expected, write_keras_2
):
    """`<network>/<layer>/<variable>:0` of a network that is called, layers' slashes included."""
    layers = keras_reference(NETWORK).layers
    rng = np.random.default_rng(0)
    head = {"kernel": rng.normal(size=(WIDTH, 2)), "bias": rng.normal(size=2)}
    head = {role: value.astype(np.float32) for role, value in head.items()}
    path = tmp_path / "model.h5"
    if nested:
        write_keras_2(path, [("dense_4", head)], full=full)
        with h5py.File(path, "r+") as file:
            group = file["model_weights"] if full else file
            for name, values in layers:
                name = name.replace("conv1_", "conv1/", 1) if name.startswith("conv1_c") else name
                for role, value in values.items():
                    group[f"{NETWORK}/{name}/{role}:0"] = value
    else:
        write_keras_2(path, [*layers, ("dense_4", head)], full=full)
    ours = load_pretrained(path, preprocessing="tf")
    assert_base(ours, expected)
    assert ours.num_classes == 2
    np.testing.assert_array_equal(ours.variables["params"]["head"]["kernel"], head["kernel"])
    scores, _ = jax.jit(
        lambda variables, x: ours.model.apply(variables, x), compiler_options=COMPILED_QUICKLY
    )(ours.variables, np.zeros((1, 32, 32, 3), np.float32))
    assert scores.shape == (1, 2)


@pytest.mark.parametrize("name", ["inception_v3", "inception_resnet_v2"])
@pytest.mark.parametrize("first", [0, 300])
def test_automatic_names_of_layers_around_a_network_are_not_taken_for_its_own(
    name, first, tmp_path, hollow_layers, write_keras_2
):
    """A convolution before it and a BatchNorm behind it count on in its own numbers."""
    layers = hollow_layers(name)
    ones = type(next(value for _, values in layers for value in values.values()))
    moved = []
    for layer, values in layers:
        stem, _, count = layer.rpartition("_")
        if layer in ("conv2d", "batch_normalization"):
            layer = f"{layer}_{first + 1}"
        elif stem in ("conv2d", "batch_normalization"):
            layer = f"{stem}_{first + 1 + int(count)}"
        moved.append((layer, values))
    before = ("conv2d" if not first else f"conv2d_{first}", {"kernel": ones((1, 1, 3, 3))})
    after = ("batch_normalization_999", {r: ones((9,)) for r in ("beta", "moving_mean")})
    path = write_keras_2(tmp_path / "around.h5", [*moved, before, after])
    ours = load_pretrained(path, preprocessing="tf")
    assert ours.contract.architecture == name
    assert "batch_normalization_999" in "\n".join(ours.report.lines())


def archive_of_keras_2(path, layers, head):
    """As Keras 2.15 writes '.keras': layers by class and count, and who wrote it."""
    content = io.BytesIO()
    counts = {}
    with h5py.File(content, "w") as file:
        for name, values in [*layers, ("dense", head)]:
            kind = {2: "dense" if "kernel" in values and values["kernel"].ndim == 2 else "conv2d"}
            kind = {1: "conv2d", 4: "batch_normalization", **kind}.get(len(values))
            if kind is None:
                continue
            count = counts[kind] = counts.get(kind, -1) + 1
            place = f"_layer_checkpoint_dependencies/{kind}{f'_{count}' if count else ''}/vars"
            for index, value in enumerate(values.values()):
                file[f"{place}/{index}"] = value
            del name
        file["optimizer/vars/0"] = np.int64(3)
        file["metrics/mean/vars/0"] = np.float32(0.5)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("metadata.json", json.dumps({"keras_version": "2.15.0"}))
        archive.writestr("config.json", json.dumps({"class_name": "Functional", "config": {}}))
        archive.writestr("model.weights.h5", content.getvalue())
    return path


def test_an_archive_of_keras_2_is_called_so_and_loads_with_its_optimiser(
    tmp_path, keras_reference, expected
):
    head = {"kernel": np.ones((WIDTH, 2), np.float32), "bias": np.zeros(2, np.float32)}
    path = archive_of_keras_2(tmp_path / "w.keras", keras_reference(NETWORK).layers, head)
    ours = load_pretrained(path, preprocessing="caffe_div255")
    assert_base(ours, expected)
    assert ours.contract.origin == "Keras 2.15.0, origin not stated"
    assert ours.report.form == "Keras 2 archive"
    assert ours.num_classes == 2
    assert "2 variables of the optimiser and the metrics" in "\n".join(ours.report.lines())


def test_a_file_that_does_not_tell_its_input_is_refused_with_what_it_can_be(
    tmp_path, hollow_layers, write_keras_2
):
    path = write_keras_2(tmp_path / "mine.h5", hollow_layers(NETWORK))
    with pytest.raises(WeightsError) as caught:
        load_pretrained(path)
    for told in ("mine.h5", "DenseNet121", "--config.preprocessing", "'caffe_div255'", "'torch'"):
        assert told in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_head_on_the_largest_value_is_not_offered_for_the_average(
    tmp_path, hollow_layers, write_keras_2
):
    layers = hollow_layers(NETWORK)
    ones = type(next(value for _, values in layers for value in values.values()))
    head = {"kernel": ones((WIDTH, 2)), "bias": ones((2,))}
    pooled = {"class_name": "GlobalMaxPooling2D", "config": {"name": "largest"}}
    described = {"class_name": "Functional", "config": {"layers": [pooled]}}
    path = tmp_path / "largest.h5"
    write_keras_2(path, [*layers, ("dense", head)], config=described)
    ours = load_pretrained(path, preprocessing="tf")
    assert ours.num_classes is None
    assert "no part of the network: dense" in "\n".join(ours.report.lines())


def test_two_networks_in_one_file_are_not_told_apart(tmp_path, hollow_layers, write_keras_2):
    path = write_keras_2(tmp_path / "twins.h5", [])
    with h5py.File(path, "r+") as file:
        for place in ("left", "right"):
            for layer, values in hollow_layers(NETWORK):
                for role, value in values.items():
                    file.create_dataset(
                        f"model_weights/{place}/{layer}/{role}:0", value.shape, "f4", fillvalue=1
                    )
    with pytest.raises(WeightsError, match=r"holds 2 networks .*'left', 'right'"):
        load_pretrained(path, preprocessing="tf")


@pytest.mark.parametrize(
    ("member", "told"),
    [
        ("saved_model.pb", "SavedModel of TensorFlow"),
        ("checkpoint", "TensorFlow checkpoint"),
        ("ckpt-1.index", "TensorFlow checkpoint"),
    ],
)
def test_a_folder_of_tensorflow_is_refused_with_how_to_convert_it(member, told, tmp_path):
    (tmp_path / member).write_bytes(b"x")
    with pytest.raises(WeightsError, match=rf"{told}.*weights\.h5"):
        load_pretrained(tmp_path)
    if member.endswith("index"):
        for part in ("ckpt-1", member):
            with pytest.raises(WeightsError, match=r"TensorFlow checkpoint.*weights\.h5"):
                load_pretrained(tmp_path / part)
