"""Weight files: damaged ones of every form that is read, and crafted ones that are worse."""

import contextlib
import functools
import io
import json
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import h5py
import jax
import numpy as np
from flax import traverse_util
from safetensors.numpy import save

from radimagenet_jax import models
from radimagenet_jax.weights import keras_export, native, reading
from radimagenet_jax.weights.contract import Contract
from radimagenet_jax.weights.loaded import Weights
from tests.fuzz import harness
from tests.weights.conftest import torch_program


class Twig(models.Network):
    """Two convolutions, small enough that an attempt takes milliseconds."""

    epsilons: ClassVar[dict[str, float]] = {"v1": 1e-3}
    min_image_size = 8
    variant: str = "v1"

    def blocks(self, x: jax.Array, layers: Any) -> dict[str, jax.Array]:
        x = layers.conv_norm(x, ("conv1", "bn1"), 4, 3, stride=2)
        return {"spatial": layers.conv_norm(x, ("conv2", "bn2"), 6, 3, stride=2)}


def _twig_layers() -> tuple[models.KerasLayer, ...]:
    kinds = {"conv1": "conv", "bn1": "batch_norm", "conv2": "conv", "bn2": "batch_norm"}
    return tuple(models.KerasLayer(f"twig_{path}", path, kind) for path, kind in kinds.items())


def _twig_module(path: str) -> str:
    return f"twig.{path}"


CONTRACT = Contract("twig", "v1", "caffe", "BGR", "a test", "mine", "0" * 64)


def warm() -> None:
    """Makes the small network known, and reads a file of it once."""
    with tempfile.TemporaryDirectory() as folder:
        _read(_write(Path(folder), base("folder")))


def _register() -> None:
    torch = models.TorchNames("v1", _twig_module)
    models.register(
        models.Architecture("twig", Twig, _twig_layers, torch=torch, native_input="caffe")
    )


@functools.cache
def variables() -> Mapping[str, np.ndarray]:
    """The network's variables by target, as every base file has them."""
    _register()
    tree = models.variable_shapes(models.create("twig"), 8)
    rng = np.random.default_rng(0)
    return {
        target: np.abs(rng.normal(size=leaf.shape)).astype(np.float32)
        for target, leaf in traverse_util.flatten_dict(tree, sep="/").items()
    }


_ROLES = {"kernel": "kernel", "scale": "gamma", "bias": "beta", "mean": "moving_mean"}
_ROLES |= {"var": "moving_variance"}


def _by_layer() -> dict[str, dict[str, np.ndarray]]:
    """Keras' layers, with the roles in its order."""
    layers: dict[str, dict[str, np.ndarray]] = {}
    for target, values in variables().items():
        _, layer, leaf = target.split("/")
        role = "bias" if leaf == "bias" and layer.startswith("conv") else _ROLES[leaf]
        layers.setdefault(layer, {})[role] = values
    order = {"conv": ("kernel", "bias")}
    batch_norm = ("gamma", "beta", "moving_mean", "moving_variance")
    return {
        layer.path: {
            role: layers[layer.path][role]
            for role in order.get(layer.kind, batch_norm)
            if role in layers[layer.path]
        }
        for layer in _twig_layers()
        if layer.path
    }


def _keras_2(*, full: bool, **storage: Any) -> bytes:
    content = io.BytesIO()
    with h5py.File(content, "w") as file:
        file.attrs["keras_version"] = b"2.4.0"
        top = file
        if full:
            layers = [
                {"class_name": "Layer", "config": {"name": layer.name, "strides": [1, 1]}}
                for layer in _twig_layers()
            ]
            described = {"class_name": "Functional", "config": {"layers": layers}}
            file.attrs["model_config"] = json.dumps(described).encode()
            top = file.create_group("model_weights")
        top.attrs["layer_names"] = [layer.name.encode() for layer in _twig_layers()]
        for path, roles in _by_layer().items():
            group = top.create_group(f"twig_{path}")
            group.attrs["weight_names"] = [f"twig_{path}/{role}:0".encode() for role in roles]
            for role, values in roles.items():
                group.create_dataset(f"twig_{path}/{role}:0", data=values, **storage)
    return content.getvalue()


def _keras_3() -> bytes:
    content = io.BytesIO()
    with h5py.File(content, "w") as file:
        counts: dict[str, int] = {}
        for path, roles in _by_layer().items():
            kind = "conv2d" if path.startswith("conv") else "batch_normalization"
            count = counts.get(kind, 0)
            counts[kind] = count + 1
            group = file.create_group(f"layers/{kind}{f'_{count}' if count else ''}/vars")
            group.attrs["name"] = f"twig_{path}"
            for number, values in enumerate(roles.values()):
                group.create_dataset(str(number), data=values)
    return content.getvalue()


def _keras_archive() -> bytes:
    return _zip(
        {
            "metadata.json": b'{"keras_version": "3.0.0"}',
            "config.json": b"{}",
            "model.weights.h5": _keras_3(),
        },
    )


def _torch_tensors() -> dict[str, np.ndarray]:
    names = {"kernel": "weight", "scale": "weight", "bias": "bias"}
    names |= {"mean": "running_mean", "var": "running_var"}
    tensors = {}
    for target, values in variables().items():
        _, layer, leaf = target.split("/")
        stored = values.transpose(3, 2, 0, 1) if leaf == "kernel" else values
        tensors[f"twig.{layer}.{names[leaf]}"] = np.ascontiguousarray(stored)
    return tensors


def _zip(members: Mapping[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", compression) as archive:
        for name, member in members.items():
            archive.writestr(name, member)
    return content.getvalue()


def _torch(program: bytes | None = None, compression: int = zipfile.ZIP_STORED) -> bytes:
    tensors = _torch_tensors()
    return _zip(
        {
            "archive/data.pkl": program or torch_program(tensors, "FloatStorage"),
            "archive/byteorder": b"little",
            **{f"archive/data/{key}": one.tobytes() for key, one in enumerate(tensors.values())},
            "archive/version": b"3\n",
        },
        compression,
    )


def _folder() -> dict[str, bytes]:
    tree = traverse_util.unflatten_dict(dict(variables()), sep="/")
    with tempfile.TemporaryDirectory() as folder:
        native.write(Path(folder, "twig"), tree, CONTRACT)
        return {f"twig/{path.name}": path.read_bytes() for path in Path(folder, "twig").iterdir()}


def _exported() -> bytes:
    tree = traverse_util.unflatten_dict(dict(variables()), sep="/")
    with tempfile.TemporaryDirectory() as folder:
        keras_export.write(Path(folder, "twig.h5"), tree, CONTRACT)
        return Path(folder, "twig.h5").read_bytes()


@functools.cache
def base(form: str) -> dict[str, bytes]:
    """An intact file, or the files of a folder, by name."""
    _register()
    make: dict[str, Callable[[], dict[str, bytes]]] = {
        "h5-full": lambda: {"twig.h5": _keras_2(full=True)},
        "h5-only": lambda: {"twig.h5": _keras_2(full=False)},
        "h5-gzip": lambda: {
            "twig.h5": _keras_2(full=False, compression="gzip", shuffle=True, chunks=True)
        },
        "h5-lzf": lambda: {
            "twig.h5": _keras_2(full=True, compression="lzf", fletcher32=True, chunks=True)
        },
        "h5-ours": lambda: {"twig.h5": _exported()},
        "v3-h5": lambda: {"twig.weights.h5": _keras_3()},
        "keras": lambda: {"twig.keras": _keras_archive()},
        "pt": lambda: {"twig.pt": _torch()},
        "pt-packed": lambda: {"twig.pt": _torch(compression=zipfile.ZIP_DEFLATED)},
        "folder": _folder,
        "safetensors": lambda: {"twig.safetensors": _folder()["twig/model.safetensors"]},
    }
    return make[form]()


@dataclass(frozen=True)
class Made:
    """A file or folder, and what was done to it.

    Attributes:
      path: Of the file or folder.
      is_proof: Whether the form notices any change of its numbers.
    """

    path: Path
    is_proof: bool = False


def _write(folder: Path, files: Mapping[str, bytes]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(content)
    return folder / next(iter(files)).partition("/")[0]


def _damaged(
    forms: tuple[str, ...], *, is_proof: bool
) -> Callable[[np.random.Generator, Path], Made]:
    def make(rng: np.random.Generator, folder: Path) -> Made:
        files = dict(base(str(rng.choice(forms))))
        name = str(rng.choice(list(files)))
        if rng.random() < 0.5:
            files[name] = harness.mutated(rng, files[name])
        else:  # a single bit, as a disk or a line changes it
            content = bytearray(files[name])
            content[int(rng.integers(len(content)))] ^= 1 << int(rng.integers(8))
            files[name] = bytes(content)
        return Made(_write(folder, files), is_proof)

    return make


def _read(path: Path) -> Weights:
    return reading.read(path, architecture="twig", preprocessing="caffe")


def attempt(made: Made) -> Weights:
    """Reads the file as the small network's."""
    return _read(made.path)


def judge(made: Made, weights: Weights) -> str | None:
    """What is wrong with having taken it."""
    leaves = traverse_util.flatten_dict(dict(weights.variables), sep="/")
    known = variables()
    if {target: leaf.shape for target, leaf in leaves.items()} != {
        target: values.shape for target, values in known.items()
    }:
        return "the shapes are not the network's"
    if not all(np.isfinite(leaf).all() for leaf in leaves.values()):
        return "there are numbers that are not finite"
    # A Keras file of ours whose mark was hit is a Keras file of somebody's.
    ours = weights.contract.origin == CONTRACT.origin
    if made.is_proof and (ours or made.path.suffix != ".h5"):
        for target, leaf in leaves.items():
            if not np.array_equal(leaf, known[target]):
                return f"{target} has other numbers"
        if ours and made.path.suffix != ".h5" and weights.contract != CONTRACT:
            return f"the contract is {weights.contract}"
    return None


# Crafted files. Each takes a generator and returns files by name.


def _text(value: str) -> bytes:
    encoded = value.encode("utf-8", "surrogatepass")
    return b"X" + struct.pack("<I", len(encoded)) + encoded


def _doubling(rng: np.random.Generator) -> bytes:
    """Containers that hold the one before twice, as a key, a value or a shape."""
    rounds = int(rng.integers(20, 200))
    pair = rng.choice([b"\x86", b"l", b"d"])
    body = b"K\x01q\x00"
    for number in range(rounds):
        get = b"h" + bytes([number])
        put = b"q" + bytes([number + 1])
        if pair == b"\x86":
            body += get + get + b"\x86" + put
        elif pair == b"l":
            body += b"](" + get + get + b"e" + put
        else:
            body += b"}(" + _text("a") + get + _text("b") + get + b"u" + put
    last = b"h" + bytes([rounds])
    end = rng.choice(4)
    if end == 0:
        return b"\x80\x02" + body + b"}" + last + b"K\x01s."
    if end == 1:
        return b"\x80\x02" + body + b"}" + _text("state_dict") + last + b"s."
    if end == 2:
        return b"\x80\x02" + body + b"ccollections\nOrderedDict\n" + last + b"\x85R."
    return b"\x80\x02" + body + b"ctorch._utils\n_rebuild_tensor_v2\n(" + last * 6 + b"tR."


def _deep(rng: np.random.Generator) -> bytes:
    depth = int(rng.choice([30, 200, 5000, 300_000]))
    nest = rng.choice(3)
    if nest == 0:
        value = b")" + b"\x85" * depth
    elif nest == 1:
        value = b"]" * (depth + 1) + b"a" * depth
    else:
        value = (b"}" + _text("a")) * depth + b"N" + b"s" * depth
    key = rng.choice(2) == 0
    return b"\x80\x02}" + (value + b"K\x01" if key else _text("model") + value) + b"s."


def _odd_program(rng: np.random.Generator) -> bytes:
    tensor = b"ctorch._utils\n_rebuild_tensor_v2\n"
    storage = b"(" + _text("storage") + b"ctorch\nFloatStorage\n" + _text("0") + _text("cpu")
    huge = b"\x8a\xff" + b"\x7f" * 255
    many = b"K\x01" * 200_000
    programs = [
        b"\x80\x02cos\nsystem\n" + _text("touch pwned") + b"\x85R.",
        b"\x80\x04\x8c\x08builtins\x8c\x04eval\x93" + _text("1") + b"\x85R.",
        b"\x80\x02" + huge + b".",
        b"\x80\x02\x8b\xff\xff\xff\x7f" + b"1" * 1000 + b".",
        b"\x80\x02I" + b"9" * 100_000 + b"\n.",
        b"\x80\x02L" + b"9" * 4000 + b"L\n.",
        b"\x80\x02q\xff.",
        b"\x80\x02(q\x00h\x00.",
        b"\x80\x02" + b"(" * 150_000 + b".",
        b"\x80\x02\x8d" + b"\xff" * 8 + b"a.",
        b"\x80\x02B" + b"\xff" * 4 + b"a.",
        b"\x80\x02T" + b"\xff\xff\xff\x7f" + b"a.",
        b"\x80\x02}q\x00" + _text("a") + b"h\x00s.",
        b"\x80\x02]q\x00h\x00a.",
        b"\x80\x02}" + tensor + b"(" + storage + huge + b"tQK\x00(" + huge + b"t(K\x00t\x89)tRs.",
        b"\x80\x02"
        + tensor
        + b"("
        + storage
        + b"K\x01tQK\x00("
        + many
        + b"t("
        + many
        + b"t\x89)tR.",
        b"\x80\x02}" + _text("a" * 1_000_000) + b"K\x01s.",
        b"\x80\x02}" + _text("\ud7ff\ud800\x1b]0;x\x07") + b"K\x01s.",
        b"\x80\x02c" + b"a" * 100_000 + b"\nb\n.",
        b"\x80\x02" + b"N0" * 400_000 + b".",
        b"\x80\x02}" + (_text("k") + b"K\x01s") * 100_000 + b".",
        b"\x80\x02](" + b"K\x01" * 150_000 + b"eq\x00](" + b"h\x00" * 150_000 + b"e.",
        b"\x80\x05\x97.",
        b"\x80\xff.",
        b".",
        b"",
        b"\x80\x02" + b"\x86" * 10 + b".",
        b"\x80\x02Q.",
        b"\x80\x02(((((tQ.",
    ]
    program = programs[int(rng.integers(len(programs)))]
    return program or b"\x80"


def _one_storage(rng: np.random.Generator) -> dict[str, bytes]:
    """All tensors windows on one large storage, or with strides of nothing."""
    step = int(rng.choice([0, 1]))
    size = 2_000_000
    program = [b"\x80\x02}("]
    for name, values in _torch_tensors().items():
        shape = b"(" + b"".join(b"J" + struct.pack("<i", each) for each in values.shape) + b"t"
        strides = b"(" + b"".join(b"J" + struct.pack("<i", step) for _ in values.shape) + b"t"
        storage = b"(" + _text("storage") + b"ctorch\nFloatStorage\n" + _text("0") + _text("cpu")
        storage += b"J" + struct.pack("<i", size) + b"tQ"
        program.append(
            _text(name) + b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + b"K\x00" + shape
        )
        program.append(strides + b"\x89}tR")
    members = {"archive/data.pkl": b"".join([*program, b"u."]), "archive/data/0": bytes(4 * size)}
    return {"twig.pt": _zip(members)}


def _program(make: Callable[[np.random.Generator], bytes]) -> Callable[..., dict[str, bytes]]:
    return lambda rng: {"twig.pt": _torch(make(rng))}


@functools.cache
def _zeros(size: int, window: int) -> bytes:
    """Zeros, packed."""
    packer = zlib.compressobj(1, zlib.DEFLATED, window)
    piece = bytes(2**20)
    return b"".join(packer.compress(piece) for _ in range(size // 2**20)) + packer.flush()


@functools.cache
def _crowd() -> bytes:
    """An archive of many members with names that lead out of it."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for number in range(40_000):
            archive.writestr(f"../../{number}", b"")
        archive.writestr("/etc/data.pkl", b"\x80\x02}.")
    return content.getvalue()


def _bomb(rng: np.random.Generator) -> dict[str, bytes]:
    """Members that unpack to far more than they have, honestly or not."""
    name, inner = [
        ("twig.keras", "model.weights.h5"),
        ("twig.pt", "archive/data.pkl"),
        ("twig.pt", "archive/data/0"),
    ][int(rng.integers(3))]
    size = int(rng.choice([50, 600])) * 2**20
    packed = _zeros(size, -15)
    stated = int(rng.choice([size, 1000, 2**31]))
    members = {inner: packed}
    if inner == "archive/data/0":
        members["archive/data.pkl"] = torch_program(_torch_tensors(), "FloatStorage")
    content = bytearray(_zip(members))
    # The central directory says how long each member is: of the first, that it is compressed.
    at = content.rfind(b"PK\x01\x02", 0, content.rfind(inner.encode()))
    struct.pack_into("<H", content, at + 10, zipfile.ZIP_DEFLATED)
    struct.pack_into("<I", content, at + 24, stated & 0xFFFFFFFF)
    return {name: bytes(content)}


def _odd_zip(rng: np.random.Generator) -> dict[str, bytes]:
    whole = bytearray(base("pt")["twig.pt"])
    directory = whole.find(b"PK\x01\x02")
    entries = [at for at in range(directory, len(whole)) if whole[at : at + 4] == b"PK\x01\x02"]
    kind = int(rng.integers(7))
    if kind == 0:  # all members lie on the first
        for at in entries:
            whole[at + 42 : at + 46] = bytes(4)
    elif kind == 1:  # beyond the end
        struct.pack_into("<I", whole, entries[1] + 42, 2**31)
    elif kind == 2:  # longer than the file
        struct.pack_into("<II", whole, entries[2] + 20, 2**31, 2**31)
    elif kind == 3:  # encrypted, or a compression of nobody's
        struct.pack_into("<HH", whole, entries[0] + 8, int(rng.choice([0, 1])), 0)
        struct.pack_into("<H", whole, entries[0] + 10, int(rng.choice([12, 14, 93, 99])))
    elif kind == 4:  # a checksum of something else
        whole[entries[int(rng.integers(len(entries)))] + 16] ^= 1
    elif kind == 5:
        whole = bytearray(_crowd())
    else:
        names = {"../archive/data.pkl": b"\x80\x02}.", "x" * 60_000: b"", "\x1b[2J/data.pkl": b"N."}
        whole = bytearray(_zip(names))
    return {"twig.pt": bytes(whole)}


def _odd_h5(rng: np.random.Generator) -> dict[str, bytes]:
    whole = io.BytesIO(base("h5-only")["twig.h5"])
    kernel = "twig_conv1/twig_conv1/kernel:0"
    shape = next(iter(_torch_tensors().values())).shape
    with h5py.File(whole, "r+") as file:
        values = file[kernel][()]
        del file[kernel]
        kind = int(rng.integers(16))
        if kind == 0:
            file.create_dataset(kernel, (2**20, 2**20, 2**10), "f4", chunks=(1, 1, 16))
        elif kind == 1:
            file.create_dataset(kernel, values.shape, "f4", fillvalue=np.nan)
        elif kind == 2:
            file[kernel] = h5py.ExternalLink("/etc/passwd", "/x")
        elif kind == 3:
            file[kernel] = h5py.SoftLink(f"/{kernel}")
        elif kind == 4:
            layout = h5py.VirtualLayout(values.shape, "f4")
            layout[:] = h5py.VirtualSource("/etc/hosts", "x", values.shape)
            file.create_virtual_dataset(kernel, layout)
        elif kind == 5:
            file.create_dataset(kernel, shape, h5py.string_dtype(), fillvalue="x" * 999)
        elif kind == 6:
            file.create_dataset(kernel, values.shape, [("a", "f4"), ("b", "i8", (9,))])
        elif kind == 7:
            file.create_dataset(kernel, shape, h5py.ref_dtype)
        elif kind == 8:
            for number in range(12):
                file[f"twig_conv1/{number}"] = file["twig_conv1"]
        elif kind == 9:
            maximum = tuple(None for _ in values.shape)
            file.create_dataset(
                kernel, values.shape, "f4", chunks=(512, 512, 16, 16), maxshape=maximum
            )
        elif kind == 10:
            file.create_dataset(kernel, values.shape, "f4", data=values, chunks=(1, 1, 1, 1))
        elif kind == 11:
            file.create_dataset(kernel, (2**40,), "f4", chunks=(2**20,), compression="gzip")
        elif kind == 12:
            file.attrs["model_config"] = "[" * 60_000
            for number in range(2000):
                file.create_group(f"{'n' * 1500}{number}")
        elif kind == 13:
            file.attrs.create("keras_version", data=np.full(3000, "\x1b" * 20, "S20"))
            file.create_dataset("\x1b]0;title\x07/x\n", data=values)
        elif kind == 14:
            wide = h5py.h5t.IEEE_F32LE.copy()
            wide.set_ebias(1)
            space = h5py.h5s.create_simple(values.shape)
            group = file.require_group(kernel.rpartition("/")[0])
            h5py.h5d.create(group.id, b"kernel:0", wide, space)
        else:
            file.create_dataset(kernel, data=h5py.Empty("f4"))
            file["named"] = np.dtype("f4")
    return {"twig.h5": whole.getvalue()}


def _bombed_h5(rng: np.random.Generator) -> dict[str, bytes]:
    """Chunks whose packed bytes are something else's."""
    content = io.BytesIO()
    with h5py.File(content, "w") as file:
        for path, roles in _by_layer().items():
            for role, values in roles.items():
                dataset = file.create_dataset(
                    f"twig_{path}/twig_{path}/{role}:0",
                    values.shape,
                    "f4",
                    chunks=values.shape,
                    compression=str(rng.choice(["gzip", "lzf"])),
                    shuffle=True,
                )
                packed = _zeros(int(rng.choice([10, 200])) * 2**20, 15)
                raw = packed if rng.random() < 0.5 else rng.bytes(int(rng.integers(1, 5000)))
                # Older HDF5 writes no chunk that is so much larger than what it would hold.
                with contextlib.suppress(OSError):
                    dataset.id.write_direct_chunk((0,) * values.ndim, raw)
    return {"twig.h5": content.getvalue()}


def _odd_safetensors(rng: np.random.Generator) -> dict[str, bytes]:
    plain = dict(variables())
    whole = save(plain, {"radimagenet_jax_contract": CONTRACT.to_json()})
    length = int.from_bytes(whole[:8], "little")
    header: dict[str, Any] = json.loads(whole[8 : 8 + length])
    data = whole[8 + length :]
    names = [name for name in header if name != "__metadata__"]
    text = None
    kind = int(rng.integers(14))
    first = header[names[0]]
    if kind == 0:
        stated = [2**63, 2**64 - 1, 2**40, 100_000_000, length + 10_000][int(rng.integers(5))]
        return {"twig.safetensors": stated.to_bytes(8, "little") + whole[8:]}
    if kind == 1:
        first["data_offsets"] = [2**40, 2**41]
    elif kind == 2:
        first["data_offsets"] = header[names[1]]["data_offsets"]
    elif kind == 3:
        first["shape"] = [2**62, 2**62]
    elif kind == 4:
        first["data_offsets"] = [-1, 2**70]
    elif kind == 5:
        text = b'{"a":' + b"[" * 100_000
    elif kind == 6:
        header["n" * 1_000_000] = header.pop(names[0])
    elif kind == 7:
        text = json.dumps(header).encode()[:-1] + b"," + json.dumps(header).encode()[1:]
    elif kind == 8:
        data += rng.bytes(1000)
    elif kind == 9:
        first["dtype"] = str(rng.choice(["F8_E4M3", "I8", "BOOL", "X", "F16"]))
    elif kind == 10:
        empty = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
        header |= {str(number): empty for number in range(100_000)}
    elif kind == 11:
        contract = json.loads(CONTRACT.to_json())
        field = str(rng.choice(list(contract)))
        odd: list[Any] = [None, [], {}, 10**400, "\ud800", "\x1b[2J", "x" * 100_000, True, 1.0]
        contract[field] = odd[int(rng.integers(len(odd)))]
        header["__metadata__"]["radimagenet_jax_contract"] = json.dumps(contract)
    elif kind == 12:
        header["__metadata__"]["radimagenet_jax_contract"] = str(
            rng.choice(
                ["[" * 900 + "]" * 900, "[" * 100_000, "", "null", '{"format":1,"format":1}']
            )
        )
    else:
        header["\x1b]0;x\x07"] = header.pop(names[0])
    encoded = text or json.dumps(header).encode()
    return {"twig.safetensors": len(encoded).to_bytes(8, "little") + encoded + data}


def _odd_folder(rng: np.random.Generator) -> dict[str, bytes]:
    """A folder of ours with one field of its contract changed, or its text."""
    files = dict(base("folder"))
    name = "twig/contract.json"
    record = json.loads(files[name])
    kind = int(rng.integers(4))
    if kind == 0:
        other = {"sha256": "1" * 64, "channel_order": "RGB", "preprocessing": "torch"}
        other |= {"origin": "elsewhere", "licence": "none", "model_sha256": "2" * 64}
        changed = str(rng.choice(list(other)))
        record[changed] = other[changed]
        files[name] = json.dumps(record).encode()
    elif kind == 1:
        record[str(rng.choice(list(record)))] = ["a", "b"]
        files[name] = json.dumps(record).encode()
    elif kind == 2:
        files[name] = harness.mutated_text(rng, files[name].decode()).encode("utf-8", "replace")
    else:
        files[name] = b"[" * 1_000_000
    return files


CRAFTED = (
    *(_program(_doubling), _program(_deep), _program(_odd_program), _program(_odd_program)),
    *(_one_storage, _bomb, _odd_zip, _odd_h5, _odd_h5, _bombed_h5, _odd_safetensors),
    *(_odd_safetensors, _odd_folder),
)


def _crafted(rng: np.random.Generator, folder: Path) -> Made:
    make = CRAFTED[int(rng.integers(len(CRAFTED)))]
    return Made(_write(folder, make(rng)), is_proof=make is _odd_folder)


def _surface(name: str, make: Callable[[np.random.Generator, Path], Made]) -> harness.Surface:
    return harness.Surface(f"weights-{name}", make, attempt, judge, warm=warm)


SURFACES = (
    _surface("h5-full", _damaged(("h5-full", "h5-lzf"), is_proof=False)),
    _surface("h5-only", _damaged(("h5-only", "h5-gzip"), is_proof=False)),
    _surface("h5-ours", _damaged(("h5-ours",), is_proof=True)),
    _surface("v3-h5", _damaged(("v3-h5",), is_proof=False)),
    _surface("keras-archive", _damaged(("keras",), is_proof=True)),
    _surface("pt", _damaged(("pt", "pt-packed"), is_proof=True)),
    _surface("safetensors", _damaged(("safetensors",), is_proof=True)),
    _surface("folder", _damaged(("folder",), is_proof=True)),
    _surface("crafted", _crafted),
)
