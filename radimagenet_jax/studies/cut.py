"""Cuts a network's training step where its frozen prefix ends.

The forward pass is traced to a jaxpr, whose equations are of three kinds: those that depend on
frozen weights alone, those that depend on the images too, and those that also depend on something
that learns, on dropout, or on which examples are padding. The second kind is the trunk. What the
third kind reads of it is the cut: activations that runs can share. A sum over the examples of a
batch, as a BatchNorm that learns takes it, is weighted by the mask, so that it never falls into the
trunk, which may be computed in other batches.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend import core

PyTree = Any

_WEIGHTS, _IMAGES, _LEARNS = range(3)


@dataclass(frozen=True)
class Cut:
    """A function in two parts, for one batch size.

    Attributes:
      trunk: (frozen, images) -> activations at the cut, a tuple of arrays (B, ...).
      tail: (learning, frozen, activations, others) -> what the whole function returns.
      activations: Their shapes and dtypes.
      tail_jaxpr: The tail's equations.
    """

    trunk: Callable[[PyTree, jax.Array], tuple[jax.Array, ...]]
    tail: Callable[[PyTree, PyTree, tuple[jax.Array, ...], PyTree], Any]
    activations: tuple[jax.ShapeDtypeStruct, ...]
    tail_jaxpr: core.Jaxpr

    @property
    def bytes_per_image(self) -> int:
        """Memory that the activations of an image take."""
        return sum(a.size // a.shape[0] * a.dtype.itemsize for a in self.activations)


def cut(
    function: Callable[[PyTree, PyTree, jax.Array, PyTree], Any],
    learning: PyTree,
    frozen: PyTree,
    images: jax.ShapeDtypeStruct,
    others: PyTree,
) -> Cut:
    """Splits a function of (learning, frozen, images, others).

    Args:
      function: Pure and traceable; it has to mask whatever it sums over the batch.
      learning: Shapes of what learns.
      frozen: Shapes of what does not.
      images: Shape (B, S, S, 3) of the input.
      others: Shapes of dropout's key and the mask, or ().

    Returns:
      The two parts; calling them one after the other computes what the function does.

    Raises:
      ValueError: If something at the cut is not one row an image.
    """
    arguments = (learning, frozen, images, others)
    shapes = jax.tree.leaves(arguments)
    traced, out_shape = jax.make_jaxpr(function, return_shape=True)(*arguments)
    pooled = _sums_before_concatenations(traced)
    closed = jax.make_jaxpr(pooled)(*shapes)
    jaxpr, constants = closed.jaxpr, dict(zip(closed.jaxpr.constvars, closed.consts, strict=True))
    sizes = [len(jax.tree.leaves(part)) for part in arguments]
    inputs = _divide(jaxpr.invars, sizes)
    kinds = _kinds(jaxpr, inputs)

    def of_kind(*wanted: int) -> list[core.JaxprEqn]:
        return [e for e in jaxpr.eqns if max(map(kinds.__getitem__, e.outvars)) in wanted]

    tail_eqns = _needed(of_kind(_WEIGHTS, _LEARNS), _variables(jaxpr.outvars))
    read = [v for eqn in tail_eqns for v in _variables(eqn.invars)] + _variables(jaxpr.outvars)
    at_cut = list(dict.fromkeys(v for v in read if kinds[v] == _IMAGES))
    shapes_at_cut = tuple(jax.ShapeDtypeStruct(*_described(v)) for v in at_cut)
    if wrong := [a for a in shapes_at_cut if a.shape[:1] != images.shape[:1]]:
        raise ValueError(
            f"{wrong[0]} at the cut is not one row for each of {images.shape[0]} images"
        )
    trunk_eqns = _needed(of_kind(_WEIGHTS, _IMAGES), at_cut)
    of_learning, of_frozen, of_images, of_others = inputs
    trunk = _function(jaxpr, constants, [*of_frozen, *of_images], at_cut, trunk_eqns)
    tail_inputs = [*of_learning, *of_frozen, *at_cut, *of_others]
    tail = _function(jaxpr, constants, tail_inputs, jaxpr.outvars, tail_eqns)
    tree = jax.tree.structure(out_shape)

    def run_tail(
        learning: PyTree, frozen: PyTree, activations: tuple[jax.Array, ...], others: PyTree
    ) -> Any:
        leaves = jax.tree.leaves((learning, frozen, activations, others))
        return jax.tree.unflatten(tree, tail(*leaves))

    return Cut(
        trunk=lambda frozen, x: tuple(trunk(*jax.tree.leaves(frozen), x)),
        tail=run_tail,
        activations=shapes_at_cut,
        tail_jaxpr=jaxpr.replace(eqns=tail_eqns),
    )


def _sums_before_concatenations(traced: core.ClosedJaxpr) -> Callable[..., list[Any]]:
    """The traced function, with sums taken of the parts of a concatenation instead of the whole.

    A global average pool over concatenated branches of which one learns then leaves the frozen
    ones pooled at the cut: in InceptionV3's last ten layers, a tenth of the memory.
    """

    def function(*arguments: Any) -> list[Any]:
        values = _Values(traced, arguments)
        parts: dict[Any, tuple[list[Any], int]] = {}
        for eqn in traced.jaxpr.eqns:
            if eqn.primitive.name == "concatenate":
                parts[eqn.outvars[0]] = values.read(eqn.invars), eqn.params["dimension"]
            if eqn.primitive.name == "reduce_sum" and eqn.invars[0] in parts:
                arrays, dimension = parts[eqn.invars[0]]
                axes = eqn.params["axes"]
                if dimension not in axes:
                    kept = dimension - sum(axis < dimension for axis in axes)
                    sums = [jnp.sum(array, axes) for array in arrays]
                    values.write(eqn.outvars, [jnp.concatenate(sums, kept)])
                    continue
            values.compute(eqn)
        return values.read(traced.jaxpr.outvars)

    return function


class _Values:
    """What the variables of a jaxpr are, as its equations are computed one by one."""

    def __init__(self, traced: core.ClosedJaxpr, arguments: Sequence[Any]):
        self._jaxpr = traced.jaxpr
        self._of: dict[Any, Any] = dict(zip(traced.jaxpr.constvars, traced.consts, strict=True))
        self.write(traced.jaxpr.invars, arguments)

    def write(self, variables: Sequence[core.Var], values: Sequence[Any]) -> None:
        self._of.update(zip(variables, values, strict=True))

    def read(self, atoms: Sequence[Any]) -> list[Any]:
        return [a.val if isinstance(a, core.Literal) else self._of[a] for a in atoms]

    def compute(self, eqn: core.JaxprEqn) -> None:
        inputs = list(dict.fromkeys(_variables(eqn.invars)))
        one = _function(self._jaxpr, {}, inputs, eqn.outvars, [eqn])
        self.write(eqn.outvars, one(*self.read(inputs)))


def _function(
    jaxpr: core.Jaxpr,
    constants: Mapping[core.Var, Any],
    inputs: Sequence[core.Var],
    outputs: Sequence[Any],
    eqns: Sequence[core.JaxprEqn],
) -> Callable[..., list[Any]]:
    """Some equations of a jaxpr as a function."""
    part = jaxpr.replace(
        constvars=list(constants), invars=list(inputs), outvars=list(outputs), eqns=list(eqns)
    )
    return core.jaxpr_as_fun(core.ClosedJaxpr(part, list(constants.values())))


def _kinds(jaxpr: core.Jaxpr, inputs: Sequence[Sequence[core.Var]]) -> dict[core.Var, int]:
    """What each variable depends on."""
    kinds: dict[core.Var, int] = {}
    of_learning, of_frozen, of_images, of_others = inputs
    kinds |= dict.fromkeys([*of_learning, *of_others], _LEARNS)
    kinds |= dict.fromkeys(of_frozen, _WEIGHTS) | dict.fromkeys(of_images, _IMAGES)
    kinds |= dict.fromkeys(jaxpr.constvars, _WEIGHTS)
    for eqn in jaxpr.eqns:
        kind = max((kinds[v] for v in _variables(eqn.invars)), default=_WEIGHTS)
        kinds |= dict.fromkeys(eqn.outvars, kind)
    return kinds


def _needed(eqns: Sequence[core.JaxprEqn], results: Sequence[core.Var]) -> list[core.JaxprEqn]:
    """The equations that the results depend on, in order."""
    wanted, kept = set(results), []
    for eqn in reversed(eqns):
        if wanted.intersection(eqn.outvars):
            wanted.update(_variables(eqn.invars))
            kept.append(eqn)
    return kept[::-1]


def _variables(atoms: Sequence[Any]) -> list[core.Var]:
    return [atom for atom in atoms if not isinstance(atom, core.Literal)]


def _described(variable: core.Var) -> tuple[tuple[int, ...], Any]:
    aval: Any = variable.aval
    return aval.shape, aval.dtype


def _divide(items: Sequence[Any], sizes: Sequence[int]) -> list[list[Any]]:
    parts, start = [], 0
    for size in sizes:
        parts.append(list(items[start : start + size]))
        start += size
    return parts
