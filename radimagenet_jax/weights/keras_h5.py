"""Reads Keras HDF5 files as named tensors, without trusting anything in them.

Three forms, told apart by their content:

* Keras 2 `model.save`, the form of the released files: root attribute
  `model_config`, tensors in `model_weights/<layer>/<layer>/<kernel:0 ...>`. Keras 3
  writes the same without the ':0' when asked for a '.h5' file.
* Keras 2 `save_weights`: the same layer groups at the root.
* Keras 3 `.weights.h5`, which is also what a '.keras' archive holds:
  `layers/<class>_<count>/vars/<index>`, with the layer's name as an attribute in
  newer versions.

`hdf5` reads them in a process of its own, since the HDF5 library can crash on what is damaged.
Nothing is evaluated: `model_config` is read as JSON to see which layers it names,
and no function, Lambda or pickle in it is ever decoded. Links and storage outside
the file are refused, since they would read other files of the user's.
"""

import contextlib
import functools
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from radimagenet_jax.errors import WeightsError
from radimagenet_jax.weights import archives, hdf5, seal
from radimagenet_jax.weights.opened import Opened, StoredTensor, digest
from radimagenet_jax.weights.texts import shown

SIGNATURE = b"\x89HDF\r\n\x1a\n"

# What a '.keras' archive calls its weights.
ARCHIVE_MEMBER = "model.weights.h5"

# The attribute in which `convert --to=keras_h5` keeps our contract.
CONTRACT_ATTRIBUTE = "radimagenet_jax_contract"

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
    digests: dict[str, str] = {}

    def sum_up() -> None:
        digests.update({algorithm: digest(path, algorithm) for algorithm in ("sha256", "md5")})

    with path.open("rb") as start:
        zipped = start.read(len(archives.SIGNATURE)) == archives.SIGNATURE
    if not zipped:
        with path.open("rb") as content, hdf5.opened(content, str(path), sum_up) as file:
            described = _described(file, path, str(path))
            form = f"Keras HDF5, {described.form}"
            yield replace(described, form=form, digests=digests)
        return
    name = f"{path} ({ARCHIVE_MEMBER})"
    with (
        archives.open_archive(path) as archive,
        archives.unpacked(archive, ARCHIVE_MEMBER) as copy,
        hdf5.opened(copy, name, sum_up) as file,
    ):
        yield replace(_described(file, path, name), form="Keras 3 archive", digests=digests)


def _described(file: hdf5.File, path: Path, name: str) -> Opened:
    attributes = file.attributes()
    stated = _text(attributes.get(CONTRACT_ATTRIBUTE))
    known = functools.partial(Opened, path, scheme="keras")
    if stated is not None:
        contract, kept = seal.opened(stated, name=f"the contract in {path}")
        notes = () if kept else (seal.UNSEALED,)
        known = functools.partial(known, contract=contract, seal=kept, notes=notes)
    numbered = {key: _KERAS_3_VARIABLE.fullmatch(key) for key in file.datasets}
    if any(numbered.values()):
        tensors, positional = _keras_3_tensors(file, numbered)
        return known("Keras 3 weights", tensors, keras_version="3", positional=positional)
    root = "model_weights/" if "model_weights" in file.groups else ""
    top = file.attributes(root.removesuffix("/"))
    tensors = _keras_2_tensors(file, root, _declared(top))
    if not tensors:
        raise WeightsError(
            f"{name} holds no weights of a Keras model (neither 'model_weights' nor layer "
            "groups); give a file written by Keras' save or save_weights."
        )
    versions = [_text(each.get("keras_version")) for each in (top, attributes)]
    lambdas, strides = _configured(_text(attributes.get("model_config")))
    return known(
        "full save" if root else "weights only",
        tensors,
        keras_version=shown(versions[0] or versions[1] or "", 40),
        lambdas=lambdas,
        strides=strides,
    )


def _keras_2_tensors(file: hdf5.File, root: str, declared: set[str]) -> dict[str, StoredTensor]:
    """Names `<layer>/<layer>/<variable>:0` by layer; a layer's name may have slashes."""
    tensors: dict[str, StoredTensor] = {}
    for path, dataset in file.datasets.items():
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
        tensors[name] = _stored(file, dataset, name)
    return tensors


def _keras_3_tensors(
    file: hdf5.File,
    numbered: dict[str, re.Match[str] | None],
) -> tuple[dict[str, StoredTensor], bool]:
    counted: dict[str, dict[int, hdf5.Dataset]] = {}
    named: dict[str, str] = {}
    labels: dict[str, str] = {}
    tensors: dict[str, StoredTensor] = {}
    taken: set[str] = set()
    for path, match in numbered.items():
        if match is None:
            if not path.startswith("optimizer/"):
                taken.add(path)
                tensors[f"{path}/values"] = _stored(file, file.datasets[path], path)
            continue
        layer = path[: match.end("layer")]
        counted.setdefault(layer, {})[int(match["index"])] = file.datasets[path]
        labels[layer] = _text(file.attributes(f"{layer}/vars").get("name")) or ""
        named[layer] = labels[layer] or match["layer"]
    # Layer names are only useful if every layer has its own.
    positional = not all(labels.values())
    for layer, variables in counted.items():
        shown = layer.rsplit("/", 1)[-1] if positional else named[layer]
        if shown in taken:
            shown = layer
        taken.add(shown)
        kind = re.sub(r"_\d+$", "", layer.rsplit("/", 1)[-1])
        roles = _ROLES.get(kind, {}).get(len(variables))
        for rank, index in enumerate(sorted(variables)):
            role = roles[rank] if roles and rank == index else ""
            tensor = _stored(file, variables[index], f"{shown}/{role or f'vars/{index}'}")
            tensors[f"{shown}/{role or index}"] = tensor
    return tensors, positional


def _stored(file: hdf5.File, dataset: hdf5.Dataset, name: str) -> StoredTensor:
    return StoredTensor(name, dataset.shape, dataset.dtype, lambda: file.read(dataset))


def _declared(attributes: Mapping[str, str | list[str]]) -> set[str]:
    """The layer names that Keras lists, in one attribute or split over several."""
    names: set[str] = set()
    for attribute, listed in attributes.items():
        if re.fullmatch(r"layer_names\d*", attribute):
            names.update(listed)
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
                if (
                    isinstance(given, list)
                    and len(given) <= 3
                    and all(isinstance(step, int) for step in given)
                ):
                    strides[layer] = tuple(given)
            pending.extend(node.values())
    return tuple(sorted(lambdas)), strides


def _text(value: str | list[str] | None) -> str | None:
    return value if isinstance(value, str) else None
