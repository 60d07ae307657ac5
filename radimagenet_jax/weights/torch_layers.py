"""PyTorch's names: which tensor of a state dict is which variable of ours.

The names are torchvision's. The released RadImageNet files hold them under
`backbone.` and, since the backbone is a `Sequential` of the network's children, with
the children's numbers in place of their names: `backbone.4.0.conv1.weight` is
`layer1.0.conv1.weight`.
"""

from collections.abc import Mapping

from radimagenet_jax import models
from radimagenet_jax.errors import WeightsError
from radimagenet_jax.weights import origins
from radimagenet_jax.weights.assembly import Named, Rule, Target, expected_shapes, listed
from radimagenet_jax.weights.opened import Opened, StoredTensor, digest
from radimagenet_jax.weights.request import Request

# Wrappers that put a network's tensors under a name of theirs.
_WRAPPERS = ("module.", "backbone.")

# What PyTorch calls our leaves; its convolutions are (out, in, height, width).
_LEAVES = {
    "kernel": "weight",
    "scale": "weight",
    "bias": "bias",
    "mean": "running_mean",
    "var": "running_var",
}
_OIHW = (2, 3, 1, 0)

# Kept by PyTorch for a momentum that is None; it has no part in the features.
_COUNTER = ".num_batches_tracked"

# The share of modules that a file has in common with a network of which it can be.
_LIKENESS = 0.5

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
    name = request.architecture or _recognised(opened)
    entry = models.architecture(name)
    names = entry.torch
    if names is None:
        why = "was released for Keras only" if entry.keras_layers() else "has no names in PyTorch"
        raise WeightsError(
            f"{opened.path} is a PyTorch file, and {entry.title} {why}; PyTorch files are read "
            f"for {', '.join(_known())}."
        )
    tensors, counters = _sources(opened.tensors, names)

    def rule(target: Target) -> Rule:
        path, _, leaf = target.partition("/")[2].rpartition("/")
        axes = _OIHW if leaf == "kernel" else None
        return Rule(f"{names.module(path)}.{_LEAVES[leaf]}", target, axes)

    variant = names.variant
    if names.biased_variant is not None:
        # Convolutions with biases: then the weights were Keras' once.
        biases = expected_shapes(name, names.biased_variant).keys() - expected_shapes(name, variant)
        if any(rule(target).source in tensors for target in biases):
            variant = names.biased_variant
    with_biases = variant == names.biased_variant
    origin = origins.of_torch(with_biases=with_biases).stated(request.preprocessing)
    notes = origin.notes
    if counters:
        notes += (f"{counters} counters of batches (num_batches_tracked) were left aside.",)
    contract = origin.contract(name, variant, digest(opened.path, "sha256"))
    return Named(contract, tensors, rule, notes=notes)


def _known() -> list[str]:
    return [name for name in models.names() if models.architecture(name).torch is not None]


def _recognised(opened: Opened) -> str:
    """Returns the network whose names are most like the file's, or says that it is none."""
    scores = {name: _likeness(opened.tensors, models.architecture(name)) for name in _known()}
    best = max(scores, key=lambda name: scores[name])
    if scores[best] < _LIKENESS:
        titles = ", ".join(models.architecture(name).title for name in scores)
        raise WeightsError(
            f"{opened.path} is a PyTorch file of another network than {titles}: it has "
            f"{len(opened.tensors)} tensors, such as {listed(list(opened.tensors)[:3])}; give the "
            "state dict of one of these networks without its head."
        )
    return best


def _likeness(tensors: Mapping[str, StoredTensor], entry: models.Architecture) -> float:
    """Returns the share of modules that a file and a network have in common, 0 to 1."""
    names = entry.torch
    assert names is not None
    # Keras' table has the paths at no cost.
    paths = {layer.path for layer in entry.keras_layers() if layer.path is not None} or {
        target.partition("/")[2].rpartition("/")[0]
        for target in expected_shapes(entry.name, names.variant)
    }
    ours = {names.module(path) for path in paths}
    theirs = {name.rpartition(".")[0] for name in _sources(tensors, names)[0]}
    return len(ours & theirs) / max(1, len(ours | theirs))


def _sources(
    tensors: Mapping[str, StoredTensor], names: models.TorchNames
) -> tuple[dict[str, StoredTensor], int]:
    """Gives tensors torchvision's names, and counts the counters, which are left out."""
    named: dict[str, StoredTensor] = {}
    counters = 0
    prefix = _prefix(tensors)
    for name, tensor in tensors.items():
        if name.endswith(_COUNTER) and not tensor.shape:
            counters += 1
            continue
        source = name.removeprefix(prefix)
        child, _, rest = source.partition(".")
        if child in names.children:
            source = f"{names.children[child]}.{rest}".removeprefix(".")
        # Two spellings of one name must not hide each other: the second is unexpected.
        named[name if source in named else source] = tensor
    return named, counters


def _prefix(tensors: Mapping[str, StoredTensor]) -> str:
    """Returns the wrappers' names that stand before every tensor's."""
    prefix = ""
    while True:
        longer = [
            f"{prefix}{wrapper}"
            for wrapper in _WRAPPERS
            if tensors and all(name.startswith(f"{prefix}{wrapper}") for name in tensors)
        ]
        if not longer:
            return prefix
        prefix = longer[0]
