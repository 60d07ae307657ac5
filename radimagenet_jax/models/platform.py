"""Chooses an implementation by the platform that a computation is compiled for.

XLA's compilers for TPU and GPU want the plain operations. XLA for CPU has no fast algorithm for
some of them, above all for the gradients of convolutions, and is given others that compute the
same. The choice falls when a function is lowered and not when it is traced, so that compiling
for a TPU on a machine without one gives what the TPU would get.
"""

import contextlib
import contextvars
from collections.abc import Callable, Iterator
from typing import Any, Literal

import jax

Path = Literal["cpu", "plain"]

_forced: contextvars.ContextVar[Path | None] = contextvars.ContextVar("forced", default=None)


@contextlib.contextmanager
def force(path: Path) -> Iterator[None]:
    """Takes one path on every platform, for whatever is traced inside the context.

    A function that is already traced keeps its path: jit a new one to compare the two.

    Args:
      path: 'cpu' for what is made for XLA on CPU, 'plain' for XLA's own operations.
    """
    token = _forced.set(path)
    try:
        yield
    finally:
        _forced.reset(token)


def choose(*operands: Any, cpu: Callable[..., Any], plain: Callable[..., Any]) -> Any:
    """Applies `cpu` where the computation is lowered for CPU, else `plain`.

    It is not meant to be differentiated through: a derivative would keep the intermediate
    results of both paths. Put it inside the functions of a `jax.custom_vjp`.

    Args:
      *operands: Arguments of both functions.
      cpu: For CPU.
      plain: For all other platforms; results as those of `cpu`.
    """
    forced = _forced.get()
    if forced is not None:
        return {"cpu": cpu, "plain": plain}[forced](*operands)
    return jax.lax.platform_dependent(*operands, cpu=cpu, default=plain)
