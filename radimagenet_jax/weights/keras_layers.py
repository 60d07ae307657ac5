"""Which layer of a Keras file is which layer of ours.

The table is the architecture's own list of Keras layers. Names are compared after
'/' is written as '_', which is what Keras 3 did to DenseNet's. Automatic names
('conv2d_117') count from wherever the process that saved the file happened to be;
only their order is meaningful: it is the order in which the layers were made.
"""

import re
from collections.abc import Mapping, Sequence

from radimagenet_jax import models
from radimagenet_jax.errors import WeightsError
from radimagenet_jax.models import KerasLayer
from radimagenet_jax.weights.assembly import Rule, StoredTensor, Target, listed

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

Layers = Mapping[str, Mapping[str, StoredTensor]]


def rules(table: Sequence[KerasLayer], shapes: Mapping[Target, tuple[int, ...]]) -> list[Rule]:
    """Returns where each Keras tensor goes; Keras' layouts are ours.

    Args:
      table: The architecture's Keras layers.
      shapes: Of the network's variables, by target.

    Returns:
      A rule for each variable, with sources '<Keras 3 layer name>/<role>'.
    """
    by_path = {layer.path: layer for layer in table if layer.path is not None}
    result = []
    for target in shapes:
        _, rest = target.split("/", 1)  # the collection: 'params' or 'batch_stats'
        path, leaf = rest.rsplit("/", 1)
        layer = by_path[path]
        result.append(Rule(f"{layer.name}/{_ROLES[layer.kind, leaf]}", target))
    return result


def sources(
    layers: Layers, table: Sequence[KerasLayer], *, positional: bool
) -> tuple[dict[str, StoredTensor], list[str]]:
    """Gives a file's layers the names of the table.

    Args:
      layers: The file's tensors by layer and role.
      table: The architecture's Keras layers.
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


def recognise(layers: Layers, *, positional: bool, file: str) -> str:
    """Returns the architecture whose layers are most like the file's.

    Args:
      layers: The file's tensors by layer and role.
      positional: True if the file only counts its layers.
      file: Its name, for messages.

    Returns:
      A name of `models.names()`.

    Raises:
      WeightsError: If the file is like none of them.
    """
    scores = {
        name: _likeness(layers, models.architecture(name).keras_layers(), positional)
        for name in models.names()
    }
    best = max(scores, key=lambda name: scores[name])
    if scores[best] < _LIKENESS:
        titles = ", ".join(models.architecture(name).title for name in models.names())
        raise WeightsError(
            f"{file} is a Keras file of another network than {titles}: it has {len(layers)} "
            f"layers with weights, such as {listed(sorted(layers)[:3])}; give the weights of one "
            "of these networks without its top."
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
