"""A network is found in whatever form training scripts leave it, and nothing is unpickled."""

import argparse
import collections
import datetime
import json
import pathlib
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

from radimagenet_jax import convert, load_pretrained, predict
from radimagenet_jax.errors import ConfigError, WeightsError
from radimagenet_jax.training import config as config_pages
from radimagenet_jax.training import network
from tests.networks import KNOWN
from tests.weights.test_torch_files import assert_features, numbered, recipe, state_dict


def draw(*shape):
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def head(name, module="fc", classes=2):
    return {
        f"{module}.weight": draw(classes, KNOWN[name].features),
        f"{module}.bias": draw(classes),
    }


def under(prefix, tensors):
    return {f"{prefix}{name}": values for name, values in tensors.items()}


def optimiser(tensors):
    """What `optimizer.state_dict()` of Adam holds after a step."""
    moments = {
        index: {"step": np.float32(3).reshape(()), "exp_avg": values, "exp_avg_sq": values}
        for index, values in enumerate(list(tensors.values())[:3])
    }
    return {"state": moments, "param_groups": [{"lr": 1e-3, "betas": (0.9, 0.999), "params": [0]}]}


def training_checkpoint(tensors):
    return {
        "epoch": 12,
        "best_auc": np.float64(0.91),
        "args": argparse.Namespace(lr=0.1, path=pathlib.PurePosixPath("data")),
        "when": datetime.datetime(2024, 5, 1, 12),
        "history": collections.defaultdict(list, loss=[0.5, 0.25]),
        "seen": {1, 2, 3},
        "rng": np.random.default_rng(0).bytes(16),
        "optimizer": optimiser(tensors),
        "my_network": tensors,
        "scheduler": {"last_epoch": 12, "gamma": 0.1},
    }


def lightning(tensors):
    return {
        "epoch": 3,
        "global_step": 120,
        "pytorch-lightning_version": "2.4.0",
        "state_dict": under("model.", tensors) | {"criterion.weight": draw(2)},
        "callbacks": {"ModelCheckpoint{'monitor': 'val'}": {"best": np.array([0.5], np.float32)}},
        "optimizer_states": [optimiser(tensors)],
        "hyper_parameters": {"lr": 0.1},
    }


# What is saved of a network's tensors with a head on top, and how many classes are offered.
FORMS = {
    "fc": lambda t: t,
    "module.": lambda t: under("module.", t),
    "model.": lambda t: under("model.", t),
    "net.": lambda t: under("net.", t),
    "encoder.": lambda t: under("encoder.", t),
    "backbone.": lambda t: under("backbone.", t),
    "_orig_mod.": lambda t: under("_orig_mod.", t),
    "_orig_mod.module.model.net.": lambda t: under("_orig_mod.module.model.net.", t),
    "a name nobody has heard of": lambda t: under("tower_3.image.", t),
    "state_dict": lambda t: {"state_dict": t, "best": np.float64(0.5)},
    "net": lambda t: {"net": t},
    "under a key of a key": lambda t: {"a": {"weights": under("module.", t)}, "epoch": 1},
    "in a list": lambda t: [t, {"epoch": 1}],
    "an ordered dict": lambda t: collections.OrderedDict(t),
    "with a copy that is averaged": lambda t: {"ema": under("module.", t), "model": t},
    "Lightning": lightning,
    "training checkpoint": training_checkpoint,
}
EVERYDAY = {"fc", "_orig_mod.module.model.net.", "Lightning", "training checkpoint"}


@pytest.fixture(scope="module")
def expected(tmp_path_factory, write_torch):
    """The variables of each network, whose features other tests hold against PyTorch's."""
    known = {}

    def get(name):
        if name not in known:
            path = tmp_path_factory.mktemp(name) / "plain.pt"
            write_torch(path, state_dict(name))
            known[name] = load_pretrained(path, preprocessing="torch").variables
            path.unlink()
        return known[name]

    return get


def assert_base(pretrained, expected):
    variables = dict(pretrained.variables)
    variables["params"] = {k: v for k, v in variables["params"].items() if k != "head"}
    jax.tree.map(np.testing.assert_array_equal, variables, dict(expected))


@pytest.mark.parametrize("module", ["pathlib", "pathlib._local"])
def test_paths_in_a_checkpoint_of_any_python_are_passed_over(
    tmp_path, write_checkpoint, monkeypatch, module
):
    monkeypatch.setitem(sys.modules, module, pathlib)  # as Python 3.13 calls it
    monkeypatch.setattr(pathlib.PurePosixPath, "__module__", module)
    path = tmp_path / "model.pt"
    write_checkpoint(
        path, {"where": pathlib.PurePosixPath("data"), "model": state_dict("resnet50")}
    )
    assert module.encode() + b"\nPurePosixPath" in path.read_bytes()
    load_pretrained(path, preprocessing="torch")


@pytest.mark.parametrize(
    "form", [pytest.param(f, marks=[] if f in EVERYDAY else pytest.mark.slow) for f in FORMS]
)
def test_the_base_and_its_head_are_found(form, tmp_path, write_checkpoint, expected):
    tensors = state_dict("resnet50") | head("resnet50")
    ours = load_pretrained(
        write_checkpoint(tmp_path / "model.pt", FORMS[form](tensors)), preprocessing="torch"
    )
    assert_base(ours, expected("resnet50"))
    assert ours.num_classes == 2
    assert ours.contract.origin == "PyTorch's names, origin not stated"
    np.testing.assert_array_equal(
        ours.variables["params"]["head"]["kernel"], tensors["fc.weight"].T
    )
    assert "a head of 2 classes" in "\n".join(ours.report.lines())


def test_features_of_a_training_checkpoint_equal_pytorch(
    tmp_path, write_checkpoint, quick_features
):
    tensors = state_dict("densenet121") | head("densenet121", "classifier", 5)
    path = write_checkpoint(tmp_path / "last.ckpt", lightning(tensors))
    ours = load_pretrained(path, preprocessing="torch")
    assert ours.num_classes == 5
    assert_features(quick_features(ours, recipe.picture(96))["spatial"], "densenet121", 96)


def test_inceptions_auxiliary_head_is_left_out(tmp_path, write_checkpoint, expected):
    auxiliary = {
        "conv0.conv.weight": draw(128, 768, 1, 1),
        "conv0.bn.running_var": draw(128) ** 2,
        "fc.weight": draw(2, 768),
        "fc.bias": draw(2),
    }
    tensors = state_dict("inception_v3") | under("AuxLogits.", auxiliary) | head("inception_v3")
    path = write_checkpoint(tmp_path / "model.pt", under("module.", tensors))
    ours = load_pretrained(path, preprocessing="tf")
    assert_base(ours, expected("inception_v3"))
    assert ours.num_classes == 2
    assert "no part of the network: module.AuxLogits" in "\n".join(ours.report.lines())


@pytest.mark.parametrize("name", ["resnet50", pytest.param("densenet121", marks=pytest.mark.slow)])
def test_radimagenets_example_with_its_classifier(name, tmp_path, write_checkpoint, expected):
    tensors = under("0.", numbered(name, state_dict(name))) | head(name, "1.linear")
    ours = load_pretrained(write_checkpoint(tmp_path / "model.pt", tensors))
    assert_base(ours, expected(name))
    assert ours.num_classes == 2
    assert (ours.contract.preprocessing, ours.contract.channel_order) == ("tf", "BGR")
    assert ours.contract.origin == "a network in the form of RadImageNet's PyTorch example"
    assert "RadImageNet" not in ours.contract.licence


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_becomes_float32_exactly(dtype, tmp_path, write_checkpoint):
    precise = state_dict("resnet50")
    kept = {k: v.astype(jnp.dtype(dtype)) if v.ndim else v for k, v in precise.items()}
    path = write_checkpoint(tmp_path / "half.pt", kept)
    ours = load_pretrained(path, preprocessing="torch")
    kernel = ours.variables["params"]["stem"]["conv"]["kernel"]
    assert kernel.dtype == np.float32
    np.testing.assert_array_equal(
        kernel, kept["conv1.weight"].astype(np.float32).transpose(2, 3, 1, 0)
    )
    assert f"tensors were {dtype} and are float32 now" in "\n".join(ours.report.lines())


def test_what_computes_between_features_and_classes_is_left_out(tmp_path, write_checkpoint):
    hidden = {"fc.0.weight": draw(9, 2048), "fc.0.bias": draw(9), "fc.2.weight": draw(2, 9)}
    path = write_checkpoint(tmp_path / "m.pt", state_dict("resnet50") | hidden)
    ours = load_pretrained(path, preprocessing="torch")
    assert ours.num_classes is None
    assert "no part of the network: fc.0, fc.2" in "\n".join(ours.report.lines())


def test_two_networks_in_one_state_dict_are_not_told_apart(tmp_path, write_checkpoint):
    tensors = state_dict("densenet121")
    both = under("left.", tensors) | under("right.", tensors)
    path = write_checkpoint(tmp_path / "twins.pt", both)
    with pytest.raises(WeightsError, match=r"holds 2 networks \('left\.features\.', 'right"):
        load_pretrained(path, preprocessing="torch")


def test_two_state_dicts_without_a_usual_name_are_not_told_apart(tmp_path, write_checkpoint):
    tensors = state_dict("densenet121")
    path = write_checkpoint(tmp_path / "two.pt", {"student": tensors, "teacher": tensors})
    with pytest.raises(WeightsError, match="holds 2 state dicts"):
        load_pretrained(path, preprocessing="torch")


# ---------------------------------------------------------------- Whose input it is


@pytest.fixture(scope="module")
def timm(tmp_path_factory):
    """A ResNet50 with timm's names, which are torchvision's."""
    path = tmp_path_factory.mktemp("timm") / "timm.safetensors"
    tensors = state_dict("resnet50") | head("resnet50")
    save_file(tensors, path, metadata={"format": "pt"})
    return path


def test_no_input_is_guessed_and_no_origin_claimed(timm):
    with pytest.raises(WeightsError) as caught:
        load_pretrained(timm)
    for told in ("timm.safetensors", "ResNet50", "preprocessing=", "'tf'", "'torch' (torchvision"):
        assert told in str(caught.value)
    contract = load_pretrained(timm, preprocessing="torch").contract
    assert (contract.preprocessing, contract.channel_order) == ("torch", "RGB")
    assert "RadImageNet" not in contract.origin + contract.licence


@pytest.mark.parametrize(
    ("asked", "taken"), [("torch", "torch"), ("published", "caffe_div255"), ("native", None)]
)
def test_in_training_the_config_is_the_users_word(asked, taken, timm):
    page = pathlib.Path(__file__).resolve().parents[2] / "configs" / "base.py"
    config = config_pages.load(
        str(page), [f"--config.init={timm}", f"--config.preprocessing={asked}"]
    )
    config.image_size = 32
    config.model = "resnet50"
    config.model_options.unlock()
    if taken is None:
        with pytest.raises(WeightsError, match="nothing in it says which input"):
            network.build(config, ("no", "yes"))
        return
    start = network.build(config, ("no", "yes"))
    assert (start.contract.preprocessing, start.trained_with) == (taken, taken)
    assert start.variables["params"]["head"]["kernel"].shape == (2048, 2)


def test_a_head_is_converted_when_its_classes_are_named(timm, tmp_path):
    flags = [f"--weights={timm}", "--preprocessing=torch"]
    with pytest.raises(ConfigError, match=r"names 3 classes, but the head .* has 2"):
        convert.main([*flags, "--labels=a,b,c", f"--output={tmp_path / 'no'}"])
    assert convert.main([*flags, "--labels=no, yes", f"--output={tmp_path / 'w'}"]) == 0
    ours = load_pretrained(tmp_path / "w")
    assert ours.contract.labels == ("no", "yes")
    assert ours.num_classes == 2
    assert convert.main([*flags, f"--output={tmp_path / 'headless'}"]) == 0
    stated = json.loads((tmp_path / "headless" / "contract.json").read_text())
    assert stated["labels"] is None
    with pytest.raises(ConfigError, match="leave --labels out"):
        convert.main([f"--weights={tmp_path / 'w'}", "--labels=a,b", f"--output={tmp_path / 'x'}"])
    with pytest.raises(WeightsError, match="expect the preprocessing 'torch', not 'tf'"):
        load_pretrained(tmp_path / "w", preprocessing="tf")


def test_predict_scores_with_weights_that_name_their_classes(timm, tmp_path):
    import cv2

    cv2.imwrite(str(tmp_path / "a.png"), np.full((32, 32, 3), 90, np.uint8))
    weights = [f"--weights={timm}", "--preprocessing=torch"]
    convert.main([*weights, "--labels=no,yes", f"--output={tmp_path / 'w'}"])
    flags = [f"--inputs={tmp_path / 'a.png'}", f"--output={tmp_path / 'o'}", "--image_size=32"]
    assert predict.main([f"--weights={tmp_path / 'w'}", *flags]) == 0
    header, row = (tmp_path / "o" / "predictions.csv").read_text().splitlines()
    assert header == "key,prediction,score_no,score_yes"
    assert sum(map(float, row.split(",")[2:])) == pytest.approx(1, abs=1e-5)
    with pytest.raises(ConfigError, match="does not state their names; add --features"):
        predict.main([*weights, *flags])
