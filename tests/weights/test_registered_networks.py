"""A network of one's own, which neither Keras nor PyTorch has, is written and read all the same."""

from collections.abc import Iterator
from typing import Any, ClassVar

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file

from radimagenet_jax import load_pretrained, models
from radimagenet_jax.errors import WeightsError
from radimagenet_jax.training import initialise
from radimagenet_jax.weights import keras_export, native, reading
from radimagenet_jax.weights.contract import Contract

CONTRACT = Contract("twig", "wide", "torch", "RGB", "a test", "mine", "0" * 64, labels=("a", "b"))


class Twig(models.Network):
    """One convolution."""

    epsilons: ClassVar[dict[str, float]] = {"slim": 1e-3, "wide": 1e-5}
    min_image_size = 8
    variant: str = "slim"

    def blocks(self, x: jax.Array, layers: Any) -> dict[str, jax.Array]:
        channels = {"slim": 4, "wide": 6}[self.variant]
        return {"spatial": layers.conv_norm(x, ("conv", "bn"), channels, 3, stride=2)}


@pytest.fixture
def twig() -> Iterator[models.Network]:
    models.register(models.Architecture("twig", Twig))
    yield models.create("twig", variant="wide", num_classes=2)
    del models._architectures()["twig"]


def test_a_registered_network_goes_through_our_own_form(twig, tmp_path):
    variables = initialise.scratch(twig, 32, 3, "glorot_uniform")
    native.write(tmp_path / "twig", variables, CONTRACT)
    for path in (tmp_path / "twig", tmp_path / "twig" / native.TENSORS):
        again = reading.read(path, architecture="twig:wide")
        assert again.contract == CONTRACT
        jax.tree.map(np.testing.assert_array_equal, again.variables, variables)
    x = np.zeros((1, 16, 16, 3), np.float32)
    assert load_pretrained(path).features(x)["pooled"].shape == (1, 6)
    with pytest.raises(WeightsError, match="computes other features"):
        reading.read(path, architecture="twig:slim")


def test_it_is_not_looked_for_among_files_of_keras_and_pytorch(
    twig, tmp_path, hollow_layers, write_keras_2, write_torch
):
    keras = write_keras_2(tmp_path / "model.h5", hollow_layers("densenet121"))
    assert reading.read(keras, preprocessing="tf").contract.architecture == "densenet121"
    with pytest.raises(WeightsError, match="Keras has no Twig; Keras files are read for densenet"):
        reading.read(keras, architecture="twig")
    torch = write_torch(tmp_path / "model.pt", {"conv.weight": np.zeros((4, 3, 3, 3), "f4")})
    with pytest.raises(WeightsError, match="Twig has no names in PyTorch; PyTorch files are read"):
        reading.read(torch, architecture="twig")
    with pytest.raises(WeightsError, match="another network than DenseNet121"):
        reading.read(torch)


def test_it_is_not_written_for_keras(twig, tmp_path):
    variables = initialise.scratch(twig, 32, 3, "zeros")
    with pytest.raises(WeightsError, match="Keras has no Twig"):
        keras_export.write(tmp_path / "twig.h5", variables, CONTRACT)


def test_a_process_that_does_not_know_it_says_so(tmp_path):
    path = tmp_path / "twig.safetensors"
    stated = {"radimagenet_jax_contract": CONTRACT.to_json()}
    save_file({"params/conv/kernel": np.zeros(3, "f4")}, path, metadata=stated)
    with pytest.raises(WeightsError, match="architecture 'twig', which this version"):
        reading.read(path)
