"""Laws of a run's network: its weights get the input that they were trained on."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from radimagenet_jax import models
from radimagenet_jax.models import preprocess
from radimagenet_jax.network import Network
from radimagenet_jax.training import config as config_pages
from radimagenet_jax.training import initialise, network, step
from radimagenet_jax.weights import loaded
from radimagenet_jax.weights.contract import Contract

BASE = Path(__file__).resolve().parents[2] / "configs" / "quickstart.py"
CONTRACT = Contract("resnet50", "v1", "tf", "BGR", "a test", "none", "0" * 64)


@pytest.mark.parametrize(("asked", "order"), [("native", "BGR"), ("torch", "RGB")])
def test_colour_reaches_the_weights_in_their_own_order(monkeypatch, asked, order):
    config = config_pages.load(
        f"{BASE}",
        [
            f"--config.preprocessing={asked}",
            "--config.init=file.pt",
            "--config.allow_preprocessing_mismatch=True",
        ],
    )
    model = models.create("resnet50", **config.model_options)
    variables = initialise.scratch(model, 32, 0, "zeros")
    report = loaded.Report("file.pt", "a test", "ResNet50 v1", 0, 0, (), ())
    pretrained = Network(model, variables, CONTRACT, report)
    monkeypatch.setattr(network.reading, "read", lambda *a, **k: pretrained)
    start = network.build(config, ("normal", "lesion"))
    fresh, contract = start.variables, start.contract
    assert contract.channel_order == order
    images = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    examples = step.Examples(images, np.zeros(2, np.int32), np.zeros(2, np.uint32))
    evaluate = start.program.eval_step
    logits = evaluate(fresh["params"], fresh["batch_stats"], examples, np.arange(2))
    same = replace(CONTRACT, preprocessing=contract.preprocessing, channel_order=order)
    inputs = Network(model, variables, same, report).preprocess(images)
    expected, _ = start.program.model.apply(fresh, inputs)
    np.testing.assert_allclose(logits, expected, atol=1e-6)
    turned, _ = start.program.model.apply(fresh, inputs[..., ::-1])
    assert np.abs(np.asarray(turned) - np.asarray(logits)).max() > 1e-4
    assert preprocess.SCHEMES["tf"].channel_order == "RGB"
