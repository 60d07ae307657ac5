"""A finished run can be taken elsewhere: its best network in our form, or for Keras."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import base
from radimagenet_jax import convert, load_pretrained
from radimagenet_jax.errors import CheckpointError, WeightsError
from radimagenet_jax.training import config as config_pages
from radimagenet_jax.training import network
from radimagenet_jax.training.checkpoints import Checkpoints
from radimagenet_jax.training.state import TrainState
from radimagenet_jax.weights import reading
from radimagenet_jax.weights.contract import Contract

LABELS = ("benign", "malignant")
CONTRACT = Contract(
    "resnet50", "v1", "caffe_div255", "BGR", "a run", "mine", "0" * 64, labels=LABELS
)


def make_run(folder, *, checkpoint=True, **options):
    """What a run leaves, without the training."""
    config = base.get_config()
    config.model = "resnet50"
    config.dropout = 0.5
    config.image_size = 32
    for name, value in options.items():
        setattr(config.model_options, name, value)
    folder.mkdir()
    (folder / "config.json").write_text(config_pages.to_json(config))
    scratch = network.from_scratch(config, LABELS).scratch(3)
    variables = jax.tree.map(jax.device_put, scratch)
    if checkpoint:
        saved = Checkpoints(folder)
        saved.save(
            TrainState(jnp.int32(8), opt_state=(), **variables), {"contract": CONTRACT.to_json()}, 8
        )
        saved.close()
    return variables


def test_a_run_becomes_a_converted_folder_with_its_head_and_classes(tmp_path):
    variables = make_run(tmp_path / "run")
    output = tmp_path / "taken"
    assert convert.main([f"--weights={tmp_path / 'run'}", f"--output={output}"]) == 0
    taken = load_pretrained(output)
    assert taken.contract == CONTRACT
    for one, other in zip(
        jax.tree.leaves(taken.variables), jax.tree.leaves(variables), strict=True
    ):
        np.testing.assert_array_equal(one, other)


def test_a_run_of_a_smaller_network_is_refused_and_leaves_nothing(tmp_path):
    make_run(tmp_path / "run", stage_sizes=(1, 1, 1, 1), width=8)
    for form in ("native", "keras_h5"):
        output = tmp_path / "taken.h5"
        with pytest.raises(WeightsError, match="made smaller"):
            convert.main([f"--weights={tmp_path / 'run'}", f"--to={form}", f"--output={output}"])
        assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]


def test_a_run_without_a_checkpoint_is_refused(tmp_path):
    make_run(tmp_path / "run", checkpoint=False)
    with pytest.raises(CheckpointError, match="no checkpoint of a whole epoch"):
        reading.read(tmp_path / "run")


def test_a_request_that_contradicts_the_run_is_refused(tmp_path):
    make_run(tmp_path / "run", stage_sizes=(1, 1, 1, 1), width=8)
    for flag, told in (
        ("--arch=resnet50:v1.5", "computes other features"),
        ("--arch=densenet121", "not of densenet121"),
        ("--preprocessing=torch", "not 'torch'"),
    ):
        with pytest.raises(WeightsError, match=told):
            convert.main([f"--weights={tmp_path / 'run'}", f"--output={tmp_path / 'x'}", flag])
