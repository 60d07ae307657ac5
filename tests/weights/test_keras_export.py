"""What is written for Keras, Keras loads, and computes the same."""

import jax
import numpy as np
import pytest

from radimagenet_jax import convert, load_pretrained
from radimagenet_jax.errors import WeightsError
from radimagenet_jax.weights import assembly, keras_export
from radimagenet_jax.weights.contract import Contract
from tests.networks import KNOWN

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


@pytest.mark.slow
@pytest.mark.parametrize("name", KNOWN)
def test_keras_gets_every_weight_back(name, tmp_path, keras_reference, write_keras_2):
    reference = keras_reference(name)
    original = write_keras_2(tmp_path / "original.h5", reference.layers)
    written = tmp_path / "for_keras.h5"
    assert (
        convert.main(
            [
                f"--weights={original}",
                "--preprocessing=caffe_div255",
                "--to=keras_h5",
                f"--output={written}",
            ]
        )
        == 0
    )
    original.unlink()

    expected = [value for _, values in reference.layers for value in values.values()]
    reference.base.set_weights([np.zeros_like(value) for value in expected])
    try:
        reference.base.load_weights(written)
        loaded = reference.base.get_weights()
    finally:
        reference.base.set_weights(expected)
        written.unlink()
    for ours, theirs in zip(loaded, expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.fixture(scope="module")
def tuned():
    """A DenseNet121 with a head, as a run leaves it."""
    labels = ("benign", "malignant", "normal")
    shapes = assembly.expected_shapes("densenet121", "", len(labels))
    rng = np.random.default_rng(0)
    variables = {"params": {}, "batch_stats": {}}
    for target, shape in shapes.items():
        *path, leaf = target.split("/")
        node = variables
        for step in path:
            node = node.setdefault(step, {})
        low, high = {"scale": (0.5, 1.5), "var": (0.5, 1.5)}.get(leaf, (-0.1, 0.1))
        node[leaf] = rng.uniform(low, high, shape).astype(np.float32)
    contract = Contract("densenet121", "", "caffe_div255", "BGR", "a run", "mine", "0" * 64, labels)
    return variables, contract


def test_a_fine_tuned_network_gives_keras_the_same_probabilities(tuned, tmp_path):
    import keras

    variables, contract = tuned
    path = tmp_path / "tuned.h5"
    keras_export.write(path, variables, contract)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            keras.initializers.VarianceScaling,
            "__call__",
            lambda self, shape, dtype=None: np.zeros(shape, np.float32),
        )
        base = keras.applications.DenseNet121(
            weights=None, include_top=False, pooling="avg", input_shape=(64, 64, 3)
        )
        dropped = keras.layers.Dropout(0.5)(base.output)
        top = keras.layers.Dense(3, activation="softmax", name="predictions")(dropped)
        model = keras.Model(base.input, top)
    model.load_weights(path)
    x = np.random.default_rng(1).normal(0, 0.3, (2, 64, 64, 3)).astype(np.float32)
    quickly = {"xla_backend_optimization_level": 0}
    expected = jax.jit(
        lambda trainable, fixed, x: model.stateless_call(trainable, fixed, x, training=False)[0],
        compiler_options=quickly,
    )(
        [variable.value for variable in model.trainable_variables],
        [variable.value for variable in model.non_trainable_variables],
        x,
    )

    again = load_pretrained(path)
    assert again.contract.labels == contract.labels
    assert again.contract.preprocessing == contract.preprocessing
    logits = jax.jit(
        lambda variables, x: again.model.apply(variables, x)[0], compiler_options=quickly
    )(again.variables, x)
    assert np.ptp(expected) > 0.01
    np.testing.assert_allclose(jax.nn.softmax(logits), expected, atol=1e-5)


def test_a_network_that_keras_does_not_have_is_refused(tuned, tmp_path):
    variables, contract = tuned
    torch = Contract(**{**vars(contract), "variant": "torch"})
    with pytest.raises(WeightsError, match="Keras has no DenseNet121 of the variant 'torch'"):
        keras_export.write(tmp_path / "x.h5", variables, torch)
    smaller = {**variables, "params": {**variables["params"], "stem": {}}}
    with pytest.raises(WeightsError, match="not those of the published DenseNet121"):
        keras_export.write(tmp_path / "x.h5", smaller, contract)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["tuned.weights.h5", "tuned", "tuned.keras"])
def test_a_name_that_keras_reads_as_another_layout_is_refused(name, tuned, tmp_path):
    with pytest.raises(WeightsError, match=r"must end in '\.h5'"):
        keras_export.write(tmp_path / name, *tuned)


def test_an_existing_file_is_never_overwritten(tuned, tmp_path):
    path = tmp_path / "mine.h5"
    path.write_text("mine")
    with pytest.raises(WeightsError, match="exists already"):
        keras_export.write(path, *tuned)
    assert path.read_text() == "mine"


def test_a_failed_write_leaves_nothing(tuned, tmp_path, monkeypatch):
    def full_disk(*_arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(keras_export, "_write_layer", full_disk)
    with pytest.raises(WeightsError, match="No space left on device"):
        keras_export.write(tmp_path / "x.h5", *tuned)
    assert list(tmp_path.iterdir()) == []
