"""Reads any weight file that the project knows, told apart by its content.

One entry, `read`: it looks at the first bytes, lets the reader of that form
describe the tensors, maps them to the network's, checks everything, and returns
the variables with their contract. A file that does not fit entirely loads nothing.
"""

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

from radimagenet_jax import models
from radimagenet_jax.errors import WeightsError
from radimagenet_jax.weights import (
    archives,
    keras_h5,
    keras_layers,
    native,
    origins,
    torch_layers,
    torch_pt,
)
from radimagenet_jax.weights.assembly import StoredTensor, assemble, expected_shapes
from radimagenet_jax.weights.audit import Audit
from radimagenet_jax.weights.contract import (
    PREPROCESSINGS,
    Contract,
    check_architecture,
    check_preprocessing,
)
from radimagenet_jax.weights.loaded import Digests, Report, Weights

# Keras 2 wrote InceptionResNetV2's residual scale as Lambda layers, which hold Python
# bytecode. The scale is a constant of the architecture: they are never decoded.
_KNOWN_LAMBDAS = {"inception_resnet_v2": re.compile(r"block(35|17|8)_\d+")}


def read(
    path: str | Path, *, architecture: str | None = None, preprocessing: str | None = None
) -> Weights:
    """Reads a weight file.

    Args:
      path: The file.
      architecture: What the network must be; None recognises it by its layers. A
        stride variant may follow a colon: 'resnet50:v1.5'.
      preprocessing: The input that the weights expect, where the file itself does not
        state it; see `origins` for what is taken otherwise.

    Returns:
      The variables, their contract, and a report.

    Raises:
      WeightsError: In one sentence, if the file cannot be loaded whole, strictly and
        safely, or contradicts an argument.
    """
    path = Path(path)
    wanted, _, variant = (architecture or "").partition(":")
    _check_request(wanted, variant, preprocessing)
    if path.is_dir():
        weights = _read_converted(path, preprocessing)
    else:
        weights = _READERS[_form(path)](path, wanted or None, preprocessing)
    if wanted:
        check_architecture(weights.contract, wanted, variant)
    return weights


def _check_request(architecture: str, variant: str, preprocessing: str | None) -> None:
    if architecture and architecture not in models.names():
        raise WeightsError(
            f"there is no architecture {architecture!r}; choose one of {', '.join(models.names())}."
        )
    if variant and variant not in models.architecture(architecture).variants:
        offered = ", ".join(models.architecture(architecture).variants) or "no variants"
        raise WeightsError(f"{architecture} has {offered}, not {variant!r}; correct the name.")
    if preprocessing is not None and preprocessing not in PREPROCESSINGS:
        raise WeightsError(
            f"there is no preprocessing {preprocessing!r}; choose one of "
            f"{', '.join(PREPROCESSINGS)}."
        )


def _form(path: Path) -> str:
    """Returns the form of a file by its first bytes, or says what it is instead."""
    try:
        with path.open("rb") as file:
            start = file.read(512)
    except FileNotFoundError as error:
        raise WeightsError(
            f"there is no weight file {path}; correct the path, or get RadImageNet's files from "
            "the links of https://github.com/BMEII-AI/RadImageNet."
        ) from error
    except OSError as error:
        raise WeightsError(f"{path} cannot be read ({error.strerror}); check the path.") from error
    if not start:
        raise WeightsError(f"{path} is empty; get it again.")
    if start.startswith(keras_h5.SIGNATURE):
        return "hdf5"
    if start.startswith(archives.SIGNATURE):
        return "zip"
    if start.startswith(torch_pt.OLD_SIGNATURE):
        raise WeightsError(
            f"{path} is a bare pickle, as PyTorch wrote before 1.6 or for whole models, which is "
            "never loaded; save it again with a current torch.save(model.state_dict(), ...)."
        )
    if start[8:9] == b"{":  # behind the length of the header
        return "safetensors"
    if start.lstrip()[:1] == b"<":
        raise WeightsError(
            f"{path} is a web page, not a weight file, as a download from a sharing site often "
            "leaves it; download it with a browser."
        )
    raise WeightsError(
        f"{path} is no weight file that is known: neither Keras ('.h5', '.keras') nor PyTorch "
        "('.pt') nor safetensors; give such a file, whole."
    )


def _read_keras(path: Path, wanted: str | None, preprocessing: str | None) -> Weights:
    file = str(path)
    with keras_h5.open_keras_h5(file, file) as keras:
        return keras_weights(
            keras,
            file,
            f"Keras HDF5, {keras.form}",
            Digests.of(path),
            wanted=wanted,
            preprocessing=preprocessing,
        )


def _read_zip(path: Path, wanted: str | None, preprocessing: str | None) -> Weights:
    with archives.open_archive(path) as archive:
        members = archive.namelist()
        if keras_h5.ARCHIVE_MEMBER in members:
            with archives.unpacked(archive, keras_h5.ARCHIVE_MEMBER) as copy:
                return _read_keras_stream(copy, path, wanted, preprocessing)
    if any(member.endswith("/data.pkl") for member in members):
        return _read_torch(path, wanted, preprocessing)
    raise WeightsError(
        f"{path} is a zip archive, but neither a '.keras' file nor a PyTorch state dict; unpack it "
        "if it holds a weight file."
    )


def _read_keras_stream(
    stream: BinaryIO, path: Path, wanted: str | None, preprocessing: str | None
) -> Weights:
    name = f"{path} ({keras_h5.ARCHIVE_MEMBER})"
    with keras_h5.open_keras_h5(stream, name) as keras:
        return keras_weights(
            keras,
            str(path),
            "Keras 3 archive",
            Digests.of(path),
            wanted=wanted,
            preprocessing=preprocessing,
        )


def _read_torch(path: Path, wanted: str | None, preprocessing: str | None) -> Weights:
    with torch_pt.open_torch(path) as tensors:
        return torch_weights(
            tensors,
            str(path),
            "PyTorch state dict",
            Digests.of(path).sha256,
            wanted=wanted,
            preprocessing=preprocessing,
        )


def torch_weights(
    tensors: Mapping[str, StoredTensor],
    file: str,
    form: str,
    sha256: str,
    *,
    wanted: str | None,
    preprocessing: str | None,
) -> Weights:
    """Maps, checks and reads tensors with PyTorch's names.

    Args:
      tensors: By their names in the file.
      file: What to call it.
      form: Its form, for the report.
      sha256: Of the file.
      wanted: The architecture that it must be, or None.
      preprocessing: The user's word on its input, or None.

    Returns:
      The weights.

    Raises:
      WeightsError: If they do not fit.
    """
    name = wanted or torch_layers.recognise(tensors, file=file)
    if name not in torch_layers.VARIANTS:
        raise WeightsError(
            f"{file} is a PyTorch file, and {models.architecture(name).title} was released for "
            f"Keras only; PyTorch files are read for {', '.join(torch_layers.VARIANTS)}."
        )
    entry = models.architecture(name)
    with_biases = name == "resnet50" and torch_layers.has_biases(tensors)
    variant = entry.variants[0] if with_biases else torch_layers.VARIANTS[name]
    shapes = expected_shapes(name, variant)
    named, counters = torch_layers.sources(tensors, name)
    audit = Audit()
    variables = assemble(
        named,
        torch_layers.rules(name, shapes),
        shapes,
        file=file,
        title=entry.title,
        audit=audit,
    )
    origin = origins.stated(origins.of_torch(with_biases=with_biases), preprocessing)
    contract = _contract(name, variant, origin, sha256)
    notes = [origin.assumption] if origin.assumption else []
    if counters:
        notes.append(f"{counters} counters of batches (num_batches_tracked) were left aside.")
    return Weights(variables, contract, Report.of(file, form, contract, audit, notes))


def _contract(name: str, variant: str, origin: origins.Origin, sha256: str) -> Contract:
    return Contract(
        architecture=name,
        variant=variant,
        preprocessing=origin.preprocessing,
        channel_order=origin.channel_order,
        origin=origin.title,
        licence=origin.licence,
        sha256=sha256,
    )


def _read_converted(folder: Path, preprocessing: str | None) -> Weights:
    if not native.is_converted(folder):
        raise WeightsError(
            f"{folder} is a folder without converted weights ({native.TENSORS} and "
            f"{native.CONTRACT}); give a weight file or a folder that `convert` wrote."
        )
    contract = native.read_contract(folder)
    with native.open_safetensors(folder / native.TENSORS) as file:
        return _of_our_names(file, str(folder), "converted folder", contract, preprocessing)


def _read_safetensors(path: Path, wanted: str | None, preprocessing: str | None) -> Weights:
    with native.open_safetensors(path) as file:
        if file.contract is None and torch_layers.is_torch(file.tensors):
            return torch_weights(
                file.tensors,
                str(path),
                "safetensors with PyTorch's names",
                Digests.of(path).sha256,
                wanted=wanted,
                preprocessing=preprocessing,
            )
        if file.contract is None:
            layers: dict[str, dict[str, StoredTensor]] = {}
            for name, tensor in file.tensors.items():
                layer, _, role = name.removesuffix(":0").rpartition("/")
                layers.setdefault(layer, {})[role] = tensor
            return keras_weights(
                keras_h5.KerasFile(form="safetensors", keras_version="", layers=layers),
                str(path),
                "safetensors with Keras' names",
                Digests.of(path),
                wanted=wanted,
                preprocessing=preprocessing,
            )
        contract = Contract.from_json(file.contract, name=f"the contract in {path}")
        return _of_our_names(file, str(path), "safetensors", contract, preprocessing)


def _of_our_names(
    file: native.SafetensorsFile,
    name: str,
    form: str,
    contract: Contract,
    preprocessing: str | None,
) -> Weights:
    entry = _known_architecture(contract, name)
    if preprocessing is not None:
        check_preprocessing(contract, preprocessing, allow_mismatch=False)
    shapes = expected_shapes(contract.architecture, contract.variant, len(contract.labels or ()))
    audit = Audit()
    variables = assemble(
        file.tensors, native.rules(shapes), shapes, file=name, title=entry.title, audit=audit
    )
    return Weights(
        variables, contract, Report.of(name, form, contract, audit, [f"From {contract.origin}."])
    )


def _known_architecture(contract: Contract, name: str) -> models.Architecture:
    if contract.architecture not in models.names():
        raise WeightsError(
            f"{name} is of the architecture {contract.architecture!r}, which this version of "
            f"radimagenet_jax does not have; it has {', '.join(models.names())}."
        )
    entry = models.architecture(contract.architecture)
    if contract.variant not in (entry.variants or ("",)):
        raise WeightsError(
            f"{name} is of the variant {contract.variant!r}, which {entry.title} does not have; "
            "convert the original weight file again."
        )
    return entry


def keras_weights(
    keras: keras_h5.KerasFile,
    file: str,
    form: str,
    digests: Digests,
    *,
    wanted: str | None,
    preprocessing: str | None,
) -> Weights:
    """Maps, checks and reads an open Keras file.

    Args:
      keras: Its description.
      file: What to call it.
      form: Its form, for the report.
      digests: Of the file.
      wanted: The architecture that it must be, or None.
      preprocessing: The user's word on its input, or None.

    Returns:
      The weights.

    Raises:
      WeightsError: If it does not fit.
    """
    name = wanted or keras_layers.recognise(keras.layers, positional=keras.positional, file=file)
    entry = models.architecture(name)
    _refuse_lambdas(keras, name, entry.title, file)
    variant = entry.variants[0]
    _refuse_other_strides(keras, name, file)
    stated = None
    if keras.contract is not None:
        stated = Contract.from_json(keras.contract, name=f"the contract in {file}")
        check_architecture(stated, name, variant)
        if preprocessing is not None:
            check_preprocessing(stated, preprocessing, allow_mismatch=False)
    labels = stated.labels if stated else None
    table = entry.keras_layers() + ((keras_layers.HEAD,) if labels else ())
    shapes = expected_shapes(name, variant, len(labels or ()))
    tensors, problems = keras_layers.sources(keras.layers, table, positional=keras.positional)
    audit = Audit()
    variables = assemble(
        tensors,
        keras_layers.rules(table, shapes),
        shapes,
        file=file,
        title=entry.title,
        audit=audit,
        further_problems=problems,
    )
    notes = []
    if keras.lambdas:
        notes.append(f"{len(keras.lambdas)} Lambda layers were left undecoded.")
    if stated is not None:
        contract = replace(stated, sha256=digests.sha256)
    else:
        origin = origins.stated(
            origins.of_keras(
                name,
                file_name=Path(file).name,
                md5=digests.md5,
                sha256=digests.sha256,
                keras_version=keras.keras_version,
            ),
            preprocessing,
        )
        if origin.assumption:
            notes.append(origin.assumption)
        contract = _contract(name, variant, origin, digests.sha256)
    return Weights(variables, contract, Report.of(file, form, contract, audit, notes))


def _refuse_lambdas(keras: keras_h5.KerasFile, name: str, title: str, file: str) -> None:
    known = _KNOWN_LAMBDAS.get(name)
    strange = [layer for layer in keras.lambdas if not (known and known.fullmatch(layer))]
    if strange:
        raise WeightsError(
            f"{file} has a Lambda layer {strange[0]!r}, which is Python code that no {title} has "
            "and that is never run here; give the weights of the plain network."
        )


def _refuse_other_strides(keras: keras_h5.KerasFile, name: str, file: str) -> None:
    """Refuses a Keras ResNet50 whose own description puts the strides elsewhere."""
    if name != "resnet50":
        return
    for stage in (3, 4, 5):
        given = keras.strides.get(f"conv{stage}_block1_1_conv")
        if given not in (None, (2, 2)):
            raise WeightsError(
                f"{file} describes a ResNet50 whose strides are not Keras' (v1): "
                f"conv{stage}_block1_1_conv has {given} instead of (2, 2); its features would be "
                "silently wrong, so give a v1 file."
            )


_READERS = {"hdf5": _read_keras, "zip": _read_zip, "safetensors": _read_safetensors}
