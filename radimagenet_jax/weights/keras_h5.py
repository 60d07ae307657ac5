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
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from radimagenet_jax.errors import WeightsError, cut
from radimagenet_jax.weights import archives, hdf5, seal
from radimagenet_jax.weights.opened import Opened, StoredTensor, digest

SIGNATURE = b"\x89HDF\r\n\x1a\n"

# What a '.keras' archive calls its weights.
ARCHIVE_MEMBER = "model.weights.h5"

# The attribute in which `convert --to=keras_h5` keeps our contract.
CONTRACT_ATTRIBUTE = "radimagenet_jax_contract"

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
        described = _described(file, path, name)
        version = cut(_written_by(_text_member(archive, _METADATA)), 40)
        lambdas, strides, average_pooled = _configured(_text_member(archive, _CONFIG))
        yield replace(
            described,
            form=f"Keras {version.partition('.')[0]} archive".replace("  ", " "),
            keras_version=version,
            whole_model=True,
            lambdas=lambdas,
            strides=strides,
            average_pooled=average_pooled,
            digests=digests,
        )


def _text_member(archive: zipfile.ZipFile, member: str) -> str | None:
    """The text of a small member; None if there is none."""
    if member not in archive.namelist():
        return None
    content = archives.content(archive, member, _LONGEST_DESCRIPTION)
    return content.decode("utf-8", errors="replace")


def _written_by(metadata: str | None) -> str:
    """The version of Keras in an archive's metadata; '' if it is not told."""
    try:
        record = json.loads(metadata or "null")
    except (ValueError, RecursionError):
        return ""
    version = record.get("keras_version") if isinstance(record, dict) else None
    return version if isinstance(version, str) else ""


def _described(file: hdf5.File, path: Path, name: str) -> Opened:
    attributes = file.attributes()
    stated = _text(attributes.get(CONTRACT_ATTRIBUTE))
    known = functools.partial(Opened, path, scheme="keras")
    if stated is not None:
        known = functools.partial(known, **seal.opened(stated, path))
    numbered = {key: _KERAS_3_VARIABLE.fullmatch(key) for key in file.datasets}
    if any(numbered.values()):
        return _keras_3(file, numbered, known)
    root = "model_weights/" if "model_weights" in file.groups else ""
    top = file.attributes(root.removesuffix("/"))
    tensors = _keras_2_tensors(file, root)
    if not tensors:
        raise WeightsError(
            f"{name} holds no weights of a Keras model (neither 'model_weights' nor layer "
            "groups); give a file written by Keras' save or save_weights."
        )
    versions = [_text(each.get("keras_version")) for each in (top, attributes)]
    description = _text(attributes.get("model_config"))
    lambdas, strides, average_pooled = _configured(description)
    return known(
        "full save" if root else "weights only",
        tensors,
        keras_version=cut(versions[0] or versions[1] or "", 40),
        whole_model=description is not None,
        order={layer: ("", place) for place, layer in enumerate(_declared(top))},
        average_pooled=average_pooled,
        lambdas=lambdas,
        strides=strides,
    )


def _keras_2_tensors(file: hdf5.File, root: str) -> dict[str, StoredTensor]:
    """Names a variable by its layer, and that by the networks in which it is called.

    A layer's group holds the layer's full name once more, `<layer>/<layer>/<variable>:0`, which
    may begin with the network around it: `dense/sequential/dense/kernel`. A network that is
    called as a layer is a group of its layers' names: `resnet50/conv1_conv/kernel:0`.
    """
    tensors: dict[str, StoredTensor] = {}
    for path, dataset in file.datasets.items():
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
        tensors[name] = _stored(file, dataset, name)
    return tensors


def _keras_3(
    file: hdf5.File,
    numbered: dict[str, re.Match[str] | None],
    known: Callable[..., Opened],
) -> Opened:
    """Names the variables of `<places>/<class>_<count>/vars/<index>` by their layers' names."""
    counted: dict[str, dict[int, hdf5.Dataset]] = {}
    tensors: dict[str, StoredTensor] = {}
    passed_over = 0
    for path, match in numbered.items():
        if path.partition("/")[0] in _NO_LAYERS:
            passed_over += 1
        elif match is None:
            tensors[f"{path}/values"] = _stored(file, file.datasets[path], path)
        else:
            counted.setdefault(match["layer"], {})[int(match["index"])] = file.datasets[path]
    labels = {layer: _text(file.attributes(f"{layer}/vars").get("name")) for layer in counted}
    # Layer names are only useful if every layer of a network has its own.
    positional = any(
        not label and re.fullmatch(r"(conv2d|batch_normalization)(_\d+)?", layer.rpartition("/")[2])
        for layer, label in labels.items()
    )
    order: dict[str, tuple[str, int]] = {}
    for layer, variables in counted.items():
        place, _, last = layer.rpartition("/")
        label = last if positional else labels[layer] or last
        name = f"{place}/{label}" if place else label
        if name in order:
            name = layer
        kind = re.sub(r"_\d+$", "", last)
        order[name] = (f"{place}/{kind}", int(last[len(kind) + 1 :] or 0))
        roles = _ROLES.get(kind, {}).get(len(variables))
        for rank, index in enumerate(sorted(variables)):
            role = roles[rank] if roles and rank == index else ""
            tensor = _stored(file, variables[index], f"{label}/{role or f'vars/{index}'}")
            tensors[f"{name}/{role or index}"] = tensor
    notes = (f"{passed_over} variables of the optimiser and the metrics were left aside.",)
    return known(
        "weights",
        tensors,
        positional=positional,
        order=order,
        notes=notes if passed_over else (),
    )


def _stored(file: hdf5.File, dataset: hdf5.Dataset, name: str) -> StoredTensor:
    return StoredTensor(name, dataset.shape, dataset.dtype, lambda: file.read(dataset))


def _declared(attributes: Mapping[str, str | list[str]]) -> list[str]:
    """The layers in Keras' order, as it lists them in one attribute or split over several."""
    found = [re.fullmatch(r"layer_names(\d*)", attribute) for attribute in attributes]
    parts = sorted((int(match[1] or 0), match[0]) for match in found if match)
    return [name for _, attribute in parts for name in attributes[attribute]]


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
                if (
                    isinstance(given, list)
                    and len(given) <= 3
                    and all(isinstance(step, int) for step in given)
                ):
                    strides[layer] = tuple(given)
                # The outermost network has no name in the file's groups either.
                if isinstance(config.get("layers"), list) and node is not outermost:
                    within = f"{within}{layer}/"
            pending.extend((within, each) for each in node.values())
    return tuple(sorted(lambdas)), strides, average_pooled


def _text(value: str | list[str] | None) -> str | None:
    return value if isinstance(value, str) else None
