"""A Keras file that is not exactly right is refused, with one sentence that says why."""

import shutil

import h5py
import numpy as np
import pytest

from radimagenet_jax import load_pretrained
from radimagenet_jax.errors import WeightsError

KERNEL = "conv5_block3_3_conv"
NORM = "conv2_block1_1_bn"


@pytest.fixture
def layers(hollow_layers):
    """The layers of ResNet50 by name, to be spoilt."""
    return {name: dict(values) for name, values in hollow_layers("resnet50")}


@pytest.fixture
def refused(tmp_path, write_keras_2):
    """Writes layers to a file and returns the sentence with which it is refused."""

    def get(layers, **options):
        path = write_keras_2(tmp_path / "bad.h5", list(layers.items()), **options)
        return refusal(path)

    return get


def refusal(path, **options):
    with pytest.raises(WeightsError) as caught:
        load_pretrained(path, **options)
    message = str(caught.value)
    assert path.name in message
    assert "\n" not in message
    assert message.endswith(".")
    return message


def test_the_intact_hollow_file_loads(tmp_path, layers, write_keras_2):
    path = write_keras_2(tmp_path / "good.h5", list(layers.items()))
    assert load_pretrained(path, preprocessing="tf").report.tensors == 318


def test_a_missing_layer_is_named(layers, refused):
    del layers[KERNEL]
    message = refused(layers)
    assert "2 tensors missing" in message
    assert f"{KERNEL}/kernel" in message
    assert "ResNet50" in message


def test_an_extra_layer_is_named(layers, refused, hollow_layers):
    extra = {"kernel": layers[KERNEL]["kernel"], "bias": layers[KERNEL]["bias"]}
    message = refused({"predictions": extra, **layers})  # not behind the network: amid it
    assert "2 tensors unexpected" in message
    assert "predictions/kernel" in message


def test_swapped_shapes_are_named_with_both_shapes(layers, refused):
    kernel = layers[KERNEL]["kernel"]
    layers[KERNEL]["kernel"] = type(kernel)((1, 1, 2048, 512))
    message = refused(layers)
    assert f"{KERNEL}/kernel (1, 1, 2048, 512) instead of (1, 1, 512, 2048)" in message


def test_all_mismatches_are_told_at_once(layers, refused):
    layers = {"extra": {"kernel": layers[KERNEL]["kernel"]}, **layers}
    del layers[NORM]["gamma"]
    layers[KERNEL]["bias"] = type(layers[KERNEL]["bias"])((7,))
    layers["conv1_conv"]["bias"] = type(layers[KERNEL]["bias"])((64,), "float64")
    message = refused(layers)
    for name in ("extra/kernel", f"{NORM}/gamma", f"{KERNEL}/bias", "conv1_conv/bias float64"):
        assert name in message


@pytest.mark.parametrize("dtype", ["float64", "int32"])
def test_another_precision_is_refused(dtype, layers, refused):
    for values in layers.values():
        for role, value in values.items():
            values[role] = type(value)(value.shape, dtype)
    message = refused(layers)
    assert "318 tensors not float32" in message
    assert dtype in message


@pytest.mark.parametrize("fill", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused(fill, layers, refused):
    bias = layers[KERNEL]["bias"]
    layers[KERNEL]["bias"] = type(bias)(bias.shape, fill=fill)
    assert f"{KERNEL}/bias has 2048 NaN or infinite values" in refused(layers)


def test_negative_variances_are_refused(layers, refused):
    variance = layers[NORM]["moving_variance"]
    layers[NORM]["moving_variance"] = type(variance)(variance.shape, fill=-1e-3)
    assert f"{NORM}/moving_variance has 64 negative variances" in refused(layers)


def test_extreme_variances_load_and_are_reported(tmp_path, layers, write_keras_2):
    variance = layers[NORM]["moving_variance"]
    layers[NORM]["moving_variance"] = type(variance)(variance.shape, fill=56_296)
    path = write_keras_2(tmp_path / "odd.h5", list(layers.items()))
    report = load_pretrained(path, preprocessing="tf").report
    assert any(NORM in finding and "56,296" in finding for finding in report.findings)
    assert any("56,296" in line for line in report.lines())


def test_statistics_of_before_the_first_step_are_reported(tmp_path, layers, write_keras_2):
    for tensors in layers.values():
        for name, fill in (("moving_mean", 0), ("moving_variance", 1)):
            if name in tensors:
                tensors[name] = type(tensors[name])(tensors[name].shape, fill=fill)
    told = "All 106 moving means and variances are 0 and 1"
    path = write_keras_2(tmp_path / "untrained.h5", list(layers.items()))
    report = load_pretrained(path, preprocessing="tf").report
    assert [finding for finding in report.findings if told in finding]
    mean = layers[NORM]["moving_mean"]
    layers[NORM]["moving_mean"] = type(mean)(mean.shape, fill=1e-3)
    path = write_keras_2(tmp_path / "trained.h5", list(layers.items()))
    assert not load_pretrained(path, preprocessing="tf").report.findings


def test_another_network_is_refused_by_name(layers, refused):
    assert "another network" in refused({f"strange_{i}": v for i, v in enumerate(layers.values())})


def test_a_file_without_layers_is_refused(refused):
    assert "holds no weights of a Keras model" in refused({})


def test_truncation_anywhere_is_refused(tmp_path, released):
    path = tmp_path / "cut.h5"
    shutil.copyfile(released, path)
    size = path.stat().st_size
    cuts = np.random.default_rng(5).integers(1, size, 20)
    try:
        for cut in sorted([*cuts, 4, 100, size - 1], reverse=True):
            with path.open("r+b") as file:
                file.truncate(int(cut))
            refusal(path)
    finally:
        path.unlink()


def test_an_empty_file_is_refused(tmp_path):
    path = tmp_path / "empty.h5"
    path.touch()
    assert "empty" in refusal(path)


def test_an_absent_file_is_refused_with_where_to_get_it(tmp_path):
    assert "https://github.com/BMEII-AI/RadImageNet" in refusal(tmp_path / "absent.h5")


def test_a_web_page_is_recognised(tmp_path):
    path = tmp_path / "page.h5"
    path.write_text("<!DOCTYPE html><html><title>Virus scan warning</title></html>")
    assert "web page" in refusal(path)


def test_another_format_is_refused(tmp_path):
    path = tmp_path / "notes.h5"
    path.write_bytes(b"\x00\x01\x02 no weights" * 100)
    assert "no weight file" in refusal(path)


@pytest.mark.parametrize("kind", ["soft", "external", "hard loop", "virtual", "stored outside"])
def test_what_leads_out_of_the_file_is_refused(kind, tmp_path, layers, write_keras_2):
    bias = layers[KERNEL].pop("bias")
    path = write_keras_2(tmp_path / "links.h5", list(layers.items()))
    with h5py.File(tmp_path / "other.h5", "w") as other:
        other.create_dataset("bias", data=np.ones(bias.shape, np.float32))
    outside = tmp_path / "secret.bin"
    outside.write_bytes(bytes(4 * bias.shape[0]))
    with h5py.File(path, "r+") as file:
        group = file[f"model_weights/{KERNEL}/{KERNEL}"]
        if kind == "soft":
            group["bias:0"] = h5py.SoftLink("/model_weights/conv5_block3_2_conv")
        elif kind == "external":
            group["bias:0"] = h5py.ExternalLink("other.h5", "bias")
        elif kind == "hard loop":
            group["bias:0"] = file["model_weights"]
        elif kind == "virtual":
            layout = h5py.VirtualLayout(bias.shape, "float32")
            layout[:] = h5py.VirtualSource(str(tmp_path / "other.h5"), "bias", bias.shape)
            group.create_virtual_dataset("bias:0", layout)
        else:
            group.create_dataset(
                "bias:0", bias.shape, "float32", external=[(str(outside), 0, h5py.h5f.UNLIMITED)]
            )
    message = refusal(path)
    told = {
        "soft": "a soft link",
        "external": "an external link",
        "hard loop": "deeper",
        "virtual": "a virtual dataset",
        "stored outside": "external storage",
    }
    assert told[kind] in message


def test_a_lambda_layer_is_refused_and_not_decoded(layers, refused):
    config = {
        "class_name": "Functional",
        "config": {
            "layers": [{"class_name": "Lambda", "config": {"name": "hook", "function": ["4wE="]}}]
        },
    }
    message = refused(layers, config=config)
    assert "Lambda layer 'hook'" in message
    assert "never run" in message


def test_strides_other_than_keras_are_refused(layers, refused):
    config = {
        "class_name": "Functional",
        "config": {
            "layers": [
                {
                    "class_name": "Conv2D",
                    "config": {"name": "conv3_block1_1_conv", "strides": [1, 1]},
                }
            ]
        },
    }
    assert "strides are not Keras' (v1)" in refused(layers, config=config)


def test_weights_of_the_other_stride_variant_are_refused(released):
    message = refusal_of_request(released, architecture="resnet50:v1.5")
    assert "computes other features" in message


def test_requests_that_do_not_exist_are_refused(released):
    assert "no architecture" in refusal_of_request(released, architecture="resnet51")
    assert "v1, v1.5" in refusal_of_request(released, architecture="resnet50:v2")
    assert "no preprocessing" in refusal_of_request(released, preprocessing="vgg")


def refusal_of_request(path, **options):
    with pytest.raises(WeightsError) as caught:
        load_pretrained(path, **options)
    return str(caught.value)
