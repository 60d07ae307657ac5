"""Reads any weight file that the project knows, told apart by its content.

One way for all: a form opens the file and says what is in it, a naming scheme says which
network that is and where its variables are, and what fits whole is read and described.
A file that does not fit entirely loads nothing.
"""

import re
from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import NoReturn, Protocol

from radimagenet_jax import models
from radimagenet_jax.errors import WeightsError
from radimagenet_jax.files import expanded
from radimagenet_jax.weights import (
    archives,
    hub,
    keras_h5,
    keras_layers,
    native,
    own_names,
    run,
    safetensors_file,
    torch_layers,
    torch_pt,
)
from radimagenet_jax.weights.assembly import HALVES, Named, assemble, expected_shapes
from radimagenet_jax.weights.contract import Contract
from radimagenet_jax.weights.loaded import Report, Weights
from radimagenet_jax.weights.opened import Opened
from radimagenet_jax.weights.request import Request
from radimagenet_jax.weights.seal import Seal, verify
from radimagenet_jax.wording import counted

_TF_CHECKPOINT = (
    "a TensorFlow checkpoint, which says nothing of the network; build the network in Keras, call "
    "model.load_weights(...) on it and save it with model.save_weights('weights.h5')."
)


class Form(Protocol):
    """A module that knows one form of weight files."""

    def recognises(self, path: Path, start: bytes) -> bool:
        """Tells whether a path is of this form; `start`: its first bytes, b'' of a folder."""

    def opened(self, path: Path) -> AbstractContextManager[Opened]:
        """Opens it; what is wrong with it is a `WeightsError`."""


class Scheme(Protocol):
    """A module that knows one way to name a network's tensors."""

    NAMES: str

    def recognises(self, opened: Opened) -> bool:
        """Tells whether the tensors have these names, of a form that leaves it open."""

    def describe(self, opened: Opened, request: Request) -> Named:
        """Says what they are and where they go; no such network is a `WeightsError`."""


FORMS: tuple[Form, ...] = (native, run, keras_h5, torch_pt, safetensors_file)

# The first that recognises a file's names has it; Keras' takes all that are left.
SCHEMES: dict[str, Scheme] = {"own": own_names, "torch": torch_layers, "keras": keras_layers}


def read(
    path: str | Path,
    *,
    architecture: str | None = None,
    preprocessing: str | None = None,
    unless_told: str | None = None,
) -> Weights:
    """Reads a weight file.

    Args:
      path: The file, a converted folder, the working directory of a run, or an address on the Hub,
        see `hub.fetch`.
      architecture: What the network must be; None recognises it by its layers. A
        stride variant may follow a colon: 'resnet50:v1.5'.
      preprocessing: The input that the weights expect, where no contract states it; it overrules
        what `origins` takes from other signs.
      unless_told: The input where neither a contract nor another sign tells it.

    Returns:
      The variables, their contract, and a report.

    Raises:
      WeightsError: In one sentence, if the file cannot be loaded whole, strictly and
        safely, contradicts an argument, or nobody says which input it expects.
      ConfigError: If a run's config is damaged, or the run names no classes.
      CheckpointError: If a run has no best network yet, or it is damaged.
    """
    request = Request.of(architecture, preprocessing, unless_told)
    fetched = hub.fetch(path) if hub.is_address(path) else None
    path = fetched.path if fetched else expanded(path)
    called = fetched.address if fetched else str(path)
    with _form(path).opened(path) as opened:
        names = opened.scheme or next(key for key in SCHEMES if SCHEMES[key].recognises(opened))
        named = SCHEMES[names].describe(opened, request)
        request.check(named)
        name, variant = named.network.architecture, named.network.variant
        labels = named.contract.labels if named.contract else None
        classes = len(labels or ()) or named.num_classes
        shapes = expected_shapes(name, variant, classes, **opened.options)
        title = models.architecture(name).title
        seal = Seal(opened.contract) if opened.contract and opened.seal else None
        variables, seen = assemble(named, shapes, file=called, title=title, seal=seal)
        if seal is not None and opened.seal is not None:
            verify(seal, opened.seal, called)
    # Last, so that a damaged file is called so before anybody has to look for its input.
    contract, told = request.settled(named, file=called)
    if fetched:
        # A config says itself which input it gives, and is compared with the file's signs.
        if told == "evidence" and unless_told is None:
            _require_more_than_signs(named, called)
        contract = replace(
            contract,
            origin=f"{contract.origin}; from {called}",
            licence=f"On the Hub: {fetched.licence or 'none stated'}. {contract.licence}",
        )
    form = opened.form if opened.scheme else f"{opened.form} with {SCHEMES[names].NAMES}"
    brought = fetched.notes if fetched else ()
    report = Report(
        file=called,
        form=form,
        title=f"{title} {variant}".rstrip(),
        tensors=seen.tensors,
        parameters=seen.parameters,
        notes=(*_notes(named, contract, told), *named.notes, *opened.notes, *brought),
        findings=tuple(seen.findings),
    )
    return Weights(
        variables,
        contract,
        report,
        opened.options,
        opened.config,
        classes or None,
        opened.usage,
    )


def _require_more_than_signs(named: Named, file: str) -> None:
    """Refuses to tell the input of a file that anybody may have put on the Hub by its name."""
    if named.known is not None and named.known.source.evidence:
        raise WeightsError(
            f"{file} has no contract, and only its name or form speaks of its input "
            f"({named.known.source.preprocessing!r}); ask its owner, and say it with "
            "preprocessing=NAME in Python or --preprocessing=NAME."
        )


def _notes(named: Named, contract: Contract, told: str) -> Iterator[str]:
    """What a report says of a file without a contract: its input, its head, its precision."""
    if told == "evidence" and named.known is not None and named.known.source.evidence:
        yield named.known.source.evidence
    elif told == "user":
        yield f"Its input is taken as {contract.preprocessing!r}, as you say."
    if named.num_classes:
        classes = counted(named.num_classes, "class", "classes")
        yield f"It has a head of {classes}, whose names the file does not state."
    halves = Counter(tensor.dtype.name for tensor in named.tensors.values())
    for name in HALVES:
        if halves[name]:
            yield f"{halves[name]} tensors were {name} and are float32 now."


def _form(path: Path) -> Form:
    """Returns the form of a path by its content, or says what it is instead."""
    start = b"" if path.is_dir() else _start(path)
    for form in FORMS:
        if form.recognises(path, start):
            return form
    if path.is_dir():
        _refuse_folder(path)
    if start.startswith(archives.SIGNATURE):
        raise WeightsError(
            f"{path} is a zip archive, but neither a '.keras' file nor a PyTorch state dict; "
            "unpack it if it holds a weight file."
        )
    if re.match(rb"\x80[\x02-\x05]", start):
        raise WeightsError(
            f"{path} is a bare pickle, as PyTorch wrote before 1.6 or for whole models, which is "
            "never loaded; read it where it was made and save it again with a current "
            "torch.save(model.state_dict(), 'weights.pt'), or, if it is a dict of arrays, with "
            "safetensors.numpy.save_file."
        )
    if start.lstrip()[:1] == b"<":
        raise WeightsError(
            f"{path} is a web page, not a weight file, as a download from a sharing site often "
            "leaves it; download it with a browser."
        )
    if path.suffix == ".index" or re.search(r"\.data-\d+-of-\d+$", path.name):
        raise WeightsError(f"{path} is a part of {_TF_CHECKPOINT}")
    raise WeightsError(
        f"{path} is no weight file that is known: neither Keras ('.h5', '.keras') nor PyTorch "
        "('.pt') nor safetensors; give such a file, whole."
    )


def _refuse_folder(path: Path) -> NoReturn:
    """Says what a folder without weights is, and how to convert it if it is TensorFlow's."""
    if any((path / name).is_file() for name in ("saved_model.pb", "saved_model.pbtxt")):
        raise WeightsError(
            f"{path} is a SavedModel of TensorFlow, which holds code; convert it where TensorFlow "
            f"is: tf.keras.models.load_model({str(path)!r}).save('weights.h5')."
        )
    if (path / "checkpoint").is_file() or any(path.glob("*.index")):
        raise WeightsError(f"{path} is a folder of {_TF_CHECKPOINT}")
    raise WeightsError(
        f"{path} is a folder without converted weights ({native.TENSORS} and "
        f"{native.CONTRACT}); give a weight file or a folder that `convert` wrote."
    )


def _start(path: Path) -> bytes:
    """Returns a file's first bytes."""
    if path.exists() and not path.is_file():
        raise WeightsError(f"{path} is neither a file nor a folder; give a weight file.")
    try:
        with path.open("rb") as file:
            start = file.read(512)
    except FileNotFoundError as error:
        if path.with_name(f"{path.name}.index").is_file():
            raise WeightsError(f"{path} is {_TF_CHECKPOINT}") from error
        raise WeightsError(
            f"there is no weight file {path}; correct the path, or get RadImageNet's files from "
            "the links of https://github.com/BMEII-AI/RadImageNet."
        ) from error
    except OSError as error:
        raise WeightsError(f"{path} cannot be read ({error.strerror}); check the path.") from error
    if not start:
        raise WeightsError(f"{path} is empty; get it again.")
    return start
