"""A contract survives being written, and refuses what contradicts it."""

import json
from dataclasses import replace

import pytest

from radimagenet_jax.errors import WeightsError
from radimagenet_jax.weights.contract import (
    PREPROCESSINGS,
    Contract,
    check_architecture,
    check_preprocessing,
)

CONTRACT = Contract(
    architecture="resnet50",
    variant="v1",
    preprocessing="caffe_div255",
    channel_order="BGR",
    origin="RadImageNet, Keras 2 file",
    licence="ask the owners — «in writing»",
    sha256="ab" * 32,
    labels=("benign", "malignant"),
)


@pytest.mark.parametrize("contract", [CONTRACT, replace(CONTRACT, labels=None, variant="")])
def test_json_gives_the_same_contract_back(contract):
    assert Contract.from_json(contract.to_json()) == contract


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"preprocessing": "vgg"}, "preprocessing"),
        ({"channel_order": "GBR"}, "channel_order"),
        ({"variant": "v3"}, "variant"),
        ({"sha256": "xyz"}, "sha256"),
        ({"sha256": None}, "sha256"),
        ({"architecture": ""}, "architecture"),
        ({"origin": 3}, "origin"),
        ({"licence": ["free"]}, "licence"),
        ({"labels": ["a", "a"]}, "labels"),
        ({"labels": "abc"}, "labels"),
        ({"layout": "OIHW"}, "layout"),
        ({"format": 2}, "format 2"),
        ({"colour": "grey"}, "unknown 'colour'"),
    ],
)
def test_a_wrong_field_is_named(change, told):
    record = json.loads(CONTRACT.to_json()) | change
    with pytest.raises(WeightsError, match=told):
        Contract.from_json(json.dumps(record))


@pytest.mark.parametrize("field", json.loads(CONTRACT.to_json()))
def test_a_missing_field_is_named(field):
    record = json.loads(CONTRACT.to_json())
    del record[field]
    with pytest.raises(WeightsError, match=field):
        Contract.from_json(json.dumps(record))


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "3", "[" * 100_000])
def test_text_that_is_no_contract_is_refused_with_its_name(text):
    with pytest.raises(WeightsError, match=r"^here\.json"):
        Contract.from_json(text, name="here.json")


@pytest.mark.parametrize("preprocessing", PREPROCESSINGS)
def test_only_the_contracts_preprocessing_passes_unless_a_mismatch_is_allowed(preprocessing):
    check_preprocessing(CONTRACT, preprocessing, allow_mismatch=True)
    if preprocessing == CONTRACT.preprocessing:
        check_preprocessing(CONTRACT, preprocessing, allow_mismatch=False)
    else:
        with pytest.raises(WeightsError, match="expect the preprocessing 'caffe_div255'"):
            check_preprocessing(CONTRACT, preprocessing, allow_mismatch=False)


def test_an_unknown_preprocessing_is_refused_even_if_a_mismatch_is_allowed():
    with pytest.raises(WeightsError, match="no preprocessing 'vgg'"):
        check_preprocessing(CONTRACT, "vgg", allow_mismatch=True)


def test_another_network_or_stride_variant_is_refused():
    check_architecture(CONTRACT, "resnet50")
    check_architecture(CONTRACT, "resnet50", "v1")
    with pytest.raises(WeightsError, match="computes other features"):
        check_architecture(CONTRACT, "resnet50", "v1.5")
    with pytest.raises(WeightsError, match="not of densenet121"):
        check_architecture(CONTRACT, "densenet121")
