"""A network of one's own, in one file: everything that the published ones do works with it."""

import re
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
import pytest
from flax import linen as nn
from ml_collections import ConfigDict

from configs import study_base
from radimagenet_jax import create_model, load_pretrained, models, train
from radimagenet_jax.errors import ConfigError
from radimagenet_jax.models.layers import Layers, block_output, relu
from radimagenet_jax.studies import alone, plan, shared
from radimagenet_jax.studies.images import gather
from radimagenet_jax.training import config as config_pages
from radimagenet_jax.training import network
from radimagenet_jax.weights.fingerprint import fingerprint
from tests.conftest import PROJECT
from tests.studies.conftest import dataset

PAGE = str(PROJECT / "configs" / "quickstart.py:smoke")


class Block(nn.Module):
    """Two convolutions and the input."""

    features: int

    @nn.compact
    def __call__(self, x: jax.Array, layers: Layers) -> jax.Array:
        y = relu(layers.conv_norm(x, ("conv1", "bn1"), self.features, 3, padding="SAME"))
        y = layers.conv_norm(y, ("conv2", "bn2"), self.features, 3, padding="SAME")
        return block_output(relu(x + y))


class TinyResNet(models.Network):
    """A stem, a residual block, a last convolution: four convolutions in all."""

    min_image_size = 16

    width: int = 8

    def blocks(self, x: jax.Array, layers: Layers) -> dict[str, jax.Array]:
        out = {}
        stem = layers.conv_norm(x, ("stem_conv", "stem_bn"), self.width, 3, stride=2)
        y = out["stem"] = relu(stem)
        # Named so that the alphabet would put it before the stem.
        y = out["a_block"] = Block(self.width, name="a_block")(y, layers)
        y = relu(layers.conv_norm(y, ("last_conv", "last_bn"), 2 * self.width, 3, stride=2))
        return out | {"spatial": y}


ORDER = (
    *("stem_conv", "stem_bn", "a_block/conv1", "a_block/bn1", "a_block/conv2", "a_block/bn2"),
    *("last_conv", "last_bn"),
)


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    models.register(models.Architecture("tiny_resnet", TinyResNet))
    yield
    models._architectures().pop("tiny_resnet")


def config_of(structure: str = "unfreezeall", **fields: object) -> ConfigDict:
    config = config_pages.load(PAGE, ["--config.model=tiny_resnet"])
    config.model_options = ConfigDict()
    config.structure = structure
    for name, value in fields.items():
        config[name] = value
    config_pages.validate(config)
    return config


def learning(structure: str) -> tuple[set[str], str]:
    freeze = network.from_scratch(config_of(structure), ("no", "yes")).freeze
    return {name.rpartition("/")[0] for name in freeze.trainable} - {"head"}, freeze.first_trainable


@pytest.mark.parametrize("count", range(len(ORDER) + 1))
def test_top_counts_its_layers_from_the_end_as_it_makes_them(count):
    last = ORDER[len(ORDER) - count :]
    assert learning(f"top={count}") == (set(last), last[0] if last else "head")


def test_expressions_name_its_layers_and_the_table_is_in_its_order():
    assert learning("layers=a_block/.*") == (set(ORDER[2:6]), "a_block/conv1")
    program = network.from_scratch(config_of("layers=last_.*"), ("no", "yes"))
    blocks = [row.block for row in program.freeze.rows]
    assert blocks == ["stem_conv", "stem_bn", "a_block", "last_conv", "last_bn", "head"]
    with pytest.raises(ConfigError, match="has 8 layers"):
        learning("top=9")


def test_it_is_trained_exported_reloaded_and_fine_tuned(tmp_path):
    config = config_of(export_weights=True)
    config.dataset.data_dir = str(tmp_path / "data")
    assert train.train(config, str(tmp_path / "run"), ["train"]) == 0
    run, exported = (load_pretrained(tmp_path / name) for name in ("run", "run/weights"))
    assert run.contract.labels == exported.contract.labels == ("normal", "lesion")
    assert fingerprint(run.variables, run.contract) == fingerprint(
        exported.variables, exported.contract
    )
    images = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 1), dtype=np.uint8)
    features = exported.features(exported.preprocess(images))["pooled"]
    np.testing.assert_array_equal(run.features(run.preprocess(images))["pooled"], features)
    assert features.shape == (3, 16)
    again = config_of("top=2", init=str(tmp_path / "run" / "weights"))
    again.dataset.data_dir = config.dataset.data_dir
    assert train.train(again, str(tmp_path / "tuned"), ["train"]) == 0
    before, after = run.variables["params"], load_pretrained(tmp_path / "tuned").variables["params"]
    for layer in ("stem_conv", "last_conv"):
        moved = np.abs(before[layer]["kernel"] - after[layer]["kernel"]).max()
        assert (moved > 0) == (layer == "last_conv")


def test_the_example_of_the_page_is_a_network():
    page = (PROJECT / "radimagenet_jax/models/README.md").read_text()
    example = re.findall(r"```python\n(.*?)```", page, re.DOTALL)[-1]
    names: dict[str, Any] = {"__name__": "example"}
    exec(example, names)
    models.register(names["ARCHITECTURE"])
    try:
        net = create_model("tiny", class_names=("no", "yes"), width=4)
        scores = net.scores(np.zeros((3, 32, 32, 1), np.uint8))
    finally:
        models._architectures().pop("tiny")
    assert scores.shape == (3, 2)


def test_a_class_that_is_defined_anew_takes_the_place_of_the_one_before():
    class Other(TinyResNet):
        pass

    before = models.architecture("tiny_resnet")
    with pytest.raises(ValueError, match="another network 'tiny_resnet'"):
        models.register(models.Architecture("tiny_resnet", Other))
    assert models.architecture("tiny_resnet") is before
    anew = type("TinyResNet", (TinyResNet,), {"__qualname__": "TinyResNet"})
    models.register(models.Architecture("tiny_resnet", anew))
    assert models.architecture("tiny_resnet").build is anew


def test_it_is_studied_on_a_shared_trunk():
    config = study_base.get_config("breast")
    config.image_size, config.batch_size, config.epochs = 32, 8, 2
    config.study.models = ("tiny_resnet",)
    config.study.settings = (("top=4", 1e-3), ("freezeall", 1e-2))
    plan.validate(config)
    images = gather((1, 2), lambda fold: dataset(fold, 32))
    config.study.folds = (1, 2)
    groups = plan.groups(config)
    assert len(groups) == 2
    for group in groups:
        courses, figures = shared.train(config, group.runs, images, 1, lambda epoch: None)
        assert figures["trunk_images"]
        theirs, _ = alone.train(config, group.runs[0], images, 1, lambda epoch: None)
        np.testing.assert_allclose(
            courses[0].scored["test"].scores, theirs.scored["test"].scores, atol=1e-4
        )
