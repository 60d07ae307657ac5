"""Reads Keras HDF5 files as named tensors, without trusting anything in them.

Three forms, told apart by their content:

* Keras 2 `model.save`, the form of the released files: root attribute
  `model_config`, tensors in `model_weights/<layer>/<layer>/<kernel:0 ...>`. Keras 3
  writes the same without the ':0' when asked for a '.h5' file.
* Keras 2 `save_weights`: the same layer groups at the root.
* Keras 3 `.weights.h5`, which is also what a '.keras' archive holds:
  `layers/<class>_<count>/vars/<index>`, with the layer's name as an attribute in
  newer versions.

Nothing is evaluated: `model_config` is read as JSON to see which layers it names,
and no function, Lambda or pickle in it is ever decoded. Links and storage outside
the file are refused, since they would read other files of the user's.
"""

import contextlib
import functools
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import h5py
import numpy as np

from radimagenet_jax.errors import WeightsError
from radimagenet_jax.weights import archives
from radimagenet_jax.weights.contract import Contract
from radimagenet_jax.weights.opened import Opened, StoredTensor

SIGNATURE = b"\x89HDF\r\n\x1a\n"

# What a '.keras' archive calls its weights.
ARCHIVE_MEMBER = "model.weights.h5"

# The attribute in which `convert --to=keras_h5` keeps our contract.
CONTRACT_ATTRIBUTE = "radimagenet_jax_contract"

# The deepest released file has 5 levels; a hard link to a parent would never end.
_DEEPEST = 12

# InceptionResNetV2 saved with its optimiser has about 3,000 objects.
_MOST_OBJECTS = 100_000

# Filters built into HDF5 and h5py. Any other is a plug-in loaded from this machine.
_FILTERS = {h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_FLETCHER32}
_FILTERS |= {h5py.h5z.FILTER_SZIP, h5py.h5z.FILTER_LZF, h5py.h5z.FILTER_SCALEOFFSET}

_KERAS_3_VARIABLE = re.compile(
    r"(?:.*/)?(?:layers|_layer_checkpoint_dependencies)/(?P<layer>[^/]+)/vars/(?P<index>\d+)"
)

# Keras 3 numbers a layer's variables in the order in which the layer made them.
_ROLES = {
    "conv2d": {2: ("kernel", "bias"), 1: ("kernel",)},
    "batch_normalization": {
        4: ("gamma", "beta", "moving_mean", "moving_variance"),
        3: ("beta", "moving_mean", "moving_variance"),
    },
}


def recognises(path: Path, start: bytes) -> bool:
    """Tells whether a file is an HDF5 file or a '.keras' archive, by its first bytes."""
    return start.startswith(SIGNATURE) or ARCHIVE_MEMBER in archives.members(path, start)


@contextlib.contextmanager
def opened(path: Path) -> Iterator[Opened]:
    """Opens a Keras file and describes its tensors.

    Args:
      path: An HDF5 file, or a zip archive that holds one.

    Yields:
      The description. Its tensors are read on demand, until the context ends.

    Raises:
      WeightsError: If the file is empty, truncated, damaged, not HDF5, not written
        by Keras, or reaches outside itself; also for damage that shows up while a
        tensor is read within the context.
    """
    with path.open("rb") as start:
        zipped = start.read(len(archives.SIGNATURE)) == archives.SIGNATURE
    if not zipped:
        with _hdf5(str(path), str(path)) as file:
            described = _described(file, path, str(path))
            yield replace(described, form=f"Keras HDF5, {described.form}")
        return
    name = f"{path} ({ARCHIVE_MEMBER})"
    with (
        archives.open_archive(path) as archive,
        archives.unpacked(archive, ARCHIVE_MEMBER) as copy,
        _hdf5(copy, name) as file,
    ):
        yield replace(_described(file, path, name), form="Keras 3 archive")


@contextlib.contextmanager
def _hdf5(source: str | BinaryIO, name: str) -> Iterator[h5py.File]:
    try:
        with h5py.File(source, "r", locking=False) as file:
            yield file
    except (OSError, RuntimeError, KeyError, ValueError, TypeError) as error:
        # What the HDF5 library raises depends on the byte that is wrong.
        reason = " ".join(str(error).split())
        raise WeightsError(
            f"{name} is truncated or damaged and cannot be read as HDF5 ({reason}); get it again "
            "and compare its size and checksum with its source's."
        ) from error


def _described(file: h5py.File, path: Path, name: str) -> Opened:
    datasets = dict(_datasets(file, name))
    stated = _text(file.attrs.get(CONTRACT_ATTRIBUTE))
    contract = None
    if stated is not None:
        contract = Contract.from_json(stated, name=f"the contract in {path}")
    known = functools.partial(Opened, path, scheme="keras", contract=contract)
    numbered = {key: _KERAS_3_VARIABLE.fullmatch(key) for key in datasets}
    if any(numbered.values()):
        tensors, positional = _keras_3_tensors(file, datasets, numbered)
        return known("Keras 3 weights", tensors, keras_version="3", positional=positional)
    root = "model_weights/" if isinstance(file.get("model_weights"), h5py.Group) else ""
    top = file[root] if root else file
    tensors = _keras_2_tensors(datasets, root, _declared(top))
    if not tensors:
        raise WeightsError(
            f"{name} holds no weights of a Keras model (neither 'model_weights' nor layer "
            "groups); give a file written by Keras' save or save_weights."
        )
    versions = [_text(group.attrs.get("keras_version")) for group in (top, file)]
    lambdas, strides = _configured(_text(file.attrs.get("model_config")))
    return known(
        "full save" if root else "weights only",
        tensors,
        keras_version=versions[0] or versions[1] or "",
        lambdas=lambdas,
        strides=strides,
    )


def _datasets(file: h5py.File, name: str) -> Iterator[tuple[str, h5py.Dataset]]:
    """Walks every link of the file itself; refuses what leads out of it."""
    pending: list[tuple[str, h5py.Group]] = [("", file)]
    seen = 0
    while pending:
        prefix, group = pending.pop()
        for key in group:
            path = f"{prefix}{key}"
            seen += 1
            if seen > _MOST_OBJECTS or path.count("/") > _DEEPEST:
                raise WeightsError(
                    f"{name} nests its groups deeper or has more objects than any Keras file "
                    f"(at {path[:80]!r}); get the original file."
                )
            link = group.get(key, getlink=True)
            if not isinstance(link, h5py.HardLink):
                kind = "an external link" if isinstance(link, h5py.ExternalLink) else "a soft link"
                raise WeightsError(
                    f"{name} has {kind} at {path!r}, which can lead to other files, so it is not "
                    "read; get the original file."
                )
            item = group[key]
            if isinstance(item, h5py.Group):
                pending.append((f"{path}/", item))
            elif isinstance(item, h5py.Dataset):
                _refuse_foreign_storage(item, path, name)
                yield path, item
            else:
                raise WeightsError(
                    f"{name} has a named type at {path!r}, which no Keras file has; get the "
                    "original file."
                )


def _refuse_foreign_storage(dataset: h5py.Dataset, path: str, name: str) -> None:
    if dataset.is_virtual or dataset.external:
        kind = "a virtual dataset" if dataset.is_virtual else "external storage"
        raise WeightsError(
            f"{name} has {kind} at {path!r}, whose numbers lie in other files, so it is not read; "
            "get the original file."
        )
    creation = dataset.id.get_create_plist()
    for index in range(creation.get_nfilters()):
        code = creation.get_filter(index)[0]
        if code not in _FILTERS:
            raise WeightsError(
                f"{name} compresses {path!r} with the plug-in filter {code}, which is not loaded; "
                "write the file again without compression."
            )


def _keras_2_tensors(
    datasets: dict[str, h5py.Dataset], root: str, declared: set[str]
) -> dict[str, StoredTensor]:
    """Names `<layer>/<layer>/<variable>:0` by layer; a layer's name may have slashes."""
    tensors: dict[str, StoredTensor] = {}
    for path, dataset in datasets.items():
        if not path.startswith(root):
            continue  # the optimiser's state of a full save
        *parents, variable = path.removeprefix(root).split("/")
        half = len(parents) // 2
        if parents and parents[:half] == parents[half:]:
            layer = "/".join(parents[:half])
        else:
            prefixes = ["/".join(parents[:count]) for count in range(len(parents), 0, -1)]
            layer = next((prefix for prefix in prefixes if prefix in declared), "/".join(parents))
        name = f"{layer}/{variable.removesuffix(':0')}"
        tensors[name] = _stored(dataset, name)
    return tensors


def _keras_3_tensors(
    file: h5py.File,
    datasets: dict[str, h5py.Dataset],
    numbered: dict[str, re.Match[str] | None],
) -> tuple[dict[str, StoredTensor], bool]:
    counted: dict[str, dict[int, h5py.Dataset]] = {}
    named: dict[str, str] = {}
    tensors: dict[str, StoredTensor] = {}
    taken: set[str] = set()
    for path, match in numbered.items():
        if match is None:
            if not path.startswith("optimizer/"):
                taken.add(path)
                tensors[f"{path}/values"] = _stored(datasets[path], path)
            continue
        layer = path[: match.end("layer")]
        counted.setdefault(layer, {})[int(match["index"])] = datasets[path]
        label = _text(file[f"{layer}/vars"].attrs.get("name"))
        named[layer] = label or match["layer"]
    # Layer names are only useful if every layer has its own.
    positional = any(not _text(file[f"{layer}/vars"].attrs.get("name")) for layer in counted)
    for layer, variables in counted.items():
        shown = layer.rsplit("/", 1)[-1] if positional else named[layer]
        if shown in taken:
            shown = layer
        taken.add(shown)
        kind = re.sub(r"_\d+$", "", layer.rsplit("/", 1)[-1])
        roles = _ROLES.get(kind, {}).get(len(variables))
        for rank, index in enumerate(sorted(variables)):
            role = roles[rank] if roles and rank == index else ""
            tensor = _stored(variables[index], f"{shown}/{role or f'vars/{index}'}")
            tensors[f"{shown}/{role or index}"] = tensor
    return tensors, positional


def _stored(dataset: h5py.Dataset, name: str) -> StoredTensor:
    def read() -> np.ndarray:
        values = np.empty(dataset.shape, dataset.dtype)
        if values.size:
            dataset.read_direct(values)
        return values

    return StoredTensor(name, tuple(dataset.shape or ()), dataset.dtype, read)


def _declared(group: h5py.Group) -> set[str]:
    """The layer names that Keras lists, in one attribute or split over several."""
    names: set[str] = set()
    for attribute in group.attrs:
        if re.fullmatch(r"layer_names\d*", attribute):
            for entry in np.asarray(group.attrs[attribute]).ravel():
                names.add(_text(entry) or "")
    return names - {""}


def _configured(model_config: str | None) -> tuple[tuple[str, ...], dict[str, tuple[int, ...]]]:
    """Reads from a model's JSON which layers are Lambdas, and the strides; evaluates nothing."""
    if model_config is None:
        return (), {}
    try:
        pending: list[Any] = [json.loads(model_config)]
    except (ValueError, RecursionError):
        return (), {}  # the weights are read from their groups, with or without a description
    lambdas: list[str] = []
    strides: dict[str, tuple[int, ...]] = {}
    while pending:
        node = pending.pop()
        if isinstance(node, list):
            pending.extend(node)
        elif isinstance(node, dict):
            config = node.get("config")
            if isinstance(config, dict):
                layer = str(config.get("name", node.get("name", "?")))
                if node.get("class_name") == "Lambda":
                    lambdas.append(layer)
                given = config.get("strides")
                if isinstance(given, list) and all(isinstance(step, int) for step in given):
                    strides[layer] = tuple(given)
            pending.extend(node.values())
    return tuple(sorted(lambdas)), strides


def _text(value: Any) -> str | None:
    if isinstance(value, bytes):
        return value.decode("utf-8", errors="replace")
    if isinstance(value, str):
        return str(value)
    return None
