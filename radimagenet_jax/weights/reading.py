"""Reads any weight file that the project knows, told apart by its content.

One way for all: a form opens the file and says what is in it, a naming scheme says which
network that is and where its variables are, and what fits whole is read and described.
A file that does not fit entirely loads nothing.
"""

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from radimagenet_jax import models
from radimagenet_jax.errors import WeightsError
from radimagenet_jax.files import expanded
from radimagenet_jax.weights import (
    archives,
    keras_h5,
    keras_layers,
    native,
    own_names,
    run,
    safetensors_file,
    torch_layers,
    torch_pt,
)
from radimagenet_jax.weights.assembly import Named, assemble, expected_shapes
from radimagenet_jax.weights.loaded import Report, Weights
from radimagenet_jax.weights.opened import Opened
from radimagenet_jax.weights.request import Request


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
    path: str | Path, *, architecture: str | None = None, preprocessing: str | None = None
) -> Weights:
    """Reads a weight file.

    Args:
      path: The file, a converted folder, or the working directory of a run.
      architecture: What the network must be; None recognises it by its layers. A
        stride variant may follow a colon: 'resnet50:v1.5'.
      preprocessing: The input that the weights expect, where the file itself does not
        state it; see `origins` for what is taken otherwise.

    Returns:
      The variables, their contract, and a report.

    Raises:
      WeightsError: In one sentence, if the file cannot be loaded whole, strictly and
        safely, or contradicts an argument.
      ConfigError: If a run's config is damaged, or the run names no classes.
      CheckpointError: If a run has no best network yet, or it is damaged.
    """
    request = Request.of(architecture, preprocessing)
    path = expanded(path)
    with _form(path).opened(path) as opened:
        names = opened.scheme or next(key for key in SCHEMES if SCHEMES[key].recognises(opened))
        named = SCHEMES[names].describe(opened, request)
        contract = named.contract
        request.check(contract, stated=opened.contract is not None)
        shapes = expected_shapes(
            contract.architecture, contract.variant, len(contract.labels or ()), **opened.options
        )
        title = models.architecture(contract.architecture).title
        variables, seen = assemble(named, shapes, file=str(path), title=title)
    form = opened.form if opened.scheme else f"{opened.form} with {SCHEMES[names].NAMES}"
    report = Report(
        file=str(path),
        form=form,
        title=f"{title} {contract.variant}".rstrip(),
        tensors=seen.tensors,
        parameters=seen.parameters,
        notes=named.notes,
        findings=tuple(seen.findings),
    )
    return Weights(variables, contract, report, opened.options, opened.config)


def _form(path: Path) -> Form:
    """Returns the form of a path by its content, or says what it is instead."""
    start = b"" if path.is_dir() else _start(path)
    for form in FORMS:
        if form.recognises(path, start):
            return form
    if path.is_dir():
        raise WeightsError(
            f"{path} is a folder without converted weights ({native.TENSORS} and "
            f"{native.CONTRACT}); give a weight file or a folder that `convert` wrote."
        )
    if start.startswith(archives.SIGNATURE):
        raise WeightsError(
            f"{path} is a zip archive, but neither a '.keras' file nor a PyTorch state dict; "
            "unpack it if it holds a weight file."
        )
    if start.startswith(torch_pt.OLD_SIGNATURE):
        raise WeightsError(
            f"{path} is a bare pickle, as PyTorch wrote before 1.6 or for whole models, which is "
            "never loaded; save it again with a current torch.save(model.state_dict(), ...)."
        )
    if start.lstrip()[:1] == b"<":
        raise WeightsError(
            f"{path} is a web page, not a weight file, as a download from a sharing site often "
            "leaves it; download it with a browser."
        )
    raise WeightsError(
        f"{path} is no weight file that is known: neither Keras ('.h5', '.keras') nor PyTorch "
        "('.pt') nor safetensors; give such a file, whole."
    )


def _start(path: Path) -> bytes:
    """Returns a file's first bytes."""
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
    return start
