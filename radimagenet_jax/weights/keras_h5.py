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
import zipfile
from collections.abc import Callable, Iterator
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

_KERAS_3_VARIABLE = re.compile(r"(?P<layer>.+)/vars/(?P<index>\d+)")

# Where Keras 3 and the '.keras' archives of Keras 2 keep what no layer owns.
_NO_LAYERS = (
    *("optimizer", "metrics", "_metrics", "compile_metrics", "_compile_metrics"),
    *("loss_tracker", "_loss_tracker", "compiled_metrics", "compiled_loss"),
)

# Keras 3 numbers a layer's variables in the order in which the layer made them.
_ROLES = {
    "conv2d": {2: ("kernel", "bias"), 1: ("kernel",)},
    "batch_normalization": {
        4: ("gamma", "beta", "moving_mean", "moving_variance"),
        3: ("beta", "moving_mean", "moving_variance"),
    },
    "dense": {2: ("kernel", "bias"), 1: ("kernel",)},
}

# Members of a '.keras' archive beside its weights: who wrote it, and its model.
_METADATA, _CONFIG = "metadata.json", "config.json"

# A description has a few hundred bytes a layer.
_LONGEST_DESCRIPTION = 16 << 20


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
        described = _described(file, path, name)
        version = _written_by(_text_member(archive, _METADATA))
        lambdas, strides, average_pooled = _configured(_text_member(archive, _CONFIG))
        yield replace(
            described,
            form=f"Keras {version.partition('.')[0]} archive".replace("  ", " "),
            keras_version=version,
            whole_model=True,
            lambdas=lambdas,
            strides=strides,
            average_pooled=average_pooled,
        )


def _text_member(archive: zipfile.ZipFile, member: str) -> str | None:
    """The text of a small member; None if there is none."""
    if member not in archive.namelist():
        return None
    with archive.open(member) as packed:
        return packed.read(_LONGEST_DESCRIPTION).decode("utf-8", errors="replace")


def _written_by(metadata: str | None) -> str:
    """The version of Keras in an archive's metadata; '' if it is not told."""
    try:
        record = json.loads(metadata or "null")
    except (ValueError, RecursionError):
        return ""
    version = record.get("keras_version") if isinstance(record, dict) else None
    return version if isinstance(version, str) else ""


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
        return _keras_3(file, datasets, numbered, known)
    root = "model_weights/" if isinstance(file.get("model_weights"), h5py.Group) else ""
    top = file[root] if root else file
    tensors = _keras_2_tensors(datasets, root)
    if not tensors:
        raise WeightsError(
            f"{name} holds no weights of a Keras model (neither 'model_weights' nor layer "
            "groups); give a file written by Keras' save or save_weights."
        )
    versions = [_text(group.attrs.get("keras_version")) for group in (top, file)]
    description = _text(file.attrs.get("model_config"))
    lambdas, strides, average_pooled = _configured(description)
    return known(
        "full save" if root else "weights only",
        tensors,
        keras_version=versions[0] or versions[1] or "",
        whole_model=description is not None,
        order={layer: ("", place) for place, layer in enumerate(_declared(top))},
        average_pooled=average_pooled,
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


def _keras_2_tensors(datasets: dict[str, h5py.Dataset], root: str) -> dict[str, StoredTensor]:
    """Names a variable by its layer, and that by the networks in which it is called.

    A layer's group holds the layer's full name once more, `<layer>/<layer>/<variable>:0`, which
    may begin with the network around it: `dense/sequential/dense/kernel`. A network that is
    called as a layer is a group of its layers' names: `resnet50/conv1_conv/kernel:0`.
    """
    tensors: dict[str, StoredTensor] = {}
    for path, dataset in datasets.items():
        if not path.startswith(root):
            continue  # the optimiser's state of a full save
        *parents, variable = path.removeprefix(root).split("/")
        for repeated in range(len(parents) // 2, 0, -1):
            if parents[:repeated] == parents[-repeated:]:
                parents = parents[repeated:]
                break
        name = "/".join([*parents, variable.removesuffix(":0")])
        if name in tensors:
            name = path
        tensors[name] = _stored(dataset, name)
    return tensors


def _keras_3(
    file: h5py.File,
    datasets: dict[str, h5py.Dataset],
    numbered: dict[str, re.Match[str] | None],
    known: Callable[..., Opened],
) -> Opened:
    """Names the variables of `<places>/<class>_<count>/vars/<index>` by their layers' names."""
    counted: dict[str, dict[int, h5py.Dataset]] = {}
    tensors: dict[str, StoredTensor] = {}
    passed_over = 0
    for path, match in numbered.items():
        if path.partition("/")[0] in _NO_LAYERS:
            passed_over += 1
        elif match is None:
            tensors[f"{path}/values"] = _stored(datasets[path], path)
        else:
            counted.setdefault(match["layer"], {})[int(match["index"])] = datasets[path]
    labels = {layer: _text(file[f"{layer}/vars"].attrs.get("name")) for layer in counted}
    # Layer names are only useful if every layer of a network has its own.
    positional = any(
        not label and re.fullmatch(r"(conv2d|batch_normalization)(_\d+)?", layer.rpartition("/")[2])
        for layer, label in labels.items()
    )
    order: dict[str, tuple[str, int]] = {}
    for layer, variables in counted.items():
        place, _, last = layer.rpartition("/")
        shown = last if positional else labels[layer] or last
        name = f"{place}/{shown}" if place else shown
        if name in order:
            name = layer
        kind = re.sub(r"_\d+$", "", last)
        order[name] = (f"{place}/{kind}", int(last[len(kind) + 1 :] or 0))
        roles = _ROLES.get(kind, {}).get(len(variables))
        for rank, index in enumerate(sorted(variables)):
            role = roles[rank] if roles and rank == index else ""
            tensor = _stored(variables[index], f"{shown}/{role or f'vars/{index}'}")
            tensors[f"{name}/{role or index}"] = tensor
    notes = (f"{passed_over} variables of the optimiser and the metrics were left aside.",)
    return known(
        "weights",
        tensors,
        positional=positional,
        order=order,
        notes=notes if passed_over else (),
    )


def _stored(dataset: h5py.Dataset, name: str) -> StoredTensor:
    def read() -> np.ndarray:
        values = np.empty(dataset.shape, dataset.dtype)
        if values.size:
            dataset.read_direct(values)
        return values

    return StoredTensor(name, tuple(dataset.shape or ()), dataset.dtype, read)


def _declared(group: h5py.Group) -> list[str]:
    """The layers in Keras' order, as it lists them in one attribute or split over several."""
    found = [re.fullmatch(r"layer_names(\d*)", attribute) for attribute in group.attrs]
    parts = sorted((int(match[1] or 0), match[0]) for match in found if match)
    return [
        _text(entry) or ""
        for _, attribute in parts
        for entry in np.asarray(group.attrs[attribute]).ravel()
    ]


def _configured(
    model_config: str | None,
) -> tuple[tuple[str, ...], dict[str, tuple[int, ...]], bool]:
    """Reads a model's JSON; evaluates nothing.

    Returns:
      Its Lambda layers, each after the networks around it; the strides by layer; and whether what
      stands before a head can be the average over the image.
    """
    if model_config is None:
        return (), {}, True
    try:
        pending: list[tuple[str, Any]] = [("", json.loads(model_config))]
    except (ValueError, RecursionError):
        return (), {}, True  # the weights are read from their groups, described or not
    outermost = pending[0][1]
    lambdas: list[str] = []
    strides: dict[str, tuple[int, ...]] = {}
    average_pooled = True
    while pending:
        within, node = pending.pop()
        if isinstance(node, list):
            pending.extend((within, each) for each in node)
        elif isinstance(node, dict):
            kind, config = node.get("class_name"), node.get("config")
            if kind in ("GlobalMaxPooling2D", "Flatten"):
                average_pooled = False
            if isinstance(config, dict):
                layer = str(config.get("name", node.get("name", "?")))
                if kind == "Lambda":
                    lambdas.append(within + layer)
                given = config.get("strides")
                if isinstance(given, list) and all(isinstance(step, int) for step in given):
                    strides[layer] = tuple(given)
                # The outermost network has no name in the file's groups either.
                if isinstance(config.get("layers"), list) and node is not outermost:
                    within = f"{within}{layer}/"
            pending.extend((within, each) for each in node.values())
    return tuple(sorted(lambdas)), strides, average_pooled


def _text(value: Any) -> str | None:
    if isinstance(value, bytes):
        return value.decode("utf-8", errors="replace")
    if isinstance(value, str):
        return str(value)
    return None
