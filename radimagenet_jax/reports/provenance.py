"""What a page and a result say of themselves: of which network, made by what, and not for what.

A figure in medicine is read literally, so each page must be right without the person who made it.
Commands make a record here, write it into their result (`result.json` under `provenance`), and
hand it to their page, whose template includes `provenance.html`.
"""

import itertools
import os
import platform
import re
import shlex
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any, TypedDict

from radimagenet_jax import models, own_files, processor
from radimagenet_jax.data.tasks import TASKS
from radimagenet_jax.errors import ConfigError
from radimagenet_jax.version import __version__
from radimagenet_jax.weights.card import NOT_A_DEVICE
from radimagenet_jax.wording import counted, listed

__all__ = ["NOT_A_DEVICE", "Network", "Provenance"]

# Of the published downstream training; a run with less says so.
PUBLISHED_EPOCHS = 30
PUBLISHED_IMAGE_SIZE = 224
_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")
# Of a run's result; earlier versions did not write it.
_RESULT: Mapping[str, own_files.Form] = {"provenance?": {"smoke": bool, "less": str}}
_PAGE_ARGUMENT = re.compile(r"(?:--config=)?(?:[^:]*\.py|\w+):(.*)", re.DOTALL)


class Network(TypedDict):
    """What a network is, in figures.

    Attributes:
      title: Such as 'ResNet50'.
      parameters: Without the head, as Keras counts them: with the moving statistics.
      published_parameters: Of the published network of that name and variant.
      is_shallow: Whether it has fewer layers than that.
      image_size: Side of its square input, in pixels.
    """

    title: str
    parameters: int
    published_parameters: int
    is_shallow: bool
    image_size: int


class Provenance(TypedDict, total=False):
    """Where figures come from, ready for JSON; every field may be missing.

    Attributes:
      made: Date and time, UTC.
      command: The exact command line.
      smoke: Whether the network is of a smoke run.
      less: In what the training was less than the published one, a sentence; '' for nothing.
      versions: Package to version.
      device: The hardware, in words.
      network: What was trained or applied.
      weights: The contract of the (initial) weights, as JSON gives it; None for scratch.
      weights_remarks: Sentences on how these weights were recognised and what is odd of them.
      dataset: 'name', 'fingerprint' (sha256), 'fingerprint_of' (in words, if not of all that the
        images are), 'terms' ('' where not stated), 'sizes' (split to number of images), 'split' (in
        words).
      trainable: Rows with 'block', 'layers', 'parameters', 'trainable', 'batch_norm'.
      warnings: Sentences that must be read with the figures.
      notice: That this is not a medical device.
    """

    made: str
    command: str
    smoke: bool
    less: str
    versions: Mapping[str, str]
    device: str
    network: Network
    weights: Mapping[str, Any] | None
    weights_remarks: Sequence[str]
    dataset: Mapping[str, Any]
    trainable: Sequence[Mapping[str, Any]]
    warnings: Sequence[str]
    notice: str


def stamp(command: Sequence[str], devices: str = "") -> Provenance:
    """What every record has: when, by which command, with which software, on which hardware.

    Args:
      command: The command line, in parts.
      devices: What JAX computed on, see `devices`; '' for what needs no accelerator.
    """
    return {
        "made": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "command": shlex.join(command),
        "versions": versions(),
        "device": ", ".join(part for part in (devices, _host()) if part),
        "notice": NOT_A_DEVICE,
    }


def is_smoke(command: str) -> bool:
    """Whether a command's config page was asked for a smoke run, as in `configs/covid.py:smoke`."""
    parts = shlex.split(command)
    # The page comes after --config, or in one word with it.
    pages = [part for part in parts if part.startswith("--config=")]
    pages += [after for flag, after in itertools.pairwise(parts) if flag == "--config"]
    found = (_PAGE_ARGUMENT.fullmatch(page) for page in pages)
    given = [each for one in found if one for each in one[1].lower().split(",")]
    return any(each in ("smoke", "smoke=true", "smoke=1") for each in given)


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that a result depends on."""
    return {
        "python": platform.python_version(),
        "radimagenet-jax": __version__,
        **{name: _version(name) for name in _PACKAGES},
    }


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:  # run from a folder, installed by nobody
        return "unknown"


def devices() -> str:
    """What JAX computes on, such as '8 x NVIDIA H100 80GB HBM3'."""
    import jax

    return f"{jax.device_count()} x {jax.devices()[0].device_kind}"


def _host() -> str:
    """The machine's processor, such as '2 cores of AMD EPYC 7R13 (Linux, x86_64)'."""
    system = f"{platform.system()}, {platform.machine()}"
    name = f" of {processor.name()}" if processor.name() else ""
    cores = os.cpu_count() or 1
    return f"{counted(cores, 'CPU core')}{name} ({system})"


def network(model: str, options: Mapping[str, Any], image_size: int) -> Network:
    """Describes a network.

    Args:
      model: A name of `models.names()`.
      options: Fields in which it differs from the published one, as `config.model_options`.
      image_size: Side of its square input, in pixels.
    """
    entry = models.architecture(model)
    # As JSON gives them, sizes are lists, and a module's fields must be hashable.
    fields: dict[str, Any] = {
        name: tuple(each) if isinstance(each, list) else each for name, each in options.items()
    }
    own = entry.size(models.create(model, **fields))
    variant = {name: each for name, each in fields.items() if name == "variant"}
    published = own if fields == variant else entry.size(models.create(model, **variant))
    return {
        "title": entry.title,
        "parameters": own.parameters,
        "published_parameters": published.parameters,
        "is_shallow": own.layers < published.layers,
        "image_size": image_size,
    }


def of_network(module: models.Network, architecture: str, image_size: int) -> Provenance:
    """What a record says of a network that is there already.

    Args:
      module: The network.
      architecture: A name of `models.names()`.
      image_size: Side of its square input, in pixels.
    """
    own = models.architecture(architecture).options
    values = {name: getattr(module, name) for name in own}
    options = {
        name: value for name, value in values.items() if name == "variant" or value != own[name]
    }
    return {"network": network(architecture, options, image_size)}


def of_run(folder: Path) -> Provenance:
    """What a record says of a network that a finished run has trained.

    Args:
      folder: The run's working directory; one that an earlier version wrote says nothing.

    Raises:
      ConfigError: If its result.json is damaged.
    """
    remedy = "train the run again"
    result = own_files.read_json(folder / "result.json", _RESULT, remedy, ConfigError)
    trained = result.get("provenance")
    return {} if trained is None else {"smoke": trained["smoke"], "less": trained["less"]}


def in_words(one: Network) -> str:
    """A network as a title says it.

    The published one is 'ResNet50, 23.6 million parameters, 224 pixels', another such as
    'a shallow ResNet50, 2.0 of 23.6 million parameters, 64 pixels'.
    """
    own, whole = (_millions(one[name]) for name in ("parameters", "published_parameters"))
    size = f"{one['image_size']} pixels"
    if one["parameters"] == one["published_parameters"]:
        return f"{one['title']}, {own} million parameters, {size}"
    if one["parameters"] > one["published_parameters"]:
        return f"a larger {one['title']}, {own} instead of {whole} million parameters, {size}"
    kind = "shallow" if one["is_shallow"] else "narrow"
    return f"a {kind} {one['title']}, {own} of {whole} million parameters, {size}"


def reservations(one: Network, epochs: int, task: str = "") -> list[str]:
    """In what a training is less than the published one, a few words each.

    Args:
      one: The network that is trained.
      epochs: Of the run.
      task: One of the published tasks, whose size of images then counts, or ''.
    """
    found = []
    if one["parameters"] < one["published_parameters"]:
        found.append(f"a {'shallow' if one['is_shallow'] else 'narrow'} network")
    if epochs < PUBLISHED_EPOCHS:
        found.append(f"{epochs} of {PUBLISHED_EPOCHS} epochs")
    size = TASKS[task].image_size if task in TASKS else PUBLISHED_IMAGE_SIZE
    if one["image_size"] < size:
        found.append(f"images of {one['image_size']} instead of {size} pixels")
    return found


SMOKE = "A smoke run shows that the program works; its figures mean nothing."


def less_than_published(found: Sequence[str], smoke: bool) -> str:
    """A sentence of `reservations`; '' where there is nothing to say."""
    if smoke:
        return SMOKE
    if not found:
        return ""
    return f"Less than the published training: {listed(found)}."


def title(record: Provenance) -> str:
    """What stands beside a title: the network, and that it is of a smoke run; '' if not known."""
    if "network" not in record:
        return ""
    return in_words(record["network"]) + (", smoke run" if record.get("smoke") else "")


def training(record: Provenance, epochs: int | None) -> str:
    """The first sentences of a page on a training; '' if the network is not known.

    Args:
      record: Of the run.
      epochs: Of the run, None if not known.
    """
    if "network" not in record:
        return ""
    words = in_words(record["network"])
    said = f"{words[0].upper()}{words[1:]}"
    said += f", trained for {counted(epochs, 'epoch')}" if epochs else ", trained"
    if name := record.get("dataset", {}).get("name"):
        said += f" on {name}"
    if "weights" in record:
        weights = record["weights"]
        began = "random weights" if weights is None else weights.get("origin") or "weights"
        said += f" from {began}"
    return " ".join(filter(None, (f"{said}.", record.get("less", ""))))


def application(record: Provenance, images: str) -> str:
    """The first sentences of a page on a network that was applied; '' if it is not known.

    Args:
      record: Of the page.
      images: To what it was applied, in words.
    """
    if "network" not in record:
        return ""
    words = in_words(record["network"])
    said = f"{words[0].upper()}{words[1:]}, applied to {images}."
    return " ".join(filter(None, (said, record.get("less", ""))))


def weights_rows(
    weights: Mapping[str, Any] | None, remarks: Sequence[str] = ()
) -> list[tuple[str, str]]:
    """What a contract says of weights, name and text each, for a page."""
    if weights is None:
        return [("", "none: random, trained from scratch")]
    rows = [
        (name.replace("_", " "), str(value))
        for name, value in weights.items()
        if value not in (None, "") and name not in ("labels", "format", "layout")
    ]
    return [*rows, *(("remark", remark) for remark in remarks)]


def _millions(parameters: int) -> str:
    millions = parameters / 1e6
    return f"{millions:.1f}" if millions >= 0.95 else f"{millions:.2g}"
