"""Laws of exporting: other programs compute what the network does, and know what it is."""

import dataclasses
import importlib
import json
import subprocess
import sys
import zipfile

import numpy as np
import pytest

from radimagenet_jax import load_pretrained
from radimagenet_jax.errors import ExportError, WeightsError
from radimagenet_jax.exports import keras as keras_form
from radimagenet_jax.exports import pictures, stablehlo
from radimagenet_jax.models.preprocess import SCHEMES
from radimagenet_jax.weights.card import NOT_A_DEVICE
from radimagenet_jax.weights.contract import Contract
from radimagenet_jax.weights.usage import Usage
from tests.exports.conftest import LABELS, assert_agree, telling_apart

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

SUFFIXES = {"onnx": ".onnx", "stablehlo": ".hlo", "keras": ".keras"}


# Keras builds and compiles a published network for half a minute.
@pytest.fixture(params=["onnx", "stablehlo", pytest.param("keras", marks=pytest.mark.slow)])
def form(request):
    """A form, if what it takes is installed."""
    for package in {"onnx": ("jax2onnx", "onnxruntime"), "keras": ("keras",)}.get(
        request.param, ()
    ):
        pytest.importorskip(package, reason=f"needs the extra {request.param}")
    return request.param


def export(form, folder, source, images):
    path = folder / f"network{SUFFIXES[form]}"
    return path, importlib.import_module(f"radimagenet_jax.exports.{form}").write(
        path, source, images
    )


def run(path, images):
    """Loads a file as somebody does who has none of our code."""
    if path.suffix == ".onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(path)
        names = [output.name for output in session.get_outputs()]
        return dict(zip(names, session.run(None, {"images": images}), strict=True))
    if path.suffix == ".keras":
        import keras

        return keras.saving.load_model(path).predict_on_batch(images)
    import jax

    exported = jax.export.deserialize(bytearray(path.read_bytes()))
    assert exported.platforms == ("cpu", "cuda", "tpu")
    return {name: np.asarray(value) for name, value in exported.call(images).items()}


def read_card(path):
    if path.suffix == ".onnx":
        import onnxruntime

        texts = onnxruntime.InferenceSession(path).get_modelmeta().custom_metadata_map
        return {
            name: text if name in ("notice", "made_by") else json.loads(text)
            for name, text in texts.items()
        }
    return json.loads(zipfile.ZipFile(path).read("card.json"))


@pytest.fixture(scope="module")
def real_images(shared_data):
    """Four slices and ultrasound images."""
    found = [pictures.read(shared_data / name, 96) for name in ("covid_ct", "Dataset_BUSI_with_GT")]
    return np.concatenate([found[0][:2], found[1][:2]])


@pytest.mark.parametrize(
    ("name", "variant"),
    [
        ("resnet50", "v1"),
        pytest.param("resnet50", "v1.5", marks=pytest.mark.slow),
        pytest.param("densenet121", "", marks=pytest.mark.slow),
        pytest.param("inception_v3", "", marks=pytest.mark.slow),
        pytest.param("inception_v3", "torch", marks=pytest.mark.slow),
        pytest.param("inception_resnet_v2", "", marks=pytest.mark.slow),
    ],
)
def test_a_published_network_gives_the_same_in_every_form(
    name, variant, form, make_source, reference, real_images, tmp_path
):
    source = make_source(name, 96, variant=variant)
    if form == "keras" and variant in ("v1.5", "torch"):
        with pytest.raises(WeightsError, match="Keras has no"):
            export(form, tmp_path, source, real_images)
        assert list(tmp_path.iterdir()) == []
        return
    features = reference(source, real_images)["features"]
    source, probabilities = telling_apart(source, features)
    path, agreement = export(form, tmp_path, source, real_images)
    assert agreement.images == 4
    assert np.ptp(probabilities, 0).min() > 0.1
    assert_agree(run(path, real_images), {"features": features, "probabilities": probabilities})
    assert [child.name for child in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("form", ["onnx", "stablehlo"], indirect=True)
@pytest.mark.parametrize("preprocessing", [("torch", "RGB"), ("torch", "BGR"), ("caffe", "RGB")])
def test_any_number_of_images_in_any_preprocessing(
    form, preprocessing, make_source, reference, tmp_path
):
    source = make_source("tiny_to_export", 32, preprocessing=preprocessing)
    images = pictures.drawn(32)
    path, _ = export(form, tmp_path, source, images)
    for count in (1, 2, 10):
        assert_agree(run(path, images[:count]), reference(source, images[:count]))


@pytest.mark.parametrize("form", ["onnx", "stablehlo"], indirect=True)
def test_the_card_says_what_the_network_is(form, tiny, tmp_path):
    usage = Usage(positive="malignant", threshold=0.25, windows=((40, 80),))
    path, _ = export(form, tmp_path, dataclasses.replace(tiny, usage=usage), pictures.drawn(32))
    card = read_card(path)
    assert card["classes"] == list(LABELS)
    assert card["operating_point"]["positive"] == "malignant"
    assert card["operating_point"]["threshold"] == 0.25
    assert card["dicom"] == {"windows": [{"center": 40, "width": 80}], "unwrap": False}
    assert Contract.from_json(json.dumps(card["contract"])) == tiny.contract
    assert card["notice"] == NOT_A_DEVICE
    assert "(N, 32, 32, 3) uint8" in card["input"]["images"]


@pytest.mark.parametrize("form", ["onnx", "stablehlo"], indirect=True)
def test_without_a_head_there_are_features_alone(form, make_source, reference, tmp_path):
    source = make_source("tiny_to_export", 32, labels=None)
    images = pictures.drawn(32)
    path, agreement = export(form, tmp_path, source, images)
    assert set(agreement.differences) == {"features"}
    assert_agree(run(path, images), reference(source, images))
    card = read_card(path)
    assert "classes" not in card
    assert "operating_point" not in card
    assert list(card["outputs"]) == ["features"]


def test_jax_alone_runs_the_stablehlo_file(tiny, reference, tmp_path):
    images = pictures.drawn(32)
    export("stablehlo", tmp_path, tiny, images)
    np.save(tmp_path / "images.npy", images)
    code = (
        "import sys\n"
        "sys.modules.update(dict.fromkeys(('radimagenet_jax', 'flax', 'tfds_builders')))\n"
        "import jax, numpy as np\n"
        "network = jax.export.deserialize(bytearray(open('network.hlo', 'rb').read()))\n"
        "np.savez('out.npz', **network.call(np.load('images.npy')))\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, timeout=300)
    with np.load(tmp_path / "out.npz") as found:
        assert_agree(dict(found), reference(tiny, images))


def test_the_stablehlo_file_computes_in_all_of_float32(tiny):
    import jax

    exported = jax.export.export(jax.jit(tiny.forward()), platforms=stablehlo.PLATFORMS)(
        jax.ShapeDtypeStruct((2, *tiny.shape), np.uint8)
    )
    module = exported.mlir_module()
    products = [
        line
        for line in module.splitlines()
        if "stablehlo.convolution" in line or "stablehlo.dot_general" in line
    ]
    assert products
    assert all("HIGHEST" in line for line in products)


@pytest.mark.parametrize("order", ["RGB", "BGR"])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_keras_layers_preprocess_as_the_network_is_fed(scheme, order, make_source):
    keras = pytest.importorskip("keras", reason="needs the extra keras")
    source = make_source("tiny_to_export", 16, preprocessing=(scheme, order))
    images = keras.Input(source.shape, dtype="uint8")
    model = keras.Model(images, keras_form._preprocessed(keras, images, source))
    drawn = pictures.drawn(16)
    expected = np.asarray(source.contract.input.of(drawn))
    np.testing.assert_allclose(np.asarray(model(drawn)), expected, rtol=1e-6, atol=2e-5)


def test_keras_weights_come_back_with_their_contract(make_source, tmp_path):
    source = make_source("resnet50", 32)
    path = tmp_path / "network.h5"
    assert keras_form.write(path, source, pictures.drawn(32)) is None
    again = load_pretrained(path)
    assert again.contract.labels == LABELS
    kernel = source.variables["params"]["head"]["kernel"]
    np.testing.assert_array_equal(again.variables["params"]["head"]["kernel"], kernel)
    assert [child.name for child in tmp_path.iterdir()] == ["network.h5"]


def test_a_name_that_keras_cannot_read_is_refused(tiny, tmp_path):
    with pytest.raises(ExportError, match=r"must end in '\.keras'"):
        keras_form.write(tmp_path / "network.onnx", tiny, pictures.drawn(32))
