"""PyTorch's names: which tensor of a state dict is which variable of ours.

The names are torchvision's. The released RadImageNet files hold them under
`backbone.` and, since the backbone is a `Sequential` of the network's children, with
the children's numbers in place of their names: `backbone.4.0.conv1.weight` is
`layer1.0.conv1.weight`. Training scripts put other names before them (`module.`, `model.net.`);
whatever stands before a whole network is found, not listed.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from radimagenet_jax import models
from radimagenet_jax.errors import WeightsError
from radimagenet_jax.weights import origins, search
from radimagenet_jax.weights.assembly import (
    Known,
    Named,
    Rule,
    Target,
    expected_shapes,
    features,
    first_of,
)
from radimagenet_jax.weights.opened import Opened, StoredTensor
from radimagenet_jax.weights.request import Request
from radimagenet_jax.weights.search import Place

# What PyTorch calls our leaves; its convolutions are (out, in, height, width).
_LEAVES = {
    "kernel": "weight",
    "scale": "weight",
    "bias": "bias",
    "mean": "running_mean",
    "var": "running_var",
}
_OIHW = (2, 3, 1, 0)
_HEAD = "params/head/"

# Kept by PyTorch for a momentum that is None; it has no part in the features.
_COUNTER = ".num_batches_tracked"

# What torchvision's Inception learns with and does not apply afterwards.
_AUXILIARY = "AuxLogits"

# For the report.
NAMES = "PyTorch's names"


def recognises(opened: Opened) -> bool:
    """Tells PyTorch's names from others: only it has running variances."""
    return any(name.endswith(".running_var") for name in opened.tensors)


def describe(opened: Opened, request: Request) -> Named:
    """Says which network a state dict is of, and where its variables are.

    Args:
      opened: The file.
      request: What it must be.

    Returns:
      The tensors by torchvision's names.

    Raises:
      WeightsError: If it is of no network that has such names.
    """
    if request.architecture and models.architecture(request.architecture).torch is None:
        entry = models.architecture(request.architecture)
        why = "was released for Keras only" if entry.keras_layers() else "has no names in PyTorch"
        raise WeightsError(
            f"{opened.path} is a PyTorch file, and {entry.title} {why}; PyTorch files are read "
            f"for {', '.join(_known())}."
        )
    theirs = {name.rpartition(".")[0] for name in opened.tensors if not name.endswith(_COUNTER)}
    place = search.likeliest(
        opened.path,
        request.architecture,
        _known(),
        lambda entry: _likeness(theirs, entry),
        (
            "PyTorch",
            f"{len(opened.tensors)} tensors, such as {first_of(list(opened.tensors)[:3])}",
            "state dict of one of these networks without its head",
            "the state dict of the one alone",
        ),
    )
    entry = models.architecture(place.architecture)
    names = entry.torch
    assert names is not None
    variant = names.variant
    shapes = expected_shapes(entry.name, variant)
    modules = {names.module(_path(target)) for target in shapes}
    tensors, others, counters = _sources(opened.tensors, place, modules)
    head = search.head(_shapes(others), features(entry.name, variant), "weight", inputs=1)

    def rule(target: Target) -> Rule:
        leaf = target.rpartition("/")[2]
        if target.startswith(_HEAD):
            return Rule(f"{head}.{_LEAVES[leaf]}", target, (1, 0) if leaf == "kernel" else None)
        axes = _OIHW if leaf == "kernel" else None
        return Rule(f"{names.module(_path(target))}.{_LEAVES[leaf]}", target, axes)

    if names.biased_variant is not None:
        # Convolutions with biases: then the weights were Keras' once.
        biases = expected_shapes(entry.name, names.biased_variant).keys() - shapes
        if any(rule(target).source in tensors for target in biases):
            variant = names.biased_variant
    outputs = 0
    if head:
        outputs = others[f"{head}.weight"].shape[0]
        for leaf in ("weight", "bias"):
            tensors[f"{head}.{leaf}"] = others.pop(f"{head}.{leaf}")
    origin = origins.of_torch(
        opened.path.name,
        with_biases=variant == names.biased_variant,
        numbered=re.fullmatch(r"(.*\.)?backbone\.(0\.)?", place.prefix) is not None
        and bool(place.children or place.prefix.endswith(".0.")),
        whole=not (head or others),
    )
    known = Known(entry.name, variant, opened.digest("sha256"), origin)
    notes = tuple(_notes(others, counters))
    return Named(None, tensors, rule, notes=notes, known=known, num_classes=outputs)


def _path(target: Target) -> str:
    """Our layer's name, of a variable's."""
    return target.partition("/")[2].rpartition("/")[0]


def _known() -> list[str]:
    return [name for name in models.names() if models.architecture(name).torch is not None]


def _likeness(theirs: set[str], entry: models.Architecture) -> dict[Place, float]:
    """Returns, by place, the share of a network's modules that a file has, 0 to 1."""
    names = entry.torch
    assert names is not None
    # Keras' table has the paths at no cost.
    paths = {layer.path for layer in entry.keras_layers() if layer.path is not None} or {
        _path(target) for target in expected_shapes(entry.name, names.variant)
    }
    ours = {names.module(path) for path in paths}
    numbered = tuple((number, child) for number, child in names.children.items() if child)
    children = dict(numbered)
    common: Counter[Place] = Counter()
    for module in theirs:
        parts = module.split(".")
        for first in range(len(parts)):
            prefix = "".join(f"{part}." for part in parts[:first])
            if ".".join(parts[first:]) in ours:
                common[Place(entry.name, prefix)] += 1
            child = children.get(parts[first])
            if child and ".".join([child, *parts[first + 1 :]]) in ours:
                common[Place(entry.name, prefix, numbered)] += 1
    return {place: count / len(ours) for place, count in common.items()}


def _source(name: str, place: Place) -> str | None:
    """Torchvision's name of a tensor of the file; None if it is elsewhere."""
    if not name.startswith(place.prefix):
        return None
    source = name.removeprefix(place.prefix)
    if not place.children:
        return source
    child, _, rest = source.partition(".")
    known = dict(place.children).get(child)
    return f"{known}.{rest}" if known else None


def _sources(
    tensors: Mapping[str, StoredTensor], place: Place, modules: set[str]
) -> tuple[dict[str, StoredTensor], dict[str, StoredTensor], int]:
    """Gives a network's tensors torchvision's names.

    Args:
      tensors: The file's.
      place: Where the network is among them.
      modules: The network's, by torchvision's names.

    Returns:
      Those of the network and amid its modules by torchvision's names, the others by the file's,
      and how many counters were left out.
    """
    children = {module.partition(".")[0] for module in modules}
    named: dict[str, StoredTensor] = {}
    others: dict[str, StoredTensor] = {}
    counters = 0
    for name, tensor in tensors.items():
        source = _source(name, place)
        if name.endswith(_COUNTER) and not tensor.shape:
            counters += 1
        elif source is None or source.partition(".")[0] not in children:
            others[name] = tensor
        else:
            # Two spellings of one name must not hide each other: the second is unexpected.
            named[name if source in named else source] = tensor
    return named, others, counters


def _shapes(others: Mapping[str, StoredTensor]) -> dict[str, dict[str, tuple[int, ...]]]:
    """Shapes of what is beside a network by module and leaf, without what only training needs."""
    modules: dict[str, dict[str, tuple[int, ...]]] = {}
    for name, tensor in others.items():
        module, _, leaf = name.rpartition(".")
        if _AUXILIARY not in module.split("."):
            modules.setdefault(module, {})[leaf] = tensor.shape
    return modules


def _notes(others: Mapping[str, StoredTensor], counters: int) -> Iterator[str]:
    if others:
        yield f"Left out, since it is no part of the network: {first_of(_modules(others))}."
    if counters:
        yield f"{counters} counters of batches (num_batches_tracked) were left aside."


def _modules(names: Mapping[str, StoredTensor]) -> Sequence[str]:
    return sorted({name.rpartition(".")[0] or name for name in names})
