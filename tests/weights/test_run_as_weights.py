"""A run is a weight file: load_pretrained takes it with its head, and config.init fine-tunes it."""

import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from configs import base
from radimagenet_jax import load_pretrained
from radimagenet_jax.errors import CheckpointError, ConfigError, WeightsError
from radimagenet_jax.training import config as config_pages
from radimagenet_jax.training import network
from radimagenet_jax.training.checkpoints import Checkpoints
from radimagenet_jax.training.state import TrainState
from radimagenet_jax.weights import reading
from radimagenet_jax.weights.contract import Contract
from tfds_builders.radimagenet.radimagenet_dataset_builder import class_names

CONTRACT = Contract(
    "resnet50", "v1", "caffe_div255", "BGR", "pretraining", "", "0" * 64, labels=class_names()
)
SMALL = {"stage_sizes": (1, 1, 1, 1), "width": 8}


def config_of(**options):
    config = base.get_config()
    config.image_size = 32
    for name, value in options.items():
        setattr(config.model_options, name, value)
    return config


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """What pretraining leaves, without the training: the folder and the variables."""
    folder = tmp_path_factory.mktemp("pretrained") / "run"
    folder.mkdir()
    config = config_of(**SMALL)
    config.dtype = "bfloat16"
    (folder / "config.json").write_text(config_pages.to_json(config))
    scratch = network.from_scratch(config, class_names()).scratch(3)
    variables = jax.tree.map(jax.device_put, scratch)
    saved = Checkpoints(folder)
    saved.save(
        TrainState(jnp.int32(8), opt_state=(), **variables), {"contract": CONTRACT.to_json()}, 8
    )
    saved.close()
    return folder, variables


def test_load_pretrained_gives_a_runs_network_with_its_head_and_class_names(run):
    folder, variables = run
    loaded = load_pretrained(folder)
    assert loaded.contract == CONTRACT
    assert loaded.contract.labels[0] == "CT-abd-abnormal_entire_organ"
    jax.tree.map(np.testing.assert_array_equal, loaded.variables, variables)
    images = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 1), dtype=np.uint8)
    x = loaded.preprocess(images)
    assert loaded.features(x)["pooled"].shape == (2, 256)
    logits, _ = loaded.model.apply(loaded.variables, x)
    assert logits.shape == (2, 165)


def test_a_run_tells_its_config_and_how_its_network_differs(run):
    weights = reading.read(run[0])
    assert weights.config["dtype"] == "bfloat16"
    assert weights.options == {"stage_sizes": (1, 1, 1, 1), "width": 8}
    assert weights.network().variant == "v1"
    assert reading.read(run[0], architecture="resnet50:v1").contract == CONTRACT


def test_reading_a_run_leaves_alone_what_it_writes_at_the_moment(run):
    saving = run[0] / "checkpoints" / "7.orbax-checkpoint-tmp-123"
    (saving / "network").mkdir(parents=True)
    (saving / "network" / "half").write_bytes(b"half")
    before = sorted((path, path.stat().st_mtime_ns) for path in run[0].rglob("*"))
    reading.read(run[0])
    assert sorted((path, path.stat().st_mtime_ns) for path in run[0].rglob("*")) == before


def test_a_damaged_checkpoint_is_told_by_its_step(run, tmp_path):
    folder = shutil.copytree(run[0], tmp_path / "run")
    for file in (folder / "checkpoints" / "8" / "network").rglob("*"):
        if file.is_file():
            file.write_bytes(file.read_bytes()[:20])
    with pytest.raises(CheckpointError, match=r"cannot restore step 8 .* damaged"):
        reading.read(folder)
    (folder / "config.json").write_text("{")
    with pytest.raises(ConfigError, match="cannot be read"):
        reading.read(folder)


def test_numbers_that_no_trained_network_has_are_refused_in_a_run_too(tmp_path):
    (tmp_path / "config.json").write_text(config_pages.to_json(config_of(**SMALL)))
    scratch = network.from_scratch(config_of(**SMALL), class_names()).scratch(3)
    variables = jax.tree.map(jax.device_put, scratch)
    variables["batch_stats"]["stem"]["bn"]["var"] *= -1
    saved = Checkpoints(tmp_path)
    saved.save(
        TrainState(jnp.int32(8), opt_state=(), **variables), {"contract": CONTRACT.to_json()}, 8
    )
    saved.close()
    with pytest.raises(WeightsError, match="batch_stats/stem/bn/var has 8 negative variances"):
        reading.read(tmp_path)


def test_a_run_that_is_asked_for_as_another_network_is_refused(run):
    with pytest.raises(WeightsError, match="not of densenet121"):
        load_pretrained(run[0], architecture="densenet121")
    with pytest.raises(WeightsError, match="not 'torch'"):
        load_pretrained(run[0], preprocessing="torch")


def test_config_init_takes_a_run_and_gives_it_a_new_head(run):
    folder, variables = run
    config = config_of(**SMALL)
    config.init = str(folder)
    start = network.build(config, ("benign", "malignant"))
    built, contract = start.variables, start.contract
    assert contract.labels == ("benign", "malignant")
    assert (contract.origin, contract.preprocessing) == ("pretraining", "caffe_div255")
    ours = traverse_util.flatten_dict(variables, sep="/")
    for name, leaf in traverse_util.flatten_dict(built, sep="/").items():
        if "/head/" in name:
            assert leaf.shape[-1] == 2
        else:
            np.testing.assert_array_equal(leaf, ours[name], name)


def test_a_run_of_a_smaller_network_does_not_start_a_whole_one(run):
    config = config_of()
    config.init = str(run[0])
    with pytest.raises(WeightsError, match=r"does not fit the network .* config\.model_options"):
        network.build(config, ("benign", "malignant"))


def test_an_exported_network_is_a_weight_folder_with_its_head(tmp_path):
    config = config_of()
    variables = network.from_scratch(config, class_names()).scratch(3)
    network.export(tmp_path / "weights", variables, CONTRACT)
    network.export(tmp_path / "weights", variables, CONTRACT)  # as a resumed run does
    config.init = str(tmp_path / "weights")
    built = network.build(config, ("benign", "malignant")).variables
    assert load_pretrained(config.init).contract.labels == class_names()
    kernel = built["params"]["stage1_block1"]["conv1"]["kernel"]
    np.testing.assert_array_equal(kernel, variables["params"]["stage1_block1"]["conv1"]["kernel"])
    assert built["params"]["head"]["kernel"].shape == (2048, 2)


def test_what_was_trained_says_on_what_and_from_what():
    once = CONTRACT.after_training("busi/fold1", "CC BY 4.0.")
    assert once.origin == "trained on busi/fold1, from pretraining"
    assert once.licence == f"{CONTRACT.licence} CC BY 4.0."
    assert once.after_training("busi/fold1", "CC BY 4.0.").licence == once.licence
    assert once.sha256 == CONTRACT.sha256
    for _ in range(200):  # a chain of any length has a contract that can be read
        once = once.after_training("busi/fold1", "Only here." + "!" * 50)
    assert once.origin.startswith("trained on busi/fold1, from trained on")
    assert Contract.from_json(once.to_json()) == once
