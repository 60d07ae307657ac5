"""Laws of what a page says of itself, in words and as a record for a result."""

import json
import re

import pytest

from radimagenet_jax import models
from radimagenet_jax.reports import provenance
from radimagenet_jax.weights.card import NOT_A_DEVICE
from tests.networks import KNOWN


@pytest.mark.parametrize("name", KNOWN)
def test_the_published_networks_have_the_parameters_that_keras_counts(name):
    one = provenance.network(name, {}, 224)
    assert one["parameters"] == one["published_parameters"] == KNOWN[name].parameters
    title = models.architecture(name).title
    millions = f"{KNOWN[name].parameters / 1e6:.1f} million parameters"
    assert provenance.in_words(one) == f"{title}, {millions}, 224 pixels"
    assert provenance.reservations(one, 30) == []


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            # As JSON gives them back.
            {"stage_sizes": [1, 1, 1, 1], "width": 32},
            "a shallow ResNet50, 2.0 of 23.6 million parameters, 64 pixels",
        ),
        ({"width": 32}, "a narrow ResNet50, 5.9 of 23.6 million parameters, 64 pixels"),
        ({"width": 128}, "a larger ResNet50, 94.1 instead of 23.6 million parameters, 64 pixels"),
        ({"variant": "v1.5"}, "ResNet50, 23.6 million parameters, 64 pixels"),
    ],
)
def test_a_network_that_is_not_the_published_one_is_called_by_what_it_is(options, words):
    assert provenance.in_words(provenance.network("resnet50", options, 64)) == words


def test_a_training_names_all_in_which_it_is_less_than_the_published_one():
    small = provenance.network("resnet50", {"stage_sizes": (1, 1, 1, 1)}, 64)
    found = provenance.reservations(small, 12)
    assert provenance.less_than_published(found, smoke=False) == (
        "Less than the published training: a shallow network, 12 of 30 epochs and images of 64 "
        "instead of 224 pixels."
    )
    whole = provenance.network("resnet50", {}, 224)
    # Of a task, the published size of its images counts.
    assert provenance.reservations(whole, 30, "breast") == ["images of 224 instead of 256 pixels"]
    assert provenance.less_than_published([], smoke=False) == ""
    assert provenance.less_than_published([], smoke=True) == provenance.SMOKE


@pytest.mark.parametrize(
    ("command", "is_smoke"),
    [
        ("python -m radimagenet_jax.main --config=configs/covid.py:smoke --workdir=x", True),
        ("python -m radimagenet_jax.main --config configs/covid.py:epochs=3,smoke=true", True),
        ("python -m radimagenet_jax.study '--config=my pages/covid.py:smoke' --workdir=x", True),
        ("python -m radimagenet_jax.main --config=configs/covid.py:smoke=false", False),
        (
            "python -m radimagenet_jax.main --config=configs/covid.py --workdir=runs/x.py:smoke",
            False,
        ),
        ("python -m radimagenet_jax.main --config=configs/smoke.py --workdir=smoke", False),
    ],
)
def test_a_smoke_run_is_told_by_the_argument_of_its_config_page(command, is_smoke):
    assert provenance.is_smoke(command) == is_smoke


def test_a_stamp_has_date_command_versions_hardware_and_notice_and_is_json():
    stamp = json.loads(json.dumps(provenance.stamp(["python", "-m", "a b"], "1 x cpu")))
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d UTC", stamp["made"])
    assert stamp["command"] == "python -m 'a b'"
    assert {"python", "radimagenet-jax", "jax"} <= set(stamp["versions"])
    assert stamp["device"].startswith("1 x cpu, ")
    assert "CPU core" in stamp["device"]
    assert stamp["notice"] == NOT_A_DEVICE


def test_weights_are_what_their_contract_and_their_numbers_say():
    contract = {"format": 1, "origin": "by its name", "sha256": "ab" * 32, "labels": ["a"]}
    rows = provenance.weights_rows(contract, ["never trained"])
    assert rows == [("origin", "by its name"), ("sha256", "ab" * 32), ("remark", "never trained")]
    assert "scratch" in provenance.weights_rows(None)[0][1]


def test_the_first_sentence_says_which_network_began_with_what_and_what_it_lacks():
    small = provenance.network("resnet50", {"stage_sizes": (1, 1, 1, 1), "width": 32}, 64)
    words = "a shallow ResNet50, 2.0 of 23.6 million parameters, 64 pixels"
    record: provenance.Provenance = {
        "network": small,
        "weights": None,
        "dataset": {"name": "phantom"},
        "smoke": True,
        "less": provenance.SMOKE,
    }
    assert provenance.title(record) == f"{words}, smoke run"
    assert provenance.training(record, 1) == (
        f"A{words[1:]}, trained for 1 epoch on phantom from random weights. {provenance.SMOKE}"
    )
    record = {"network": small, "weights": {"origin": "a file"}}
    assert provenance.title(record) == words
    assert provenance.training(record, 2) == f"A{words[1:]}, trained for 2 epochs from a file."
    assert provenance.application(record, "3 images") == f"A{words[1:]}, applied to 3 images."
    assert provenance.title({}) == provenance.training({}, 3) == ""
