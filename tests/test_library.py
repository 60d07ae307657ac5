"""The library: networks by name, from files and runs; scores, maps, and a loop of one's own."""

import doctest
import importlib
import json
import re
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import radimagenet_jax as rin
from radimagenet_jax import models
from radimagenet_jax.errors import ConfigError, DataError, WeightsError
from radimagenet_jax.weights.usage import Usage
from tests.dicom_files import dicom_file

README = Path(rin.__file__).with_name("README.md")
NAMES = ("benign", "malignant")


@pytest.fixture(scope="module")
def net():
    return rin.create_model("resnet50", class_names=NAMES, image_size=48)


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(3).integers(0, 256, (3, 80, 80, 1), np.uint8)


def test_the_import_loads_nothing_heavy_and_lists_what_there_is():
    code = (
        "import sys, radimagenet_jax as rin; "
        "print(*dir(rin)); print({'jax', 'numpy', 'flax', 'h5py'} & set(sys.modules))"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    listed, heavy = shown.stdout.splitlines()
    assert heavy == "set()"
    assert {"load_pretrained", "create_model", "list_models", "freeze", "read_image"} <= set(
        listed.split()
    )
    for name in rin.__all__:
        assert getattr(rin, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'load'"):
        _ = rin.load


@pytest.mark.parametrize("module", ["network", "pretrained"])
def test_the_examples_of_the_docstrings_are_true(module):
    found = doctest.testmod(importlib.import_module(f"radimagenet_jax.{module}"))
    assert found.attempted >= 3
    assert found.failed == 0


@pytest.mark.parametrize("name", rin.list_models())
def test_a_map_is_grad_cam_up_to_scale_for_every_network(name):
    net = rin.create_model(name, class_names=NAMES)
    x = net.preprocess(np.random.default_rng(1).integers(0, 256, (2, 80, 80, 3), np.uint8))
    out = net.features(x)["spatial"]
    head = net.variables["params"]["head"]

    def logit(spatial):
        return (spatial.mean((1, 2)) @ head["kernel"] + head["bias"])[:, 1].sum()

    slopes = jax.grad(logit)(out).mean((1, 2), keepdims=True)
    expected = (slopes * out).sum(-1) * out.shape[1] * out.shape[2]
    found = net.cam(x, of="malignant", size=0)
    np.testing.assert_allclose(found, expected, atol=1e-5 * float(jnp.abs(expected).max()))


def test_maps_add_up_to_the_logit_and_have_the_size_of_the_images(net, images):
    places = net.cam(images, of="benign", size=0)
    logits, _ = net.model.apply(net.variables, net.preprocess(images))
    bias = net.variables["params"]["head"]["bias"][0]
    np.testing.assert_allclose(places.mean((1, 2)) + bias, logits[:, 0], atol=1e-6)
    assert net.cam(images, of=0).shape == (3, 80, 80)
    assert net.cam(images, of=0, size=32).shape == (3, 32, 32)
    np.testing.assert_array_equal(net.cam(images), net.cam(images, of="malignant"))
    chosen = net.replace(usage=Usage(positive="benign"))
    np.testing.assert_array_equal(chosen.cam(images), net.cam(images, of="benign"))


def test_images_and_what_preprocess_makes_of_them_are_one_input(net, images):
    np.testing.assert_array_equal(net.scores(images), net.scores(net.preprocess(images)))


def test_paths_arrays_and_dicom_give_one_table(net, tmp_path):
    pixels = np.random.default_rng(5).integers(0, 256, (48, 48), np.uint8)
    path = tmp_path / "slice"
    path.write_bytes(dicom_file(pixels, "P1"))
    np.testing.assert_array_equal(rin.read_image(path)[..., 0], pixels)
    of_path, of_array = net.predict(path), net.predict(pixels[None, ..., None])
    np.testing.assert_array_equal(of_path.scores, of_array.scores)
    assert of_path.keys == (str(path),)
    mixed = net.predict([path, pixels, np.repeat(pixels[..., None], 3, -1)])
    np.testing.assert_allclose(mixed.scores, np.repeat(of_path.scores, 3, 0), atol=1e-6)
    columns = mixed.columns()
    assert list(columns) == ["key", "prediction", "score_benign", "score_malignant"]
    assert columns["prediction"] == mixed.prediction
    assert str(mixed).splitlines()[0].split() == list(columns)
    assert len(net.predict([])) == 0


def test_a_window_of_a_dicom_file_is_the_readers(tmp_path):
    stored = (np.arange(64 * 64, dtype=np.uint16).reshape(64, 64) % 2000) + 24
    path = tmp_path / "ct.dcm"
    path.write_bytes(dicom_file(stored, "P1", RescaleSlope=1, RescaleIntercept=-1024))
    seen = rin.read_image(path, window=(40, 80))[..., 0]
    assert (seen[stored <= 1024] == 0).all()
    assert (seen[stored >= 1104] == 255).all()


def test_old_weights_take_a_new_head(net, tmp_path):
    net.save(tmp_path / "mine")
    loaded = rin.load_pretrained(tmp_path / "mine", num_classes=3, seed=1)
    assert loaded.num_classes == 3
    assert loaded.class_names == ("0", "1", "2")
    assert loaded.image_size == 48
    jax.tree.map(
        np.testing.assert_array_equal,
        {name: leaf for name, leaf in loaded.variables["params"].items() if name != "head"},
        {name: leaf for name, leaf in net.variables["params"].items() if name != "head"},
    )
    named = rin.load_pretrained(tmp_path / "mine", class_names=("a", "b", "c"), seed=1)
    assert named.class_names == ("a", "b", "c")


def test_what_is_saved_comes_back_with_its_use_and_a_card(net, images, tmp_path):
    usage = Usage(image_size=48, positive="malignant", threshold=0.375)
    net.replace(usage=usage).save(tmp_path / "mine")
    assert sorted(path.name for path in (tmp_path / "mine").iterdir()) == [
        *("README.md", "contract.json", "model.safetensors", "usage.json"),
    ]
    back = rin.load_pretrained(tmp_path / "mine")
    assert back.usage == usage
    assert back.class_names == NAMES
    np.testing.assert_array_equal(back.scores(images), net.scores(images))
    card = (tmp_path / "mine" / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: radimagenet_jax\nlicense: other\n")
    for told in ("benign, malignant", "0.375", "Not a medical device", "may forbid passing"):
        assert told in card
    assert "made from the file with sha256" in card


def test_a_loop_of_ones_own_can_say_on_what_it_trained(net, tmp_path):
    net.save(tmp_path / "mine", trained_on="our nodules, 2026", terms="Not to be passed on.")
    back = rin.load_pretrained(tmp_path / "mine").contract
    assert back.origin == f"trained on our nodules, 2026, from {net.contract.origin}"
    assert back.licence == f"{net.contract.licence} Not to be passed on."
    assert rin.load_pretrained(tmp_path / "mine").contract.sha256 == net.contract.sha256
    card = (tmp_path / "mine" / "README.md").read_text()
    assert "trained on our nodules, 2026" in card
    assert "its first weights' sha256" in card
    net.save(tmp_path / "other", trained_on="\x1b]0;title\x07" + "x" * 5000)
    odd = rin.load_pretrained(tmp_path / "other").contract.origin
    assert odd.startswith(r"trained on \x1b]0;title")
    assert odd.isprintable()


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        (None, "damaged"),
        ({"dtype": ...}, "'dtype' is missing"),
        ({"image_size": 0}, "'image_size' is not from 1"),
        ({"positive": "cancer"}, "positive class 'cancer'"),
        ({"dtype": "float64"}, "'dtype' is none"),
        ({"windows": [[40, 80], [80, 200]]}, "neither none, one nor three"),
        ({"windows": [[40, 0]]}, "at least 1 wide"),
        ({"threshold": "high"}, "'threshold' is not a number"),
    ],
)
def test_a_damaged_use_is_refused(changed, told, net, tmp_path):
    net.save(tmp_path / "mine")
    path = tmp_path / "mine/usage.json"
    said = {**json.loads(path.read_text()), **(changed or {})}
    kept = {name: value for name, value in said.items() if value is not ...}
    path.write_text("{" if changed is None else json.dumps(kept))
    with pytest.raises(WeightsError, match=told) as refused:
        rin.load_pretrained(tmp_path / "mine")
    assert "usage.json" in str(refused.value)


@pytest.mark.parametrize(
    ("call", "kind", "told"),
    [
        (lambda net, x: net.cam(x, of="cancer"), ConfigError, "no class 'cancer'.*benign, mal"),
        (lambda net, x: net.cam(x, of=2), ConfigError, "no class 2"),
        (lambda net, x: net.cam(x.astype(np.int32)), DataError, "int32"),
        (lambda net, x: net.predict(x.astype(np.float32)), DataError, "image 0 is float32"),
        (lambda net, x: net.predict([x[0, ..., 0], "none.png"]), DataError, "none.png cannot"),
        (lambda net, x: net.named("a"), ConfigError, "1 names"),
        (lambda net, x: rin.create_model("resnet50").predict(x), ConfigError, "has no head"),
        (lambda net, x: rin.create_model("resnet50").cam(x), ConfigError, "has no head"),
        (lambda net, x: rin.create_model("resnet18"), ConfigError, "resnet18.*resnet50"),
        (lambda net, x: rin.create_model("resnet50", depth=3), ConfigError, "depth"),
        (lambda net, x: rin.create_model("resnet50", num_classes=0), ConfigError, "at least 1"),
        (lambda net, x: rin.create_model("resnet50", class_names="ab"), ConfigError, "a list"),
        (
            lambda net, x: rin.create_model("resnet50", num_classes=3, class_names=NAMES),
            ConfigError,
            "2 class_names",
        ),
        (lambda net, x: rin.freeze({"params": {}}, "freezeall"), ConfigError, "no network"),
        (lambda net, x: rin.freeze(net, "everything"), ConfigError, "everything"),
    ],
)
def test_what_cannot_be_is_one_sentence(call, kind, told, net, images):
    with pytest.raises(kind, match=told) as refused:
        call(net, images)
    assert "\n" not in str(refused.value)


def test_a_head_without_names_is_not_saved(tmp_path):
    with pytest.raises(ConfigError, match="have no names"):
        rin.create_model("resnet50", num_classes=2).save(tmp_path / "mine")
    assert not (tmp_path / "mine").exists()


def test_the_specification_of_variables_is_that_of_their_network(net):
    for name in models.names():
        made = rin.create_model(name, num_classes=2)
        frozen = rin.freeze(made.variables, "unfreezetop10")
        assert frozen.trainable == rin.freeze(made, "unfreezetop10").trainable
        assert "head/kernel" in frozen.trainable


def test_the_loop_of_the_readme_trains_saves_and_predicts(tmp_path, monkeypatch, capsys):
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    loop = next(block for block in blocks if "optax" in block)
    assert len([line for line in loop.splitlines() if line.strip()]) <= 35
    monkeypatch.chdir(tmp_path)
    exec(compile(loop, str(README), "exec"), {})
    assert (tmp_path / "mine" / "model.safetensors").is_file()
    assert "prediction" in capsys.readouterr().out
