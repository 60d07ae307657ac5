"""One specification of what learns, from which everything else follows.

A structure names the layers that learn. From it come the leaves that gradients are taken
of, the optimiser's state (none for frozen leaves), the mode of each BatchNorm, and the
table that a run prints. The published structures are those of the RadImageNet scripts:
`freezeall`, `unfreezeall` and `unfreezetop10`, where the ten are Keras *layer objects*,
activations and pooling among them, so that very different parts of the networks learn.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import optax
from flax import traverse_util
from rich.table import Table

from radimagenet_jax.errors import ConfigError
from radimagenet_jax.models import KerasLayer
from radimagenet_jax.models.network import HEAD

PyTree = Any

_KNOWN = re.compile(r"freezeall|unfreezeall|(unfreezetop|top=)[0-9]{1,6}|layers=.*", re.DOTALL)
# In a regular expression, to see what is repeated: letters of a class or escaped ones count as one,
# and the innermost group comes with its repeat.
_CLASSES = re.compile(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]", re.DOTALL)
_GROUP = re.compile(r"\(([^()]*)\)([*+{]?)")
_MOST_REPEATS = 5


@dataclass(frozen=True)
class LayerRow:
    """One line of the table: a block of layers and what happens to it.

    Attributes:
      block: The block's name, the first part of its layers' names.
      layers: How many layers with parameters or statistics it has.
      parameters: How many parameters, statistics not counted.
      trainable: How many of them learn.
      batch_norm: 'batch' (its BatchNorms use and update batch statistics), 'moving' (frozen,
        inference mode), 'mixed', or '' where there are none.
    """

    block: str
    layers: int
    parameters: int
    trainable: int
    batch_norm: str


@dataclass(frozen=True)
class Freeze:
    """What learns in a network.

    Attributes:
      structure: The specification it was made from.
      trainable: Names of the parameters that learn, such as 'stage4_block3/conv2/kernel'.
      frozen_stats: Names of the BatchNorm layers that stay in inference mode in training.
      first_trainable: The first layer, in the order of the network, that learns: gradients
        stop at its input.
      rows: The table, in the network's order, the head last.
    """

    structure: str
    trainable: frozenset[str]
    frozen_stats: frozenset[str]
    first_trainable: str
    rows: tuple[LayerRow, ...]

    def optimizer(self, of_trainable: optax.GradientTransformation) -> optax.GradientTransformation:
        """An optimiser that moves what learns and leaves all else as it is.

        Args:
          of_trainable: For what learns; it sees nothing else, and has no state for it.
        """

        def labels(params: PyTree) -> PyTree:
            return jax.tree_util.tree_map_with_path(
                lambda path, _: "trainable" if _name(path) in self.trainable else "frozen", params
            )

        return optax.partition({"trainable": of_trainable, "frozen": optax.set_to_zero()}, labels)


def specify(
    structure: str, variables: Mapping[str, PyTree], layers: Sequence[KerasLayer]
) -> Freeze:
    """Works out what a structure means for a network.

    Args:
      structure: `freezeall`, `unfreezeall`, `unfreezetopN` or `top=N` (the last N of
        the layers), or `layers=REGEX[,REGEX...]` (every layer whose whole name one of the
        expressions matches, such as `layers=stage4_.*`). The head always learns.
      variables: {'params', 'batch_stats'} of the network; arrays or their shapes.
      layers: The headless network's, in their order, see `models.Architecture.layers`.

    Returns:
      The specification.

    Raises:
      ConfigError: If the structure is not one of these, or selects nothing.
    """
    check(structure)
    params = _flat(variables["params"])
    stats = _flat(variables.get("batch_stats", {}))
    present = {_layer(name) for name in (*params, *stats)}
    order = [layer.path for layer in layers if layer.path in present]
    learning = set(_select(structure, order, layers))
    trainable = frozenset(p for p in params if _layer(p) in learning | {HEAD})
    frozen_stats = frozenset(_layer(name) for name in stats) - learning
    first = next((layer for layer in order if any(_layer(p) == layer for p in trainable)), HEAD)
    return Freeze(
        structure=structure,
        trainable=trainable,
        frozen_stats=frozen_stats,
        first_trainable=first,
        rows=tuple(_rows([*order, HEAD], params, stats, trainable, frozen_stats)),
    )


def check(structure: str) -> None:
    """Refuses what is no structure of any network, before a network is made.

    Raises:
      ConfigError: If it is not of the known forms, or an expression cannot be used.
    """
    if not _KNOWN.fullmatch(structure):
        raise ConfigError(
            f"structure {structure!r} is not known; use freezeall, unfreezeall, unfreezetop10, "
            "top=N, or layers=REGEX[,REGEX...] over layer names."
        )
    if structure.startswith("layers="):
        for pattern in structure.removeprefix("layers=").split(","):
            _check_pattern(structure, pattern)


def _check_pattern(structure: str, pattern: str) -> None:
    try:
        re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        raise ConfigError(
            f"structure {structure!r}: {pattern!r} is not a regular expression ({error})."
        ) from error
    # Repeats within repeats, and many one after the other, take time that doubles with each letter.
    flat, nested = _CLASSES.sub("x", pattern), False
    while (group := _GROUP.search(flat)) is not None:
        varies = bool(re.search(r"[*+{|?]", group[1].removeprefix("?:")))
        nested |= varies and bool(group[2])
        flat = flat[: group.start()] + ("x+" if varies or group[2] else "x") + flat[group.end() :]
    if nested or len(re.findall(r"[*+{]", flat)) > _MOST_REPEATS or re.search(r"\\\d", pattern):
        raise ConfigError(
            f"structure {structure!r}: {pattern!r} repeats what is repeated or chosen inside, or "
            f"has more than {_MOST_REPEATS} repeats, which could take for ever; give several "
            "expressions with commas between them."
        )


def mask(params: PyTree, freeze: Freeze) -> PyTree:
    """Puts optax's `MaskedNode` in the place of every frozen leaf.

    Such a tree has only the trainable leaves: gradients taken with respect to it, and the
    optimiser's state made from it, hold nothing else, and a global norm sees nothing else.
    """
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: leaf if _name(path) in freeze.trainable else optax.MaskedNode(), params
    )


def merge(trainable: PyTree, params: PyTree) -> PyTree:
    """Puts the leaves of a masked tree back into the whole tree (inverse of `mask`)."""
    return jax.tree.map(
        lambda new, old: old if isinstance(new, optax.MaskedNode) else new,
        trainable,
        params,
        is_leaf=lambda node: isinstance(node, optax.MaskedNode),
    )


def select(like: PyTree, params: PyTree) -> PyTree:
    """Masks a whole tree as another is masked already."""
    return jax.tree.map(
        lambda masked, leaf: masked if isinstance(masked, optax.MaskedNode) else leaf,
        like,
        params,
        is_leaf=lambda node: isinstance(node, optax.MaskedNode),
    )


def table(freeze: Freeze) -> Table:
    """The specification as a table for the terminal."""
    out = Table(
        title=f"{freeze.structure}: gradients stop at the input of {freeze.first_trainable}",
        title_justify="left",
    )
    for heading in ("block", "layers", "parameters", "trainable", "BatchNorm statistics"):
        right = heading in ("layers", "parameters", "trainable")
        out.add_column(heading, justify="right" if right else "left")
    for row in freeze.rows:
        style = None if row.trainable else "dim"
        counts = (f"{n:,}" if n else "-" for n in (row.layers, row.parameters, row.trainable))
        out.add_row(row.block, *counts, row.batch_norm, style=style)
    out.add_section()
    out.add_row(
        "all",
        *(
            f"{sum(getattr(row, field) for row in freeze.rows):,}"
            for field in ("layers", "parameters", "trainable")
        ),
        "",
    )
    return out


def _select(structure: str, order: Sequence[str], layers: Sequence[KerasLayer]) -> list[str]:
    """Names of the base's layers that learn."""
    if structure == "freezeall":
        return []
    if structure == "unfreezeall":
        return list(order)
    top = re.fullmatch(r"(?:unfreezetop|top=)(\d+)", structure)
    if top:
        count = int(top[1])
        if count > len(layers):
            of_keras = any(layer.path is None for layer in layers)
            counted = f"{len(layers)} in Keras' order" if of_keras else f"{len(layers)} layers"
            raise ConfigError(
                f"structure {structure!r} asks for {count} layers, but the network has "
                f"{counted}; ask for fewer, or use 'unfreezeall'."
            )
        last = {layer.path for layer in layers[len(layers) - count :]}
        return [name for name in order if name in last]
    return _matching(structure, order)


def _matching(structure: str, order: Sequence[str]) -> list[str]:
    patterns = structure.removeprefix("layers=").split(",")
    chosen: set[str] = set()
    for pattern in patterns:
        matched = {name for name in order if re.fullmatch(pattern, name)}
        if not matched and pattern != HEAD:
            raise ConfigError(
                f"structure {structure!r}: no layer's whole name matches {pattern!r}; names are "
                f"like {order[0]!r} and {order[-1]!r}."
            )
        chosen |= matched
    return [name for name in order if name in chosen]


def _rows(
    order: Sequence[str],
    params: Mapping[str, Any],
    stats: Mapping[str, Any],
    trainable: frozenset[str],
    frozen_stats: frozenset[str],
) -> Iterator[LayerRow]:
    blocks: dict[str, list[str]] = {}
    for layer in order:
        blocks.setdefault(layer.split("/")[0], []).append(layer)
    with_stats = {_layer(name) for name in stats}
    for block, layers in blocks.items():
        members = set(layers)
        inside = {name: leaf for name, leaf in params.items() if _layer(name) in members}
        norms = members & with_stats
        moving = norms & frozen_stats
        mode = "moving" if moving == norms else "mixed" if moving else "batch"
        if not inside and not norms:
            continue
        yield LayerRow(
            block=block,
            layers=len(members),
            parameters=sum(leaf.size for leaf in inside.values()),
            trainable=sum(leaf.size for name, leaf in inside.items() if name in trainable),
            batch_norm=mode if norms else "",
        )


def _flat(tree: PyTree) -> dict[str, Any]:
    return traverse_util.flatten_dict(dict(tree), sep="/")


def _layer(leaf_name: str) -> str:
    return leaf_name.rpartition("/")[0]


def _name(path: tuple[Any, ...]) -> str:
    return "/".join(str(entry.key) for entry in path)
