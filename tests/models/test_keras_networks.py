"""The networks are Keras': the same layers in the same order, and the same features."""

import jax
import numpy as np
import pytest
from flax import traverse_util

from radimagenet_jax import models
from tests.networks import KNOWN

# Odd sides too, where explicit, 'SAME' and 'VALID' padding part ways.
SMALL = [(name, max(65, known.size)) for name, known in KNOWN.items()]
LARGE = [(name, size) for name, known in KNOWN.items() for size in known.published_sizes]

ROLES = {
    ("conv", "kernel"): "params/kernel",
    ("conv", "bias"): "params/bias",
    ("batch_norm", "gamma"): "params/scale",
    ("batch_norm", "beta"): "params/bias",
    ("batch_norm", "moving_mean"): "batch_stats/mean",
    ("batch_norm", "moving_variance"): "batch_stats/var",
}


def copied(name, reference):
    """Keras' values as our variables, by the layer table."""
    table = {layer.name: layer for layer in models.architecture(name).keras_layers()}
    leaves = {}
    for keras_name, values in reference.layers:
        layer = table[keras_name]
        for role, value in values.items():
            collection, leaf = ROLES[layer.kind, role].split("/")
            leaves[f"{collection}/{layer.path}/{leaf}"] = value
    return traverse_util.unflatten_dict(leaves, sep="/")


def features(model, variables, x, options):
    """Spatial and pooled features in inference mode."""

    def apply(variables, x):
        _, out = model.apply(variables, x)
        return {"spatial": out["spatial"], "pooled": out["pooled"]}

    return jax.jit(apply, compiler_options=options)(variables, x)


def assert_features_equal_keras(name, size, reference):
    x = np.random.default_rng(size).normal(0, 0.5, (2, size, size, 3)).astype(np.float32)
    options = {"xla_backend_optimization_level": 0}
    ours = features(models.create(name), copied(name, reference), x, options)
    for key, expected in reference.features(x).items():
        scale = np.abs(expected).max()
        assert scale > 0.01, "a reference of zeros would agree with anything"
        worst = np.abs(np.asarray(ours[key]) - expected).max() / scale
        assert worst < 1e-4, f"{key} differs by {worst:.1e} of its largest magnitude"


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("resnet50", 176),
        ("densenet121", 428),
        ("inception_v3", 312),
        ("inception_resnet_v2", 781),
    ],
)
def test_the_layer_table_is_keras_list_of_layers(name, count, keras_reference):
    keras_layers = keras_reference(name).base.layers
    table = models.architecture(name).keras_layers()
    assert len(table) == count
    assert [layer.name for layer in table] == [layer.name for layer in keras_layers]
    kinds = {"Conv2D": "conv", "BatchNormalization": "batch_norm"}
    assert [layer.kind for layer in table] == [
        kinds.get(type(layer).__name__, "other") for layer in keras_layers
    ]
    assert [layer.path is not None for layer in table] == [
        bool(layer.weights) for layer in keras_layers
    ]


@pytest.mark.parametrize(("name", "size"), SMALL)
def test_features_equal_keras(name, size, keras_reference):
    assert_features_equal_keras(name, size, keras_reference(name))


@pytest.mark.slow
@pytest.mark.parametrize(("name", "size"), LARGE)
def test_features_equal_keras_at_other_sizes(name, size, keras_reference):
    assert_features_equal_keras(name, size, keras_reference(name))
