"""A network without BatchNorm, and its deeper sibling, go through all that the others do."""

import os
import re
import subprocess
import sys

import h5py
import jax
import numpy as np
import pytest
from safetensors.numpy import save_file

from radimagenet_jax import create_model, load_pretrained, models, train
from radimagenet_jax.reports import provenance
from radimagenet_jax.training import config as config_pages
from radimagenet_jax.training import initialise, network
from radimagenet_jax.weights import fingerprint, keras_export, reading
from radimagenet_jax.weights.keras_h5 import CONTRACT_ATTRIBUTE
from tests import plain_network
from tests.conftest import PROJECT

# Known to the tests of this file only.
for _one in plain_network.NETWORKS:
    del models._architectures()[_one.name]
PAGE = str(PROJECT / "configs" / "quickstart.py:smoke")


@pytest.fixture(autouse=True)
def registered():
    for one in plain_network.NETWORKS:
        models.register(one)
    yield
    for one in plain_network.NETWORKS:
        del models._architectures()[one.name]


def config_of(**fields):
    config = config_pages.load(PAGE, ["--config.model=plain"])
    for name, value in fields.items():
        config[name] = value
    config_pages.validate(config)
    return config


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A trained one, its head and last layers alone."""
    folder = tmp_path_factory.mktemp("plain")
    for one in plain_network.NETWORKS:
        models.register(one)
    config = config_of(structure="top=3")
    config.dataset.data_dir = str(folder / "data")
    assert train.train(config, str(folder / "run"), ["train"]) == 0
    return folder / "run"


def test_it_is_trained_applied_saved_and_fine_tuned(run, tmp_path):
    trained = load_pretrained(run)
    assert trained.variables["batch_stats"] == {}
    whole = create_model("plain", class_names=("no", "yes"), image_size=32)
    whole.save(tmp_path / "whole")
    again = load_pretrained(tmp_path / "whole")
    assert fingerprint.fingerprint(again.variables, again.contract) == (
        fingerprint.fingerprint(whole.variables, whole.contract)
    )
    config = config_of(init=str(run), structure="freezeall", ema=0.5, remat="blocks")
    config.dataset.data_dir = str(run.parent / "data")
    assert train.train(config, str(tmp_path / "tuned"), ["train"]) == 0
    tuned = load_pretrained(tmp_path / "tuned").variables["params"]
    same = jax.tree.map(np.array_equal, tuned["block2"], trained.variables["params"]["block2"])
    assert all(jax.tree.leaves(same))


def test_layers_without_variables_go_with_the_block_that_they_are_said_to_be_of():
    program = network.from_scratch(config_of(structure="top=3"), ("no", "yes"))
    shallow = models.architecture("plain").layers(program._network, 32)
    assert [layer.name for layer in shallow] == [
        *("input", "block1_conv1", "block1_pool", "block2_conv1", "block2_pool", "avg_pool"),
    ]
    assert {name.rpartition("/")[0] for name in program.freeze.trainable} == {
        "block2/conv1",
        "head",
    }


@pytest.mark.parametrize("name", ["plain", "deeper"])
def test_a_file_is_of_the_sibling_whose_names_it_all_has(name, tmp_path):
    net = create_model(name)
    keras_export.write(tmp_path / "a.h5", net.variables, net.contract)
    with h5py.File(tmp_path / "a.h5", "a") as file:
        del file.attrs[CONTRACT_ATTRIBUTE]
    leaves = {
        f"net.{block}.{layer}.{'weight' if leaf == 'kernel' else leaf}": np.ascontiguousarray(
            values.transpose(3, 2, 0, 1) if leaf == "kernel" else values
        )
        for block, layers in net.variables["params"].items()
        for layer, own in layers.items()
        for leaf, values in own.items()
    }
    save_file(leaves, tmp_path / "a.safetensors")
    for path in (tmp_path / "a.h5", tmp_path / "a.safetensors"):
        found = reading.read(path, preprocessing="tf")
        assert found.contract.architecture == name
        assert "RadImageNet" not in found.contract.origin
        jax.tree.map(np.testing.assert_array_equal, found.variables, net.variables)


def test_a_record_has_the_size_of_the_network_that_is_there():
    model = models.create("plain", depths=(1, 1), num_classes=2)
    record = provenance.of_network(model, "plain", 32)["network"]
    variables = initialise.scratch(model, 32, 0, "zeros")["params"]
    del variables["head"]
    assert record["parameters"] == sum(leaf.size for leaf in jax.tree.leaves(variables))
    assert record["is_shallow"]


def command(*arguments, networks):
    environment = {**os.environ, "RADIMAGENET_NETWORKS": networks}
    line = [sys.executable, "-m", *arguments]
    return subprocess.run(
        line, cwd=PROJECT, env=environment, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(
    ("networks", "code", "says"),
    [
        ("tests.plain_network", 0, ""),
        ("", 1, "'plain', which this version .*RADIMAGENET_NETWORKS"),
        ("no_such_module", 1, "RADIMAGENET_NETWORKS names the module 'no_such_module', which cann"),
    ],
)
def test_commands_know_the_networks_of_the_modules_that_the_environment_names(
    networks, code, says, run, tmp_path
):
    images = str(PROJECT / ".github" / "*.png")
    ran = command(
        *("radimagenet_jax.predict", f"--workdir={run}", f"--inputs={images}"),
        f"--output={tmp_path / 'scores'}",
        networks=networks,
    )
    assert ran.returncode == code, ran.stderr
    assert re.search(says, " ".join(ran.stderr.split()))
    assert (tmp_path / "scores/predictions.csv").exists() == (code == 0)
