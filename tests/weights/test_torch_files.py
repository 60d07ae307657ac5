"""PyTorch files are read as PyTorch reads them, without it, and never run anything."""

import importlib.util
import json
import os
import pickle
import shutil
import zipfile
from pathlib import Path

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file

from radimagenet_jax import load_pretrained
from radimagenet_jax.errors import WeightsError
from radimagenet_jax.weights import torch_pickle, torch_pt

HERE = Path(__file__).parent
GOLDENS = json.loads((HERE / "torch_goldens.json").read_text())


def _recipe():
    path = HERE.parent / "benchmarks" / "torch_goldens.py"
    spec = importlib.util.spec_from_file_location("torch_goldens", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


recipe = _recipe()


INCEPTION_CHILDREN = [
    *("Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3", "maxpool1"),
    *("Conv2d_3b_1x1", "Conv2d_4a_3x3", "maxpool2"),
    *("Mixed_5b", "Mixed_5c", "Mixed_5d"),
    *("Mixed_6a", "Mixed_6b", "Mixed_6c", "Mixed_6d", "Mixed_6e"),
    *("Mixed_7a", "Mixed_7b", "Mixed_7c"),
]


def state_dict(name):
    """A network's tensors by torchvision's names, as the goldens were made."""
    shapes = GOLDENS[name]["tensors"]
    return {key: recipe.draw(key, tuple(shape)) for key, shape in shapes.items()}


def numbered(name, tensors):
    """The names of the released files: `backbone.` and the child's number."""
    children = {
        "resnet50": [
            ("conv1.", "0."),
            ("bn1.", "1."),
            *((f"layer{stage}.", f"{stage + 3}.") for stage in range(1, 5)),
        ],
        "densenet121": [("features.", "0.")],
        "inception_v3": [
            (f"{child}.", f"{number}.") for number, child in enumerate(INCEPTION_CHILDREN)
        ],
    }[name]
    renamed = {}
    for key, values in tensors.items():
        child, number = next(pair for pair in children if key.startswith(pair[0]))
        renamed[f"backbone.{number}{key.removeprefix(child)}"] = values
    return renamed


@pytest.fixture(scope="module")
def released_pt(tmp_path_factory, write_torch):
    """Each network as it was released: a zip of a state dict."""
    folder = tmp_path_factory.mktemp("torch")
    paths = {}

    def get(name):
        if name not in paths:
            tensors = numbered(name, state_dict(name))
            paths[name] = write_torch(folder / f"{name}.pt", tensors)
        return paths[name]

    return get


def assert_features(spatial, name, size):
    golden = GOLDENS[name]["features"][str(size)]
    ours = recipe.figures(spatial)
    assert ours["shape"] == golden["shape"]
    assert ours["largest"] == pytest.approx(golden["largest"], rel=1e-4)
    for figure in ("pooled", "corner"):
        # The goldens are rounded to 1e-6, far below 1e-4 of the largest.
        np.testing.assert_allclose(ours[figure], golden[figure], atol=1e-4 * golden["largest"])


@pytest.mark.parametrize("name", sorted(GOLDENS))
def test_features_equal_pytorch(name, released_pt, quick_features):
    pretrained = load_pretrained(released_pt(name))
    assert pretrained.contract.architecture == name
    assert pretrained.contract.variant == {"resnet50": "v1.5"}.get(name, "torch")
    assert (pretrained.contract.preprocessing, pretrained.contract.channel_order) == ("tf", "BGR")
    assert_features(quick_features(pretrained, recipe.picture(96))["spatial"], name, 96)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(GOLDENS))
def test_features_equal_pytorch_at_a_size_with_remainders(name, released_pt):
    spatial = load_pretrained(released_pt(name)).features(recipe.picture(111))["spatial"]
    assert_features(np.asarray(spatial), name, 111)


@pytest.mark.parametrize("name", sorted(GOLDENS))
@pytest.mark.parametrize("form", ["torchvision's names", "module.backbone.", "safetensors"])
def test_every_way_to_name_the_tensors_gives_the_same_variables(
    name, form, tmp_path, released_pt, write_torch
):
    tensors = state_dict(name)
    if form == "safetensors":
        path = tmp_path / "model.safetensors"
        save_file(tensors, path)
    elif form == "module.backbone.":
        names = {f"module.{key}": value for key, value in numbered(name, tensors).items()}
        path = write_torch(tmp_path / "model.pt", names)
    else:
        path = write_torch(tmp_path / "model.pt", tensors)
    expected = load_pretrained(released_pt(name))
    said = None if "backbone" in form else "torch"
    got = load_pretrained(path, preprocessing=said)
    path.unlink()
    assert got.contract.preprocessing == said or said is None
    for key in ("architecture", "variant", *(("channel_order",) if said is None else ())):
        assert getattr(got.contract, key) == getattr(expected.contract, key)
    assert jax.tree.structure(got.variables) == jax.tree.structure(expected.variables)
    for one, other in zip(
        jax.tree.leaves(got.variables), jax.tree.leaves(expected.variables), strict=True
    ):
        np.testing.assert_array_equal(one, other)


def test_a_port_of_the_keras_file_keeps_keras_strides_and_input(
    tmp_path, keras_reference, write_torch, quick_features
):
    """The third parties' ResNet50: the Keras weights, biases kept, under torchvision's names."""
    reference = keras_reference("resnet50")
    roles = {
        "kernel": "weight",
        "bias": "bias",
        "gamma": "weight",
        "beta": "bias",
        "moving_mean": "running_mean",
        "moving_variance": "running_var",
    }
    tensors = {}
    for layer, values in reference.layers:
        if layer in ("conv1_conv", "conv1_bn"):
            module = {"conv1_conv": "conv1", "conv1_bn": "bn1"}[layer]
        elif values:
            stage, block, number, kind = layer.split("_")
            inner = {"0conv": "downsample.0", "0bn": "downsample.1"}.get(
                number + kind, f"{kind}{number}"
            )
            module = f"layer{int(stage[4:]) - 1}.{int(block[5:]) - 1}.{inner}"
        for role, value in values.items():
            tensors[f"{module}.{roles[role]}"] = (
                value.transpose(3, 2, 0, 1) if role == "kernel" else value
            )
    pretrained = load_pretrained(write_torch(tmp_path / "RadImageNet-ResNet50_notop.pth", tensors))
    assert pretrained.contract.variant == "v1"
    assert pretrained.contract.preprocessing == "caffe_div255"
    x = np.random.default_rng(3).normal(0, 0.5, (2, 96, 96, 3)).astype(np.float32)
    expected = reference.features(x)["pooled"]
    worst = np.abs(quick_features(pretrained, x)["pooled"] - expected).max()
    assert worst < 1e-4 * np.abs(expected).max()


def test_a_file_that_pytorch_wrote_is_read_as_it_meant():
    """Parameters, a transposed and a shared tensor, other dtypes, beside other things."""
    with torch_pt.opened(HERE / "data" / "state_dict_torch_2.14.pt") as opened:
        tensors = opened.tensors
        read = {name: tensor.read() for name, tensor in tensors.items() if tensor.dtype.kind != "V"}
        assert tensors["bfloat"].dtype.name == "bfloat16"
    np.testing.assert_array_equal(read["weight"], np.arange(6.0).reshape(3, 2, 1, 1))
    np.testing.assert_array_equal(read["bias"], [0.5, 1, 2])
    np.testing.assert_array_equal(read["transposed"], np.arange(12.0).reshape(3, 4).T)
    np.testing.assert_array_equal(read["window"], [4, 5, 6, 7])
    assert read["counter"] == 7
    assert read["half"].dtype == np.float16


# ---------------------------------------------------------------------------- Bad files


def refusal(path, **options):
    with pytest.raises(WeightsError) as caught:
        load_pretrained(path, **options)
    message = str(caught.value)
    assert path.name in message
    assert "\n" not in message
    assert message.endswith(".")
    return message


@pytest.fixture
def small():
    """Enough of a ResNet50 to be taken for one, were it whole."""
    return {key: values for key, values in state_dict("resnet50").items() if "layer4" not in key}


class _Evil:
    """Unpickling it would make a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("protocol", range(6))
def test_a_pickle_that_asks_for_code_is_refused_and_not_run(protocol, tmp_path, write_torch):
    trap = tmp_path / "trap"
    program = pickle.dumps({"conv1.weight": _Evil(trap)}, protocol=protocol)
    message = refusal(write_torch(tmp_path / "evil.pt", {}, program=program))
    assert "nothing was run" in message
    assert not trap.exists()


@pytest.mark.parametrize(
    ("program", "told"),
    [
        (b"cos\nsystem\n(X\x04\x00\x00\x00truetR.", "os.system"),
        (b"cbuiltins\neval\n.", "builtins.eval"),
        (b"\x80\x04\x8c\x02os\x8c\x06system\x93.", "os.system"),
        (b"ctorch._utils\n_rebuild_tensor_v2\n)R.", "unknown way"),
        (b"ctorch.storage\n_load_from_bytes\n.", "torch.storage._load_from_bytes"),
        (b"(ios\nsystem\n.", "opcode INST"),
        (b"(cos\nsystem\no.", "os.system"),
        (b"\x82\x01.", "opcode EXT1"),
        (b"}X\x01\x00\x00\x00a", "damaged"),
        (b"}", "damaged"),
        (b"u.", "damaged"),
        (b"0.", "opcode POP"),
        (b"h\x07.", "damaged"),
        (b"\xff\xff", "damaged"),
    ],
)
def test_a_program_that_is_no_state_dict_is_refused_by_what_it_asks(
    program, told, tmp_path, write_torch
):
    assert told in refusal(write_torch(tmp_path / "odd.pt", {}, program=program))


def test_damaged_programs_never_end_in_another_error():
    """Every byte of a true pickle, changed."""
    with zipfile.ZipFile(HERE / "data" / "state_dict_torch_2.14.pt") as archive:
        name = next(name for name in archive.namelist() if name.endswith("data.pkl"))
        program = archive.read(name)
    rng = np.random.default_rng(0)
    refused = 0
    for position in range(len(program)):
        changed = bytearray(program)
        changed[position] ^= int(rng.integers(1, 256))
        try:
            torch_pickle.interpret(bytes(changed))
        except torch_pickle.PickleError:
            refused += 1
    assert refused > len(program) / 4


def test_a_tensor_beyond_its_storage_is_refused(tmp_path, write_torch):
    from_conftest = write_torch(tmp_path / "good.pt", {"conv1.weight": np.ones((2, 3), "f4")})
    with zipfile.ZipFile(from_conftest) as archive:
        program = archive.read("archive/data.pkl")
    # The number of elements, 6, stands after 'cpu'; 5 are too few for (2, 3).
    short = program.replace(b"cpuJ\x06", b"cpuJ\x05")
    assert short != program
    message = refusal(write_torch(tmp_path / "short.pt", {}, program=short))
    assert "beyond the end of its storage" in message


def test_truncation_anywhere_is_refused(tmp_path, released_pt):
    path = tmp_path / "cut.pt"
    shutil.copyfile(released_pt("densenet121"), path)
    size = path.stat().st_size
    cuts = np.random.default_rng(5).integers(1, size, 20)
    for cut in sorted([*cuts, size - 1], reverse=True):
        with path.open("r+b") as file:
            file.truncate(int(cut))
        refusal(path)
    path.unlink()


def test_a_changed_byte_in_the_numbers_is_noticed(tmp_path, released_pt):
    path = tmp_path / "flipped.pt"
    shutil.copyfile(released_pt("densenet121"), path)
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        byte = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte[0] ^ 0x10]))
    assert "CRC" in refusal(path)
    path.unlink()


def test_missing_and_extra_tensors_are_named_together(tmp_path, small, write_torch):
    small["layer2.0.attention.weight"] = np.zeros((10, 2048), np.float32)
    message = refusal(write_torch(tmp_path / "part.pt", small))
    assert "missing: layer4.0." in message
    assert "unexpected: layer2.0.attention.weight" in message


def test_more_precision_than_is_kept_is_refused(tmp_path, small, write_torch):
    tensors = {key: values.astype("f8") for key, values in small.items() if values.ndim}
    message = refusal(write_torch(tmp_path / "double.pt", tensors, storage="DoubleStorage"))
    assert "not float32" in message


def test_numbers_that_are_missing_are_refused(tmp_path, released_pt):
    path = tmp_path / "hole.pt"
    with (
        zipfile.ZipFile(released_pt("densenet121")) as whole,
        zipfile.ZipFile(path, "w") as archive,
    ):
        for name in whole.namelist():
            if name != "archive/data/600":
                archive.writestr(name, whole.read(name))
    assert "lacks the numbers" in refusal(path)


def test_a_strange_network_is_refused(tmp_path, write_torch):
    tensors = {f"blocks.{i}.attn.weight": np.zeros((2, 2), np.float32) for i in range(9)}
    assert "another network" in refusal(write_torch(tmp_path / "vit.pt", tensors))


def test_a_network_without_a_pytorch_release_is_refused(released_pt):
    with pytest.raises(WeightsError, match="released for Keras only"):
        load_pretrained(released_pt("densenet121"), architecture="inception_resnet_v2")


def test_the_other_stride_variant_is_refused(released_pt):
    with pytest.raises(WeightsError, match=r"v1\.5, which computes other features than v1 "):
        load_pretrained(released_pt("resnet50"), architecture="resnet50:v1")


def test_a_bare_pickle_is_refused_unread(tmp_path):
    path = tmp_path / "old.pt"
    path.write_bytes(pickle.dumps({"a": 1}, protocol=2))
    assert "never loaded" in refusal(path)


def test_an_archive_of_something_else_is_refused(tmp_path):
    path = tmp_path / "pictures.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.png", b"")
    assert "neither a '.keras' file nor a PyTorch state dict" in refusal(path)
