"""Converted weights are the weights, whole, and say so when they are not."""

import json
import shutil

import jax
import numpy as np
import pytest

from radimagenet_jax import convert, load_pretrained
from radimagenet_jax.errors import ConfigError, WeightsError
from radimagenet_jax.models import ResNet50
from radimagenet_jax.training import initialise
from radimagenet_jax.weights import assembly, native, reading
from radimagenet_jax.weights.contract import Contract
from radimagenet_jax.weights.fingerprint import fingerprint, precise_features


@pytest.fixture(scope="module")
def original(released):
    return load_pretrained(released)


@pytest.fixture(scope="module")
def converted(tmp_path_factory, released):
    folder = tmp_path_factory.mktemp("converted") / "resnet50"
    assert convert.main([f"--weights={released}", f"--output={folder}"]) == 0
    return folder


@pytest.fixture
def spoilt(tmp_path, converted):
    """A copy of the converted folder, to be spoilt."""
    folder = tmp_path / "spoilt"
    shutil.copytree(converted, folder)
    yield folder
    shutil.rmtree(folder)


def assert_same(ours, theirs):
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    for one, other in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_array_equal(one, other)


def test_conversion_changes_neither_a_bit_nor_the_contract(converted, original):
    again = load_pretrained(converted)
    assert_same(again.variables, original.variables)
    assert again.contract == original.contract


def test_the_tensors_alone_still_have_their_contract(converted, original):
    alone = load_pretrained(converted / "model.safetensors")
    assert alone.contract == original.contract
    assert_same(alone.variables, original.variables)


def test_a_folder_is_only_what_it_says(converted):
    assert sorted(path.name for path in converted.iterdir()) == [
        *("README.md", "contract.json", "model.safetensors", "usage.json"),
    ]
    assert list(converted.parent.iterdir()) == [converted]


def refusal(path, **options):
    with pytest.raises(WeightsError) as caught:
        load_pretrained(path, **options)
    message = str(caught.value)
    assert "\n" not in message
    assert message.endswith(".")
    return message


def test_a_changed_bit_is_noticed(spoilt):
    with (spoilt / "model.safetensors").open("r+b") as file:
        file.seek(-3, 2)
        last = file.read(1)
        file.seek(-3, 2)
        file.write(bytes([last[0] ^ 1]))
    assert "is not the file that contract.json was written for" in refusal(spoilt)


@pytest.mark.parametrize("name", ["contract.json", "model.safetensors"])
def test_a_missing_file_is_named(name, spoilt):
    (spoilt / name).unlink()
    assert f"{name} is missing" in refusal(spoilt)


def test_a_contract_that_is_not_json_is_refused(spoilt):
    (spoilt / "contract.json").write_text("{")
    assert "not valid JSON" in refusal(spoilt)


@pytest.mark.parametrize("keep", [4, 100, 50_000, -1])
def test_truncated_tensors_are_refused(keep, spoilt):
    path = spoilt / "model.safetensors"
    with path.open("r+b") as file:
        file.truncate(keep if keep > 0 else path.stat().st_size - 1)
    refusal(path)
    refusal(spoilt)


def test_another_preprocessing_than_the_contracts_is_refused(converted):
    message = refusal(converted, preprocessing="torch")
    assert "'caffe_div255', not 'torch'" in message


def test_another_variant_than_the_contracts_is_refused(converted):
    assert "computes other features" in refusal(converted, architecture="resnet50:v1.5")


def test_a_folder_of_something_else_is_refused(tmp_path):
    assert "folder without converted weights" in refusal(tmp_path)


def test_an_existing_folder_is_never_overwritten(tmp_path, original):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(WeightsError, match="exists already"):
        native.write(tmp_path, original.variables, original.contract)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_a_failed_write_leaves_nothing(tmp_path, original, monkeypatch):
    def full_disk(*_arguments, **_options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(native, "save_file", full_disk)
    with pytest.raises(WeightsError, match="No space left on device"):
        native.write(tmp_path / "resnet50", original.variables, original.contract)
    assert list(tmp_path.iterdir()) == []


def test_a_head_is_kept_with_its_labels(tmp_path, original):
    labels = ("benign", "malignant", "normal")
    shapes = assembly.expected_shapes("resnet50", "v1", len(labels))
    kernel = np.random.default_rng(0).normal(size=shapes["params/head/kernel"]).astype(np.float32)
    head = {"kernel": kernel, "bias": np.ones(3, np.float32)}
    variables = {**original.variables, "params": {**original.variables["params"], "head": head}}
    contract = Contract(**{**vars(original.contract), "labels": labels})
    native.write(tmp_path / "tuned", variables, contract)
    again = load_pretrained(tmp_path / "tuned")
    assert again.contract.labels == labels
    assert again.model.num_classes == 3
    np.testing.assert_array_equal(again.variables["params"]["head"]["kernel"], kernel)


@pytest.fixture(scope="module")
def random_network():
    variables = initialise.scratch(ResNet50(), 32, 0, "zeros")
    contract = Contract("resnet50", "v1", "caffe_div255", "BGR", "random", "none", "0" * 64)
    return variables, contract


def test_the_fingerprint_is_that_of_the_features(original):
    precise = precise_features(original.variables, original.contract)
    from radimagenet_jax.weights.fingerprint import picture

    usual = original.features(original.preprocess(picture()))["pooled"][0]
    assert np.abs(precise - usual).max() < 1e-4 * np.abs(precise).max()


def test_the_fingerprint_sees_weights_preprocessing_and_strides(random_network):
    variables, contract = random_network
    prints = {
        fingerprint(variables, contract),
        fingerprint(variables, Contract(**{**vars(contract), "preprocessing": "caffe"})),
        fingerprint(variables, Contract(**{**vars(contract), "channel_order": "RGB"})),
    }
    params = dict(variables["params"])
    params["stem"] = jax.tree.map(lambda leaf: leaf * 1.01, params["stem"])
    prints.add(fingerprint({**variables, "params": params}, contract))
    assert len(prints) == 4


def test_the_fingerprint_bears_noise_far_below_its_rounding(random_network):
    variables, contract = random_network
    rng = np.random.default_rng(0)
    noisy = jax.tree.map(
        lambda leaf: leaf.astype(np.float64) * (1 + 1e-12 * rng.normal(size=leaf.shape)), variables
    )
    assert fingerprint(noisy, contract) == fingerprint(variables, contract)


def test_verify_prints_one_fingerprint_for_a_file_and_its_conversion(
    released, converted, capsys, original
):
    assert convert.main([f"--weights={converted}", "--verify"]) == 0
    expected = fingerprint(original.variables, original.contract)
    assert capsys.readouterr().out == f"fingerprint: {expected}\n"


def test_convert_says_what_it_read(released, tmp_path, capsys):
    with pytest.raises(WeightsError, match="no architecture"):
        convert.main([f"--weights={released}", f"--output={tmp_path / 'x'}", "--arch=vgg16"])
    assert not (tmp_path / "x").exists()
    reading_report = reading.read(released).report
    assert "318 tensors" in reading_report.lines()[0]


def test_convert_without_a_task_is_refused(released):
    with pytest.raises(ConfigError, match="nothing to do"):
        convert.main([f"--weights={released}"])


def test_convert_explains_itself(capsys):
    with pytest.raises(SystemExit) as caught:
        convert.main(["--help"])
    assert caught.value.code == 0
    told = capsys.readouterr().out
    assert "caffe_div255" in told
    assert "fingerprint" in told


def test_a_contract_file_is_json_for_other_programs(converted):
    record = json.loads((converted / "contract.json").read_text())
    assert record["preprocessing"] == "caffe_div255"
    assert len(record["model_sha256"]) == 64
