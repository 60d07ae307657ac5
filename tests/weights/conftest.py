"""Weight files in their true layouts."""

import collections
import io
import json
import pickle
import struct
import sys
import types
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import jax
import numpy as np
import pytest

from radimagenet_jax import models
from radimagenet_jax.weights.assembly import expected_shapes
from radimagenet_jax.weights.keras_layers import rules


@dataclass(frozen=True)
class Hollow:
    """A tensor of ones that takes no room in the file, for tests that need no numbers."""

    shape: tuple[int, ...]
    dtype: str = "float32"
    fill: float = 1.0


# (layer, {role: values}) in the order of `model.layers`, layers without weights included.
Layers = list[tuple[str, dict[str, Any]]]


@pytest.fixture(scope="session")
def hollow_layers() -> Callable[[str], Layers]:
    """The layers of a network with tensors of ones that take no room."""

    def get(name: str) -> Layers:
        entry = models.architecture(name)
        table = entry.keras_layers()
        shapes = expected_shapes(name, entry.variants[0] if entry.variants else "")
        roles: dict[str, dict[str, Any]] = {layer.name: {} for layer in table}
        for rule in map(rules(table), shapes):
            layer, role = rule.source.rsplit("/", 1)
            roles[layer][role] = Hollow(shapes[rule.target])
        return list(roles.items())

    return get


@pytest.fixture(scope="session")
def write_keras_2() -> Callable[..., Path]:
    """Writes the HDF5 layout of Keras 2.4, the version of the released files."""
    return _write_keras_2


def _write_keras_2(
    path: Path,
    layers: Layers,
    *,
    full: bool = True,
    config: dict[str, Any] | None = None,
    suffix: str = ":0",
) -> Path:
    with h5py.File(path, "w") as file:
        top = file
        if full:
            described = config or {
                "class_name": "Functional",
                "config": {
                    "name": "model",
                    "layers": [
                        {"class_name": "Layer", "config": {"name": name}, "name": name}
                        for name, _ in layers
                    ],
                },
            }
            file.attrs["keras_version"] = b"2.4.0"
            file.attrs["backend"] = b"tensorflow"
            file.attrs["model_config"] = json.dumps(described).encode()
            top = file.create_group("model_weights")
        top.attrs["layer_names"] = np.array([name.encode() for name, _ in layers])
        top.attrs["backend"] = b"tensorflow"
        top.attrs["keras_version"] = b"2.4.0"
        for name, values in layers:
            group = top.create_group(name)
            names = [f"{name}/{role}{suffix}" for role in values]
            group.attrs["weight_names"] = np.array([entry.encode() for entry in names], "S")
            for entry, value in zip(names, values.values(), strict=True):
                if isinstance(value, Hollow):
                    group.create_dataset(entry, value.shape, value.dtype, fillvalue=value.fill)
                else:
                    group.create_dataset(entry, data=value)
    return path


@pytest.fixture(scope="session")
def released(
    tmp_path_factory: pytest.TempPathFactory, keras_reference: Callable[[str], Any]
) -> Path:
    """A ResNet50 file as RadImageNet released it, with random weights and statistics."""
    path = tmp_path_factory.mktemp("released") / "RadImageNet-ResNet50_notop.h5"
    return _write_keras_2(path, keras_reference("resnet50").layers)


@pytest.fixture(scope="session")
def quick_features() -> Callable[..., dict[str, np.ndarray]]:
    """The features of a loaded network, from a program that is compiled quickly."""

    def get(pretrained: Any, x: np.ndarray) -> dict[str, np.ndarray]:
        apply = jax.jit(
            lambda variables, x: pretrained.model.apply(variables, x, train=False)[1],
            compiler_options={"xla_backend_optimization_level": 0},
        )
        out = apply(pretrained.variables, x)
        return {key: np.asarray(out[key]) for key in ("spatial", "pooled")}

    return get


@pytest.fixture(scope="session")
def write_torch() -> Callable[..., Path]:
    """Writes the zip layout of `torch.save(state_dict)`."""
    return _write_torch


def _write_torch(
    path: Path,
    tensors: dict[str, np.ndarray],
    *,
    storage: str = "FloatStorage",
    program: bytes | None = None,
) -> Path:
    """Writes tensors, or another `program` as their pickle."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("archive/data.pkl", program or torch_program(tensors, storage))
        archive.writestr("archive/byteorder", "little")
        for key, values in enumerate(tensors.values()):
            archive.writestr(f"archive/data/{key}", np.ascontiguousarray(values).tobytes())
        archive.writestr("archive/version", "3\n")
    return path


def torch_program(tensors: dict[str, np.ndarray], storage: str) -> bytes:
    """The pickle of a state dict, opcode by opcode, as PyTorch's protocol 2 has it."""

    def text(value: str) -> bytes:
        encoded = value.encode()
        return b"X" + struct.pack("<I", len(encoded)) + encoded

    def numbers(values: Sequence[int]) -> bytes:
        return b"(" + b"".join(b"J" + struct.pack("<i", value) for value in values) + b"t"

    ordered_dict = b"ccollections\nOrderedDict\n)R"
    out = [b"\x80\x02", ordered_dict, b"q\x00", b"("]
    for key, (name, values) in enumerate(tensors.items()):
        kind = "LongStorage" if values.dtype == np.int64 else storage
        strides = [step // values.itemsize for step in np.ascontiguousarray(values).strides]
        out += [
            text(name),
            b"ctorch._utils\n_rebuild_tensor_v2\n",
            b"((",
            text("storage"),
            f"ctorch\n{kind}\n".encode(),
            text(str(key)),
            text("cpu"),
            b"J" + struct.pack("<i", values.size),
            b"tQ",
            b"K\x00",
            numbers(values.shape),
            numbers(strides if values.shape else []),
            b"\x89",
            ordered_dict,
            b"tR",
        ]
    # PyTorch's `_metadata`, set as the OrderedDict's state.
    return b"".join([*out, b"u", b"}", text("_metadata"), ordered_dict, b"sb."])


class _Tensor:
    """A tensor of a pickle that PyTorch could have written."""

    def __init__(self, values: np.ndarray):
        self.values = np.asarray(values, order="C")


@pytest.fixture(scope="session")
def write_checkpoint() -> Callable[..., Path]:
    """Writes what `torch.save` makes of any object: arrays in it become tensors."""
    return _write_checkpoint


def _write_checkpoint(path: Path, saved: Any, *, kinds: dict[str, str] | None = None) -> Path:
    """Writes an object.

    Args:
      path: The file.
      saved: Nested dicts and lists; every numpy array in it is a tensor.
      kinds: Storage classes by dtype, where they are not the usual ones.

    Returns:
      The file.
    """
    storages = {"float32": "FloatStorage", "float16": "HalfStorage", "int64": "LongStorage"}
    storages |= {"bfloat16": "BFloat16Storage", **(kinds or {})}
    # The pickler wants to find what it names.
    torch, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")
    for name in storages.values():
        setattr(torch, name, type(name, (), {"__module__": "torch"}))

    def _rebuild_tensor_v2() -> None: ...

    _rebuild_tensor_v2.__module__ = "torch._utils"
    _rebuild_tensor_v2.__qualname__ = "_rebuild_tensor_v2"
    utils._rebuild_tensor_v2 = _rebuild_tensor_v2  # type: ignore[attr-defined]
    written: list[np.ndarray] = []

    class Storage:
        def __init__(self, values: np.ndarray):
            self.values, self.key = values, str(len(written))
            written.append(values)

    class Pickler(pickle.Pickler):
        def persistent_id(self, value: Any) -> Any:
            if not isinstance(value, Storage):
                return None
            kind = getattr(torch, storages[value.values.dtype.name])
            return ("storage", kind, value.key, "cpu", value.values.size)

        def reducer_override(self, value: Any) -> Any:
            if not isinstance(value, _Tensor):
                return NotImplemented
            strides = tuple(step // value.values.itemsize for step in value.values.strides)
            shape = value.values.shape
            return _rebuild_tensor_v2, (Storage(value.values), 0, shape, strides, False, {})

    def as_tensors(node: Any) -> Any:
        if isinstance(node, np.ndarray):
            return _Tensor(node)
        if type(node) in (dict, collections.OrderedDict):
            return type(node)((key, as_tensors(value)) for key, value in node.items())
        if isinstance(node, list):
            return [as_tensors(value) for value in node]
        return node

    program = io.BytesIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "torch", torch)
        patch.setitem(sys.modules, "torch._utils", utils)
        Pickler(program, protocol=2).dump(as_tensors(saved))
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("archive/data.pkl", program.getvalue())
        archive.writestr("archive/byteorder", "little")
        for key, values in enumerate(written):
            archive.writestr(f"archive/data/{key}", values.tobytes())
        archive.writestr("archive/version", "3\n")
    return path
