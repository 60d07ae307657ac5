"""Keras' names: which layer of a file is which layer of ours.

The table is the architecture's own list of Keras layers. Names are compared after
'/' is written as '_', which is what Keras 3 did to DenseNet's. Automatic names
('conv2d_117') count from wherever the process that saved the file happened to be;
only their order is meaningful: it is the order in which the layers were made.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from radimagenet_jax import models
from radimagenet_jax.errors import WeightsError
from radimagenet_jax.models import KerasLayer
from radimagenet_jax.weights import origins
from radimagenet_jax.weights.assembly import Named, Rule, Target, listed
from radimagenet_jax.weights.contract import check_architecture
from radimagenet_jax.weights.opened import Opened, StoredTensor
from radimagenet_jax.weights.request import Request

_AUTOMATIC = re.compile(r"(?P<kind>conv2d|batch_normalization)(?:_v\d)?(?:_(?P<count>\d+))?")

# What Keras calls the leaves of ours, by kind of layer.
_ROLES = {
    ("conv", "kernel"): "kernel",
    ("conv", "bias"): "bias",
    ("batch_norm", "scale"): "gamma",
    ("batch_norm", "bias"): "beta",
    ("batch_norm", "mean"): "moving_mean",
    ("batch_norm", "var"): "moving_variance",
    ("dense", "kernel"): "kernel",
    ("dense", "bias"): "bias",
}

# What keras.applications call the classifier on top; only files of ours may have it.
HEAD = KerasLayer("predictions", "head", "dense")

# The order in which a Keras layer keeps its variables.
ROLE_ORDER = ("kernel", "bias", "gamma", "beta", "moving_mean", "moving_variance")

# Of all names of a file and a network, how many must be common before a mismatch
# is reported as a damaged file of that network, rather than as a strange file.
_LIKENESS = 0.5

# For the report.
NAMES = "Keras' names"

Layers = Mapping[str, Mapping[str, StoredTensor]]


def recognises(opened: Opened) -> bool:
    """Tells Keras' names from others: what is nobody else's is held against Keras' networks."""
    del opened
    return True


def describe(opened: Opened, request: Request) -> Named:
    """Says which network a Keras file is of, and where its variables are.

    Args:
      opened: The file.
      request: What it must be.

    Returns:
      The tensors by Keras 3's layer names and their roles.

    Raises:
      WeightsError: If it is of no network that Keras has, or of one that computes otherwise.
    """
    layers: dict[str, dict[str, StoredTensor]] = {}
    for source, tensor in opened.tensors.items():
        layer, _, role = source.removesuffix(":0").rpartition("/")
        layers.setdefault(layer, {})[role] = tensor
    name = request.architecture or _recognised(layers, opened)
    entry = models.architecture(name)
    _refuse_other_networks(opened, entry)
    variant, stated = entry.variants[0], opened.contract
    if stated is not None:
        check_architecture(stated, name, variant)
    rows = table(entry, with_head=stated is not None and stated.labels is not None)
    tensors, problems = _sources(layers, rows, positional=opened.positional)
    notes: tuple[str, ...] = ()
    if opened.lambdas:
        notes = (f"{len(opened.lambdas)} Lambda layers were left undecoded.",)
    sha256 = opened.digest("sha256")
    if stated is not None:
        contract = replace(stated, sha256=sha256)
    else:
        origin = origins.of_keras(
            name,
            file_name=opened.path.name,
            md5=opened.digest("md5"),
            sha256=sha256,
            keras_version=opened.keras_version,
        ).stated(request.preprocessing)
        contract = origin.contract(name, variant, sha256)
        notes += origin.notes
    return Named(contract, tensors, rules(rows), tuple(problems), notes)


def table(entry: models.Architecture, *, with_head: bool) -> tuple[KerasLayer, ...]:
    """The layers of Keras' network, with a head as our files have it."""
    return entry.keras_layers() + ((HEAD,) if with_head else ())


def rules(rows: Sequence[KerasLayer]) -> Callable[[Target], Rule]:
    """Returns what tells where a Keras tensor goes; Keras' layouts are ours.

    Args:
      rows: A network's Keras layers.

    Returns:
      From a variable to its rule, with the source '<Keras 3 layer name>/<role>'.
    """
    by_path = {layer.path: layer for layer in rows if layer.path is not None}

    def rule(target: Target) -> Rule:
        path, _, leaf = target.partition("/")[2].rpartition("/")  # without the collection
        layer = by_path[path]
        return Rule(f"{layer.name}/{_ROLES[layer.kind, leaf]}", target)

    return rule


def _refuse_other_networks(opened: Opened, entry: models.Architecture) -> None:
    """Refuses a network that Keras lacks, or whose description is not that of Keras' own."""
    if not entry.keras_layers():
        raise WeightsError(
            f"{opened.path} is a Keras file, and Keras has no {entry.title}; Keras files are read "
            f"for {', '.join(_known())}."
        )
    for layer in opened.lambdas:
        if not re.fullmatch(entry.keras_lambdas, layer):
            raise WeightsError(
                f"{opened.path} has a Lambda layer {layer!r}, which is Python code that no "
                f"{entry.title} has and that is never run here; give the weights of the plain "
                "network."
            )
    for layer, strides in entry.keras_strides.items():
        given = opened.strides.get(layer, strides)
        if given != strides:
            variant = entry.variants[0]
            raise WeightsError(
                f"{opened.path} describes a {entry.title} whose strides are not Keras' "
                f"({variant}): {layer} has {given} instead of {strides}; its features would be "
                f"silently wrong, so give a {variant} file."
            )


def _sources(
    layers: Layers, table: Sequence[KerasLayer], *, positional: bool
) -> tuple[dict[str, StoredTensor], list[str]]:
    """Gives a file's layers the names of the table.

    Args:
      layers: The file's tensors by layer and role.
      table: The network's Keras layers.
      positional: True if the file only counts its layers, in the table's order.

    Returns:
      The tensors by source name, and what does not fit, each a part of a sentence.
    """
    renamed: dict[str, str] = {name: name.replace("/", "_") for name in layers}
    problems = []
    for kind, table_kind in (("conv2d", "conv"), ("batch_normalization", "batch_norm")):
        theirs = _automatic(layers, kind)
        rows = [layer.name for layer in table if layer.kind == table_kind]
        ours = rows if positional else list(_automatic(rows, kind).values())
        order = _order(theirs, len(ours))
        if order is None:
            problems.append(
                f"{len(theirs)} automatically named {kind} layers instead of {len(ours)}: "
                f"{listed(list(theirs.values())) or 'none'}"
            )
            for name in theirs.values():
                del renamed[name]
        else:
            renamed.update({theirs[count]: ours[rank] for count, rank in order.items()})
    tensors = {
        f"{ours}/{role}": tensor
        for theirs, ours in renamed.items()
        for role, tensor in layers[theirs].items()
    }
    return tensors, problems


def _known() -> list[str]:
    return [name for name in models.names() if models.architecture(name).keras_layers()]


def _recognised(layers: Layers, opened: Opened) -> str:
    """Returns the network whose layers are most like the file's, or says that it is none."""
    scores = {
        name: _likeness(layers, models.architecture(name).keras_layers(), opened.positional)
        for name in _known()
    }
    best = max(scores, key=lambda name: scores[name])
    if scores[best] < _LIKENESS:
        titles = ", ".join(models.architecture(name).title for name in scores)
        raise WeightsError(
            f"{opened.path} is a Keras file of another network than {titles}: it has "
            f"{len(layers)} layers with weights, such as {listed(sorted(layers)[:3])}; give the "
            "weights of one of these networks without its top."
        )
    return best


def _likeness(layers: Layers, table: Sequence[KerasLayer], positional: bool) -> float:
    """Returns the share of layers that a file and a table have in common, 0 to 1."""
    rows = {layer.name: layer.kind for layer in table if layer.path is not None}
    common = 0
    automatic_rows: set[str] = set()
    automatic_layers: set[str] = set()
    for kind, table_kind in (("conv2d", "conv"), ("batch_normalization", "batch_norm")):
        theirs = set(_automatic(layers, kind).values())
        ours = (
            {name for name, row_kind in rows.items() if row_kind == table_kind}
            if positional
            else set(_automatic(rows, kind).values())
        )
        common += min(len(theirs), len(ours))
        automatic_layers |= theirs
        automatic_rows |= ours
    named_layers = {name.replace("/", "_") for name in layers if name not in automatic_layers}
    named_rows = set(rows) - automatic_rows
    common += len(named_layers & named_rows)
    return common / max(1, len(layers) + len(rows) - common)


def _automatic(names: Sequence[str] | Mapping[str, object], kind: str) -> dict[int, str]:
    """Returns the automatic names of a kind by their count, in counting order."""
    counted = {}
    for name in names:
        match = _AUTOMATIC.fullmatch(name)
        if match and match["kind"] == kind:
            counted[int(match["count"] or 0)] = name
    return dict(sorted(counted.items()))


def _order(counts: Mapping[int, str], wanted: int) -> dict[int, int] | None:
    """Returns the rank of each count among the `wanted` layers; None if that is unknowable.

    A gap in the counts of an otherwise complete range is a missing layer, which the
    caller can then name.
    """
    if not counts:
        return {} if not wanted else None
    first, last = min(counts), max(counts)
    if last - first + 1 == wanted:
        return {count: count - first for count in counts}
    if len(counts) == wanted:
        return {count: rank for rank, count in enumerate(counts)}
    return None
