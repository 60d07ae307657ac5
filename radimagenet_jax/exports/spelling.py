"""A network spelled out for converters, in plain operations that they carry over as they are.

What a converter does with an operation's parameters is its own affair, and jax2onnx drops the
padding of a pool without a word. So the operations of the traced network are applied again one by
one: what depends on the weights alone is computed now, what calls others is opened, and a padded
maximum becomes a padding and a maximum.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.extend import core

from radimagenet_jax.models.ops import platform

# Operations that only call others, by the parameter that holds these.
_CALLS = {
    "jit": "jaxpr",
    "pjit": "jaxpr",  # as it was called before JAX 0.7
    "custom_jvp_call": "call_jaxpr",
    "custom_vjp_call": "call_jaxpr",
}


def spelled_out(function: Callable[[jax.Array], Any]) -> Callable[[jax.Array], Any]:
    """The same function of one array, of plain operations only, without a derivative."""

    def spelled(x: jax.Array) -> Any:
        with platform.force("plain"):
            traced, shapes = jax.make_jaxpr(function, return_shape=True)(x)
        return jax.tree.unflatten(jax.tree.structure(shapes), _applied(traced, [x]))

    return spelled


def _applied(traced: core.ClosedJaxpr, operands: Sequence[Any]) -> list[Any]:
    """Applies a traced function operation by operation."""
    jaxpr = traced.jaxpr
    values: dict[core.Var, Any] = dict(zip(jaxpr.constvars, traced.consts, strict=True))
    values.update(zip(jaxpr.invars, operands, strict=True))

    def value(atom: core.Var | core.Literal) -> Any:
        return atom.val if isinstance(atom, core.Literal) else values[atom]

    for eqn in jaxpr.eqns:
        results = _result(eqn, [value(atom) for atom in eqn.invars])
        values.update(zip(eqn.outvars, results, strict=True))
    return [value(atom) for atom in jaxpr.outvars]


def _result(eqn: core.JaxprEqn, operands: list[Any]) -> Sequence[Any]:
    name = eqn.primitive.name
    if name in _CALLS:
        return _applied(eqn.params[_CALLS[name]], operands)
    if name == "name":  # what `checkpoint_name` leaves
        return operands
    if name == "reduce_window_max":
        (x,) = operands
        return [_maximum(x, eqn.params)]
    if any(isinstance(operand, jax.core.Tracer) for operand in operands):
        result = eqn.primitive.bind(*operands, **eqn.params)
    else:
        with jax.ensure_compile_time_eval():
            result = eqn.primitive.bind(*operands, **eqn.params)
    return result if eqn.primitive.multiple_results else [result]


def _maximum(x: jax.Array, params: dict[str, Any]) -> jax.Array:
    """A maximum over windows of images, which sees its padding as pixels."""
    if any(map(any, params["padding"])):
        x = jnp.pad(x, params["padding"], constant_values=-jnp.inf)
    _, *window, _ = params["window_dimensions"]
    _, *strides, _ = params["window_strides"]
    # By name, since that is how jax2onnx takes them.
    return nn.max_pool(x, window_shape=tuple(window), strides=tuple(strides), padding="VALID")
