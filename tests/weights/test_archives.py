"""Keras archives and Lambda layers: what is read of them, and what is refused."""

import json
import re
import zipfile

import numpy as np
import pytest

from radimagenet_jax import load_pretrained
from radimagenet_jax.errors import WeightsError


@pytest.fixture(scope="module")
def weights_h5(tmp_path_factory, hollow_layers, write_keras_2):
    path = tmp_path_factory.mktemp("hollow") / "model.h5"
    return write_keras_2(path, hollow_layers("densenet121"), full=False)


def archive_of(path, member, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("metadata.json", json.dumps({"keras_version": "3.15.1"}))
        archive.writestr("config.json", "not even JSON: it is never read")
        archive.write(member, "model.weights.h5")
    return path


def refusal(path):
    with pytest.raises(WeightsError) as caught:
        load_pretrained(path)
    message = str(caught.value)
    assert path.name in message
    assert "\n" not in message
    assert message.endswith(".")
    return message


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_an_archive_is_read_compressed_or_not(compression, tmp_path, weights_h5):
    path = archive_of(tmp_path / "model.keras", weights_h5, compression)
    assert load_pretrained(path, preprocessing="torch").contract.architecture == "densenet121"


def test_truncation_anywhere_is_refused(tmp_path, weights_h5):
    path = archive_of(tmp_path / "model.keras", weights_h5)
    whole = path.read_bytes()
    for cut in np.random.default_rng(5).integers(1, len(whole), 20):
        path.write_bytes(whole[:cut])
        refusal(path)


def test_a_changed_byte_is_noticed(tmp_path, weights_h5):
    path = archive_of(tmp_path / "model.keras", weights_h5)
    whole = bytearray(path.read_bytes())
    whole[len(whole) // 2] ^= 0x10
    path.write_bytes(whole)
    assert "CRC" in refusal(path)


def test_two_members_of_one_name_are_refused(tmp_path, weights_h5):
    path = archive_of(tmp_path / "model.keras", weights_h5)
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.write(weights_h5, "model.weights.h5")
    assert "two members of one name" in refusal(path)


def test_weights_that_are_no_hdf5_are_refused(tmp_path):
    member = tmp_path / "page.txt"
    member.write_text("no weights")
    assert "HDF5" in refusal(archive_of(tmp_path / "model.keras", member))


def lambdas(names):
    return {
        "class_name": "Functional",
        "config": {
            "layers": [
                {"class_name": "Lambda", "config": {"name": name, "function": ["4wEAAA==", None]}}
                for name in names
            ]
        },
    }


def test_the_scales_of_a_released_inception_resnet_are_left_undecoded(
    tmp_path, hollow_layers, write_keras_2
):
    """Keras 2 wrote them as Lambda layers named after their blocks."""
    names = [
        *(f"block35_{i}" for i in range(1, 11)),
        *(f"block17_{i}" for i in range(1, 21)),
        *(f"block8_{i}" for i in range(1, 11)),
    ]
    layers = hollow_layers("inception_resnet_v2")
    path = write_keras_2(tmp_path / "IRV2.h5", layers, config=lambdas(names))
    pretrained = load_pretrained(path, preprocessing="tf")
    assert pretrained.contract.architecture == "inception_resnet_v2"
    assert any("40 Lambda layers" in note for note in pretrained.report.notes)


def test_any_other_lambda_layer_is_refused(tmp_path, hollow_layers, write_keras_2):
    layers = hollow_layers("inception_resnet_v2")
    path = write_keras_2(tmp_path / "IRV2.h5", layers, config=lambdas(["block35_1", "hook"]))
    assert "Lambda layer 'hook'" in refusal(path)


@pytest.mark.parametrize("name", ["inception_v3", "inception_resnet_v2"])
def test_a_missing_layer_is_named_although_names_are_only_counts(
    name, tmp_path, hollow_layers, write_keras_2
):
    """From a gap in an otherwise complete range of counts follows which layer is missing."""
    layers = []
    for layer, values in hollow_layers(name):
        match = re.fullmatch(r"conv2d(?:_(\d+))?", layer)
        count = int(match[1] or 0) if match else None
        if count != 17:
            layers.append((f"conv2d_{count + 94}" if match else layer, values))
    message = refusal(write_keras_2(tmp_path / "gap.h5", layers))
    assert "1 tensor missing: conv2d_17/kernel" in message


def test_counts_that_cannot_be_ranked_are_refused_by_number(tmp_path, hollow_layers, write_keras_2):
    layers = [entry for entry in hollow_layers("inception_v3") if entry[0] != "conv2d_93"]
    message = refusal(write_keras_2(tmp_path / "short.h5", layers))
    assert "93 automatically named conv2d layers instead of 94" in message
