"""A file that computes something else than its network is not kept."""

import sys

import numpy as np
import pytest

from radimagenet_jax.errors import ConfigError, DataError, ExportError
from radimagenet_jax.exports import card, comparison, pictures, spelling, stablehlo
from radimagenet_jax.exports import onnx as onnx_form


@pytest.fixture
def images():
    return pictures.drawn(32)


def test_an_onnx_file_with_one_wrong_weight_is_removed(tiny, images, tmp_path, monkeypatch):
    onnx = pytest.importorskip("onnx", reason="needs the extra onnx")
    pytest.importorskip("jax2onnx", reason="needs the extra onnx")
    convert = onnx_form._converted

    def broken(source):
        model = convert(source)
        # The first kernel, the only one of three channels: all that follows depends on it.
        (kernel,) = (one for one in model.graph.initializer if 3 in one.dims and 7 in one.dims)
        values = onnx.numpy_helper.to_array(kernel).copy()
        values.flat[0] += 1
        kernel.CopyFrom(onnx.numpy_helper.from_array(values, kernel.name))
        return model

    monkeypatch.setattr(onnx_form, "_converted", broken)
    with pytest.raises(ExportError, match=r"is wrong: on 10 images .* not kept"):
        onnx_form.write(tmp_path / "network.onnx", tiny, images)
    assert list(tmp_path.iterdir()) == []


def test_a_pool_without_its_padding_is_refused(tiny, images, tmp_path, monkeypatch):
    pytest.importorskip("jax2onnx", reason="needs the extra onnx")
    true = spelling._maximum

    def naive(x, params):
        (_, (top, _), (left, _), _) = params["padding"]
        # All of the padding at the end keeps the shape, and nothing else would notice.
        moved = ((0, 0), (0, 2 * top), (0, 2 * left), (0, 0))
        return true(x, {**params, "padding": moved})

    monkeypatch.setattr(spelling, "_maximum", naive)
    with pytest.raises(ExportError, match="not kept"):
        onnx_form.write(tmp_path / "network.onnx", tiny, images)
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_stablehlo_file_is_removed(tiny, images, tmp_path, monkeypatch):
    loaded = stablehlo._loaded

    def off(path):
        run = loaded(path)
        return lambda batch: {name: value + 2e-4 for name, value in run(batch).items()}

    monkeypatch.setattr(stablehlo, "_loaded", off)
    with pytest.raises(ExportError, match="not kept"):
        stablehlo.write(tmp_path / "network.hlo", tiny, images)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_what_is_no_number_is_refused(wrong, tiny, images, reference):
    expected = reference(tiny, images)
    start = iter(range(len(images)))

    def run(batch):
        rows = [next(start) for _ in batch]
        found = {name: values[rows].copy() for name, values in expected.items()}
        if 5 in rows:
            found["probabilities"][0, 0] = wrong
        return found

    with pytest.raises(ExportError, match="is wrong"):
        comparison.compare(run, tiny, images)


def test_an_output_of_another_shape_is_refused(tiny, images, reference):
    expected = reference(tiny, images)

    def run(batch):
        return {name: values[: len(batch), :2] for name, values in expected.items()}

    with pytest.raises(ExportError, match=r"gives probabilities \(10, 2\)"):
        comparison.compare(run, tiny, images)


def test_a_file_that_is_there_stays(tiny, images, tmp_path):
    path = tmp_path / "network.hlo"
    path.write_text("mine")
    with pytest.raises(ExportError, match="exists already"):
        stablehlo.write(path, tiny, images)
    assert path.read_text() == "mine"
    assert [child.name for child in tmp_path.iterdir()] == ["network.hlo"]


def test_a_full_disk_leaves_nothing(tiny, images, tmp_path, monkeypatch):
    def full_disk(path, source):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(card, "append", full_disk)
    with pytest.raises(ExportError, match=r"cannot be written \(No space left on device\)"):
        stablehlo.write(tmp_path / "network.hlo", tiny, images)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("package", ["onnx", "onnxruntime", "jax2onnx"])
def test_a_missing_extra_is_named_with_its_remedy(package, tiny, images, tmp_path, monkeypatch):
    for name in ("onnx", "onnxruntime"):
        pytest.importorskip(name, reason="needs the extra onnx")
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ConfigError, match=rf"needs the package {package}.*pip install"):
        onnx_form.write(tmp_path / "network.onnx", tiny, images)
    assert list(tmp_path.iterdir()) == []


def test_drawn_images_are_the_same_every_time_and_of_all_greys():
    first, again = pictures.drawn(64), pictures.drawn(64)
    np.testing.assert_array_equal(first, again)
    assert first.shape == (10, 64, 64, 3)
    assert first.dtype == np.uint8
    assert len(np.unique(first)) == 256


def test_a_folder_without_images_is_named(tmp_path):
    (tmp_path / "notes.txt").write_text("none")
    with pytest.raises(DataError, match=r"--images=.*no image there"):
        pictures.read(tmp_path, 32)
