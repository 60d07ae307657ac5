"""What `load_pretrained` promises: the right input, any number of images, little memory."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from radimagenet_jax import load_pretrained, predict
from radimagenet_jax import pretrained as pretrained_module
from radimagenet_jax.errors import ConfigError, DataError, WeightsError
from radimagenet_jax.models import ResNet50
from radimagenet_jax.models.preprocess import normalize
from radimagenet_jax.training import initialise
from radimagenet_jax.weights import origins
from radimagenet_jax.weights.opened import Opened


@pytest.fixture(scope="module")
def pretrained(released):
    return load_pretrained(released)


@pytest.fixture(scope="module")
def small(pretrained):
    """The same promises with a network that computes in no time."""
    model = ResNet50(stage_sizes=(1, 1, 1, 1), width=4)
    variables = initialise.scratch(model, 32, 0, "zeros")
    return replace(pretrained, model=model, variables=variables)


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(1).integers(0, 256, (3, 40, 48, 3), np.uint8)


def test_a_released_file_has_the_published_input(pretrained, images):
    assert pretrained.contract.preprocessing == "caffe_div255"
    assert pretrained.contract.channel_order == "BGR"
    assert pretrained.contract.labels is None
    expected = (images[..., ::-1] - np.array([103.939, 116.779, 123.68])) / 255
    np.testing.assert_allclose(pretrained.preprocess(images), expected, atol=1e-6)


def test_grey_and_its_three_equal_channels_are_the_same_input(pretrained, images):
    grey = images[..., :1]
    np.testing.assert_array_equal(
        pretrained.preprocess(grey), pretrained.preprocess(np.repeat(grey, 3, axis=-1))
    )


def test_a_preprocessing_that_the_user_states_goes_into_the_contract(released, images):
    stated = load_pretrained(released, preprocessing="torch")
    assert stated.contract.preprocessing == "torch"
    assert stated.contract.channel_order == "RGB"
    np.testing.assert_array_equal(
        stated.preprocess(images), normalize(jnp.asarray(images), "torch")
    )


def test_the_contracts_channel_order_decides(released, images):
    pretrained = load_pretrained(released, preprocessing="tf")
    flipped = replace(pretrained, contract=replace(pretrained.contract, channel_order="BGR"))
    np.testing.assert_array_equal(
        flipped.preprocess(images), pretrained.preprocess(images)[..., ::-1]
    )


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda x: x / np.float32(255), "multiply by 255"),
        (lambda x: x.astype(np.float32), "astype"),
        (lambda x: x.astype(np.uint16) * 16, "8 bits"),
        (lambda x: x[0], "batch axis"),
        (lambda x: x[..., :2], "1 or 3"),
        (lambda x: x[:0], "no pixels"),
        (list, "list"),
    ],
)
def test_images_of_another_kind_are_refused_with_the_remedy(spoil, told, pretrained, images):
    with pytest.raises(DataError, match=told):
        pretrained.preprocess(spoil(images))


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda x: x.astype(np.int32), "preprocess first"),
        (lambda x: x[0], r"\(N, H, W, 3\)"),
        (lambda x: x[..., :1], r"\(N, H, W, 3\)"),
        (lambda x: x[:, :20], "at least 32 pixels"),
        (list, "list"),
    ],
)
def test_input_of_another_kind_is_refused(spoil, told, pretrained):
    with pytest.raises(DataError, match=told):
        pretrained.features(spoil(np.zeros((2, 32, 32, 3), np.float32)))


def test_input_that_was_not_preprocessed_is_warned_of(small, images):
    with pytest.warns(UserWarning, match="was it preprocessed"):
        small.features(images.astype(np.float32))


def test_features_do_not_depend_on_how_many_images_come_together(small):
    x = np.random.default_rng(2).normal(0, 0.3, (70, 32, 32, 3)).astype(np.float32)
    whole = small.features(x)
    assert whole["spatial"].shape == (70, 1, 1, 128)
    assert whole["pooled"].shape == (70, 128)
    scale = float(jnp.abs(whole["pooled"]).max())
    for rows in (slice(0, 1), slice(60, 70), slice(30, 63)):
        part = small.features(x[rows])
        np.testing.assert_allclose(part["pooled"], whole["pooled"][rows], atol=1e-5 * scale)


def test_variables_are_plain_float32_arrays_on_the_device(pretrained):
    assert set(pretrained.variables) == {"params", "batch_stats"}
    for leaf in jax.tree.leaves(pretrained.variables):
        assert isinstance(leaf, jax.Array)
        assert leaf.dtype == np.float32


# Measured in a process of its own: what a user's session needs beyond importing the
# package. The time is that of `python -m tests.benchmarks.load_weights`.
_MEASURE = """
import resource, sys
import jax
from radimagenet_jax.pretrained import load_pretrained
jax.devices()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
jax.block_until_ready(load_pretrained(sys.argv[1]).variables)
print(1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before))
"""


def test_loading_needs_little_memory(released):
    done = subprocess.run(
        [sys.executable, "-c", _MEASURE, str(released)], capture_output=True, text=True, check=True
    )
    assert float(done.stdout) < 2 * released.stat().st_size


def keras_origin(name="weights.h5", *, version="2.4.0", whole_model=True, whole=True, **sums):
    opened = Opened(Path(name), "", {}, keras_version=version, whole_model=whole_model)
    sums = {"md5": "0" * 32, "sha256": "0" * 64, **sums}
    return origins.of_keras("resnet50", opened, whole=whole, **sums)


def test_a_file_with_radimagenets_name_and_form_is_taken_for_it():
    origin = keras_origin("RadImageNet-ResNet50_notop (1).h5")
    assert (origin.preprocessing, origin.channel_order) == ("caffe_div255", "BGR")
    assert origin.evidence


@pytest.mark.parametrize(
    "file",
    [
        {"name": "weights.h5"},
        {"name": "resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5", "whole_model": False},
        {"name": "RadImageNet-ResNet50_notop.h5", "whole": False},
        {"name": "RadImageNet-ResNet50_notop.h5", "whole_model": False},
        {"name": "RadImageNet-ResNet50_notop.h5", "version": "3.15.1"},
        {"name": "RadImageNet-DenseNet121_notop.h5"},
        {"name": "model.weights.h5", "version": "", "whole_model": False},
    ],
)
def test_no_origin_is_claimed_without_evidence(file):
    origin = keras_origin(**file)
    assert (origin.preprocessing, origin.evidence) == ("", "")
    assert "RadImageNet" not in origin.title + origin.licence
    assert "ImageNet" not in origin.title + origin.licence


@pytest.mark.parametrize(
    "md5", ["4d473c1dd8becc155b73f8504c6f6626", "2cb95161c43110f7111970584f804107"]
)
def test_a_known_checksum_settles_the_origin_whatever_the_name(md5):
    """Of Keras' own files without and with their top, and of RadImageNet's."""
    imagenet = keras_origin("RadImageNet-ResNet50_notop.h5", md5=md5)
    assert (imagenet.preprocessing, imagenet.evidence) == ("caffe", "")
    radimagenet = keras_origin(
        "resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5",
        sha256="1f1d1c9fe6ab6980daa5e528145fe0db249c55415f8b3e1f3e3b1624d184f159",
    )
    assert (radimagenet.preprocessing, radimagenet.evidence) == ("caffe_div255", "")


def test_the_package_itself_imports_without_jax():
    code = "import sys, radimagenet_jax; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_preprocessing_that_does_not_exist_is_refused(released):
    with pytest.raises(WeightsError, match="no preprocessing 'vgg'"):
        load_pretrained(released, preprocessing="vgg")


@pytest.mark.parametrize("scheme", [None, "torch"])
def test_predict_gives_the_features_of_the_input_it_is_told(
    scheme, released, tmp_path, small, monkeypatch
):
    loaded = []

    def load_small(path, **options):
        contract = load_pretrained(path, **options).contract
        loaded.append(replace(small, contract=contract))
        return loaded[-1]

    monkeypatch.setattr(pretrained_module, "load_pretrained", load_small)
    pixels = np.random.default_rng(3).integers(0, 256, (2, 32, 32, 3), np.uint8)
    for name, image in zip("ab", pixels, strict=True):
        cv2.imwrite(str(tmp_path / f"{name}.png"), image[..., ::-1])
    flags = [f"--weights={released}", f"--inputs={tmp_path}", f"--output={tmp_path}"]
    told = [] if scheme is None else [f"--preprocessing={scheme}"]
    assert predict.main([*flags, "--features", "--image_size=32", *told]) == 0
    (network,) = loaded
    assert network.contract.preprocessing == (scheme or "caffe_div255")
    expected = network.features(network.preprocess(pixels))["pooled"]
    with np.load(tmp_path / "features.npz", allow_pickle=False) as file:
        assert file["keys"].tolist() == ["a.png", "b.png"]
        np.testing.assert_allclose(file["pooled"], expected, rtol=1e-4, atol=1e-6)


def test_a_run_has_its_own_preprocessing(tmp_path):
    flags = ["--workdir=run", f"--inputs={tmp_path}", f"--output={tmp_path}"]
    with pytest.raises(ConfigError, match="leave it out"):
        predict.main([*flags, "--preprocessing=torch"])
