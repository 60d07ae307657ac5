"""The command: from a run or a file to one file, or to one sentence."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import base
from radimagenet_jax import export
from radimagenet_jax.errors import ConfigError
from radimagenet_jax.training import config as config_pages
from radimagenet_jax.training import network
from radimagenet_jax.training.checkpoints import Checkpoints
from radimagenet_jax.training.state import TrainState
from radimagenet_jax.weights import native, reading
from radimagenet_jax.weights.contract import Contract

SMALL = {"stage_sizes": (1, 1, 1, 1), "width": 8}

CONTRACT = Contract(
    "resnet50", "v1", "caffe_div255", "BGR", "a run", "mine", "0" * 64, labels=("no", "yes")
)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """What a finished run of 40 pixels leaves, without the training."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    folder.mkdir()
    config = base.get_config()
    config.image_size = 40
    config.dtype = "bfloat16"
    config.model_options.update(SMALL)
    (folder / "config.json").write_text(config_pages.to_json(config))
    scratch = network.from_scratch(config, CONTRACT.labels).scratch(3)
    saved = Checkpoints(folder)
    saved.save(
        TrainState(jnp.int32(8), opt_state=(), **jax.tree.map(jax.device_put, scratch)),
        {"contract": CONTRACT.to_json()},
        8,
    )
    saved.close()
    (folder / "result.json").write_text("{}")
    return folder


def test_a_finished_run_becomes_a_file_of_its_image_size(run, tmp_path, capsys):
    output = tmp_path / "new folder" / "network.hlo"
    assert export.main([f"--workdir={run}", "--to=stablehlo", f"--output={output}"]) == 0
    exported = jax.export.deserialize(bytearray(output.read_bytes()))
    assert exported.in_avals[0].shape[1:] == (40, 40, 3)
    found = exported.call(np.zeros((1, 40, 40, 3), np.uint8))
    assert found["probabilities"].shape == (1, 2)
    # In float32, which every runtime has, though the run was trained in bfloat16.
    weights = reading.read(run)
    x = weights.contract.input.of(jnp.zeros((1, 40, 40, 3), jnp.uint8))
    pooled = weights.network().apply(weights.variables, x)[1]["pooled"]
    np.testing.assert_allclose(found["features"], pooled, rtol=1e-4, atol=1e-6)
    said = capsys.readouterr().err
    assert f"written to {output}" in said
    assert "on 10 images it differs from the network by" in said


def test_an_unfinished_run_is_named(run, tmp_path):
    result = run / "result.json"
    result.rename(run / "elsewhere.json")
    try:
        with pytest.raises(ConfigError, match=r"is not finished: it has no result\.json"):
            export.main([f"--workdir={run}", "--to=stablehlo", f"--output={tmp_path / 'x'}"])
    finally:
        (run / "elsewhere.json").rename(result)
    assert list(tmp_path.iterdir()) == []


def test_a_file_without_a_head_says_that_features_are_exported(make_source, tmp_path, capsys):
    source = make_source("tiny_to_export", 32, labels=None)
    native.write(tmp_path / "mine", source.variables, source.contract)
    output = tmp_path / "features.hlo"
    export.main(
        [
            f"--weights={tmp_path / 'mine'}",
            "--to=stablehlo",
            f"--output={output}",
            "--image_size=32",
        ]
    )
    assert "only features are exported: it has no head" in capsys.readouterr().err
    exported = jax.export.deserialize(bytearray(output.read_bytes()))
    assert list(exported.call(np.zeros((1, 32, 32, 3), np.uint8))) == ["features"]


def test_wrong_flags_are_told_in_one_sentence(run, tmp_path):
    there = tmp_path / "there.onnx"
    there.write_text("mine")
    for arguments, sentence in (
        ([f"--workdir={run}", f"--output={there}"], "exists already"),
        ([f"--workdir={tmp_path}", f"--output={tmp_path / 'x'}"], "holds no run"),
        ([f"--workdir={run}", "--preprocessing=tf", f"--output={tmp_path / 'x'}"], "leave it out"),
        ([f"--workdir={run}", f"--output={there / 'x'}"], "is a file"),
        ([f"--workdir={run}", f"--output={tmp_path / 'x'}", "--image_size=16"], "takes from 32 to"),
        ([f"--workdir={run}", f"--output={tmp_path / 'x'}", "--image_size=0"], "takes from 32 to"),
    ):
        with pytest.raises(ConfigError, match=sentence):
            export.main([*arguments, "--to=stablehlo"])
    assert [path.name for path in tmp_path.iterdir()] == ["there.onnx"]
    assert json.loads((run / "result.json").read_text()) == {}


def test_the_help_fits_80_columns(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit):
        export.main(["--help"])
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 80
