"""Keras' names: which layer of a file is which layer of ours.

The table is the architecture's own list of Keras layers. Names are compared after
'/' is written as '_', which is what Keras 3 did to DenseNet's. Automatic names
('conv2d_117') count from wherever the process that saved the file happened to be;
only their order is meaningful: it is the order in which the layers were made.
"""

import functools
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from radimagenet_jax import models
from radimagenet_jax.errors import WeightsError
from radimagenet_jax.models import KerasLayer
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
from radimagenet_jax.weights.contract import check_architecture
from radimagenet_jax.weights.opened import Opened, StoredTensor
from radimagenet_jax.weights.request import Request
from radimagenet_jax.weights.search import Place

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

# What keras.applications call the classifier on top, and so do our files.
HEAD = KerasLayer("predictions", "head", "dense")

# The order in which a Keras layer keeps its variables.
ROLE_ORDER = ("kernel", "bias", "gamma", "beta", "moving_mean", "moving_variance")

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
    name, place, _ = search.likeliest(
        opened.path,
        request.architecture,
        _known(),
        lambda entry: _likeness(layers, entry, opened.positional),
        (
            "Keras",
            f"{len(layers)} layers with weights, such as {first_of(sorted(layers)[:3])}",
            "weights of one of these networks without its top",
            "the one alone, with its own save()",
        ),
    )
    entry = models.architecture(name)
    _refuse_other_networks(opened, entry, place)
    variant, stated = entry.variants[0], opened.contract
    if stated is not None:
        check_architecture(stated, name, variant)
    rows = entry.keras_layers()
    base = _Base(layers, place, opened, rows, expected_shapes(name, variant))
    tensors, problems = base.sources()
    above, amid = base.others()
    head = ""
    if stated is not None and stated.labels is not None:
        head = HEAD.name
    elif opened.average_pooled:
        around = {
            layer: {role: tensor.shape for role, tensor in layers[layer].items()} for layer in above
        }
        head = search.head(around, features(name, variant), "kernel", inputs=0)
    if head:
        rows += (KerasLayer(head, HEAD.path, HEAD.kind),)
    if head in above:
        above.remove(head)
        amid.append(head)
    tensors |= {
        f"{layer}/{role}": tensor for layer in amid for role, tensor in layers[layer].items()
    }
    sha256 = opened.digest("sha256")
    origin = origins.of_keras(
        name, opened, md5=opened.digest("md5"), sha256=sha256, whole=not (above or head)
    )
    return Named(
        None if stated is None else replace(stated, sha256=sha256),
        tensors,
        rules(rows),
        tuple(problems),
        notes=tuple(_notes(opened, above)),
        known=Known(name, variant, sha256, origin),
        num_classes=layers[head]["kernel"].shape[1] if head and stated is None else 0,
    )


@dataclass(frozen=True)
class _Base:
    """A network within a file, whatever is built around it.

    Attributes:
      layers: The file's tensors by layer and role.
      place: What stands before the names of the network's layers: the networks in which it is
        called; '' for none.
      opened: The file.
      rows: The network's Keras layers.
      shapes: Of its variables.
    """

    layers: Layers
    place: str
    opened: Opened
    rows: Sequence[KerasLayer]
    shapes: Mapping[Target, tuple[int, ...]]

    @functools.cached_property
    def ours(self) -> dict[str, str]:
        """The row of each of the file's layers that is one of the network's."""
        return self._matched[0]

    def sources(self) -> tuple[dict[str, StoredTensor], list[str]]:
        """Gives the network's layers the names of the table.

        Returns:
          The tensors by source name, and what does not fit, each a part of a sentence.
        """
        tensors = {
            f"{row}/{role}": tensor
            for layer, row in self.ours.items()
            for role, tensor in self.layers[layer].items()
        }
        return tensors, self._matched[1]

    def others(self) -> tuple[list[str], list[str]]:
        """The layers that are none of the network's: those outside it, and those amid its own."""
        last: dict[str, int] = {}
        order = self.opened.order
        for layer in self.ours:
            group, index = order.get(self._within(layer), ("?", 0))
            last[group] = max(index, last.get(group, -1))
        outside: list[str] = []
        amid: list[str] = []
        for layer, values in self.layers.items():
            if layer in self.ours:
                continue
            group, index = order.get(self._within(layer), ("", -1))
            if not _is_at(layer, self.place):
                outside.append(layer)
            elif index >= 0:
                (amid if index < last.get(group, -1) else outside).append(layer)
            else:
                # What the order does not tell, the form does: convolutions make other features.
                flat = all(len(tensor.shape) < 3 for tensor in values.values())
                (outside if flat else amid).append(layer)
        return outside, amid

    def _within(self, layer: str) -> str:
        """The layer under which the order knows it."""
        order = self.opened.order
        if layer in order or self.place:
            return layer
        # Keras 3 notes the network around a layer in its group: 'sequential/dense'.
        return layer.rpartition("/")[2]

    @functools.cached_property
    def _matched(self) -> tuple[dict[str, str], list[str]]:
        names = {_name_at(layer, self.place): layer for layer in self.layers}
        names.pop("", None)
        rows = {row.name: row for row in self.rows if row.path is not None}
        ours = {layer: name for name, layer in names.items() if name in rows}
        problems = []
        for kind, table_kind in (("conv2d", "conv"), ("batch_normalization", "batch_norm")):
            found = _automatic(names, kind)
            of_kind = [row.name for row in self.rows if row.kind == table_kind]
            table = of_kind if self.opened.positional else list(_automatic(rows, kind).values())
            if not table:
                continue  # then these are layers of something else
            for name in found.values():
                ours.pop(names[name], None)
            theirs = self._window(found, names, table)
            order = _order(theirs, len(table))
            if order is None:
                problems.append(
                    f"{len(found)} automatically named {kind} layers instead of {len(table)}: "
                    f"{first_of(list(found.values())) or 'none'}"
                )
            else:
                ours.update({names[theirs[c]]: table[rank] for c, rank in order.items()})
        return ours, problems

    def _window(
        self, found: dict[int, str], names: Mapping[str, str], table: Sequence[str]
    ) -> dict[int, str]:
        """Of more automatic names than the network has, those that can be its own, in a row."""
        counts = list(found)
        if len(counts) <= len(table):
            return found
        by_source = {rule.source: self.shapes[rule.target] for rule in map(self._rule, self.shapes)}
        for start in range(len(counts) - len(table) + 1):
            window = counts[start : start + len(table)]
            layers = [self.layers[names[found[count]]] for count in window]
            if all(
                tensor.shape == by_source.get(f"{row}/{role}")
                for row, layer in zip(table, layers, strict=True)
                for role, tensor in layer.items()
            ):
                return {count: found[count] for count in window}
        return found

    @functools.cached_property
    def _rule(self) -> Callable[[Target], Rule]:
        return rules(self.rows)


def _notes(opened: Opened, above: Sequence[str]) -> Iterator[str]:
    if opened.lambdas:
        yield f"{len(opened.lambdas)} Lambda layers were left undecoded."
    if above:
        yield f"Left out, since it is no part of the network: {first_of(sorted(above))}."


def _name_at(layer: str, place: str) -> str:
    """A layer's name as Keras 3 writes it, within the network at a place; '' if it is elsewhere."""
    if not _is_at(layer, place):
        return ""
    return (layer[len(place) + 1 :] if place else layer).replace("/", "_")


def _is_at(layer: str, place: str) -> bool:
    return not place or layer.startswith(f"{place}/")


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


def _refuse_other_networks(opened: Opened, entry: models.Architecture, place: str) -> None:
    """Refuses a network that Keras lacks, or whose description is not that of Keras' own."""
    if not entry.keras_layers():
        raise WeightsError(
            f"{opened.path} is a Keras file, and Keras has no {entry.title}; Keras files are read "
            f"for {', '.join(_known())}."
        )
    for path in opened.lambdas:
        *within, layer = path.split("/")
        if place and not within:
            continue  # it stands beside the network, which is called as a layer
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


def _known() -> list[str]:
    return [name for name in models.names() if models.architecture(name).keras_layers()]


def _likeness(layers: Layers, entry: models.Architecture, positional: bool) -> dict[Place, float]:
    """Returns, by place, the share of layers that a file and a table have in common, 0 to 1."""
    rows = {layer.name: layer.kind for layer in entry.keras_layers() if layer.path is not None}
    automatic_rows = {}
    for kind, table_kind in (("conv2d", "conv"), ("batch_normalization", "batch_norm")):
        automatic_rows[kind] = (
            [name for name, row_kind in rows.items() if row_kind == table_kind]
            if positional
            else list(_automatic(rows, kind).values())
        )
    named_rows = set(rows).difference(*automatic_rows.values())
    # By place: how many layers have names of the table, and how many automatic ones there are.
    named: Counter[str] = Counter()
    automatic: dict[str, Counter[str]] = {}
    for layer in layers:
        parts = layer.split("/")
        match = _AUTOMATIC.fullmatch(parts[-1])
        if match:
            automatic.setdefault("/".join(parts[:-1]), Counter())[match["kind"]] += 1
        # A name of DenseNet's may have a slash: of 'conv1/conv' both readings are tried.
        for first in range(len(parts)):
            if "_".join(parts[first:]) in named_rows:
                named["/".join(parts[:first])] += 1
    shares = {}
    for place in {*named, *automatic}:
        theirs = automatic.get(place, Counter())
        common = named[place]
        strange = 0
        for kind, of_kind in automatic_rows.items():
            common += min(theirs[kind], len(of_kind))
            strange += max(0, theirs[kind] - len(of_kind))
        shares[Place(entry.name, place)] = common / max(1, len(rows) + strange)
    return shares


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
