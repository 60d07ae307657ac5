"""Chooses an implementation by the platform that a computation is compiled for.

XLA's compilers for TPU and GPU want the plain operations. XLA for CPU has no fast algorithm for
some of them, above all for the gradients of convolutions, and is given others that compute the
same. The choice falls when a function is lowered and not when it is traced, so that compiling
for a TPU on a machine without one gives what the TPU would get.
"""

import contextlib
import contextvars
import functools
import inspect
import os
from collections.abc import Callable, Iterator
from typing import Any, Literal

import jax
from jax.experimental import xla_metadata

Path = Literal["cpu", "gpu", "plain"]

# XLA hands convolutions to YNNPACK unless told otherwise, which takes 1.2 to 1.6 times as long over
# the four networks as Eigen, its library before. What is named here stays with YNNPACK.
_CPU_OPTIONS = {
    "xla_cpu_experimental_ynn_fusion_type": (
        "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT,LIBRARY_FUSION_TYPE_REDUCE"
    )
}

_forced: contextvars.ContextVar[Path | None] = contextvars.ContextVar("forced", default=None)


@contextlib.contextmanager
def force(path: Path | None) -> Iterator[None]:
    """Takes one path on every platform, for whatever is traced inside the context.

    A function that is already traced keeps its path: jit a new one to compare the two.

    Args:
      path: 'cpu' or 'gpu' for what is made for XLA there, 'plain' for XLA's own operations; None
        for each platform's own.
    """
    token = _forced.set(path)
    try:
        yield
    finally:
        _forced.reset(token)


def choose(
    *operands: Any,
    cpu: Callable[..., Any],
    plain: Callable[..., Any],
    gpu: Callable[..., Any] | None = None,
    tpu: Callable[..., Any] | None = None,
) -> Any:
    """Applies `cpu` where the computation is lowered for CPU, and so on, else `plain`.

    It is not meant to be differentiated through: a derivative would keep the intermediate
    results of both paths. Put it inside the functions of a `jax.custom_vjp`.

    Args:
      *operands: Arguments of both functions.
      cpu: For CPU.
      plain: For all other platforms; results as those of `cpu`.
      gpu: For GPU, where `plain` is no good there; results as those of `cpu`.
      tpu: For TPU, likewise.
    """
    forced = _forced.get()
    if forced is not None:
        return {"cpu": cpu, "gpu": gpu or plain, "plain": plain}[forced](*operands)
    own = {"cpu": cpu, "cuda": gpu, "rocm": gpu, "tpu": tpu}
    chosen = {platform: function for platform, function in own.items() if function is not None}
    return jax.lax.platform_dependent(*operands, **chosen, default=plain)


def traced_once(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same function, traced and lowered once for all layers that call it alike.

    A network has the same layer dozens of times, and tracing each by itself takes longer than
    anything else at the start of a run whose program is cached.

    Args:
      function: Of arrays; its keyword-only arguments are hashable and part of what is compiled.
    """
    parameters = inspect.signature(function).parameters.values()
    static = [one.name for one in parameters if one.kind is one.KEYWORD_ONLY]

    # The path that is forced when it is called is part of what is traced.
    def applied(*operands: Any, _path: Path | None, **settings: Any) -> Any:
        with force(_path):
            return function(*operands, **settings)

    applied.__name__ = applied.__qualname__ = function.__name__  # which profiles show
    traced = jax.jit(applied, static_argnames=("_path", *static))

    @functools.wraps(function)
    def call(*operands: Any, **settings: Any) -> Any:
        return traced(*operands, _path=_forced.get(), **settings)

    return call


def materialized(x: jax.Array) -> jax.Array:
    """The same array, which on CPU is computed once and not again inside each of its uses.

    XLA for CPU fuses what is cheap into every use, whole chains of it, and drops optimization
    barriers before it does. A call that it may not inline is a border that it keeps, and costs
    nothing: what the call returns is what it was given.
    """
    return choose(x, cpu=_called, plain=lambda same: same)


def _called(x: jax.Array) -> jax.Array:
    with xla_metadata.set_xla_metadata(inlineable="false"):
        return _identity(x)


@jax.jit
def _identity(x: jax.Array) -> jax.Array:
    return x


@traced_once
def materialized_with_gradient(x: jax.Array) -> jax.Array:
    """The same array; it and its gradient are `materialized`."""
    return _both_materialized(x)


@jax.custom_vjp
def _both_materialized(x: jax.Array) -> jax.Array:
    return materialized(x)


_both_materialized.defvjp(lambda x: (materialized(x), None), lambda _, dx: (materialized(dx),))


def jit(function: Callable[..., Any], **how: Any) -> Any:
    """`jax.jit` of a function with a network in it, compiled as is best on this platform.

    Args:
      function: What to compile.
      **how: Further arguments of `jax.jit`.
    """
    return jax.jit(function, compiler_options=_compiler_options(), **how)


@functools.cache
def _compiler_options() -> dict[str, str]:
    if jax.default_backend() != "cpu":
        return {}
    try:
        jax.jit(lambda: 0, compiler_options=_CPU_OPTIONS).lower().compile()
    except jax.errors.JaxRuntimeError:
        return {}  # another version of XLA, which has no such option
    return _CPU_OPTIONS


def computes_on_host() -> bool:
    """Tells whether the devices are CPUs: their memory is the host's, and one call is like many."""
    return jax.default_backend() == "cpu"


def cache_folder() -> str:
    """Where this machine keeps for later runs what takes time to find out."""
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return os.path.join(os.path.expanduser(cache), "radimagenet_jax")


def keep_compiled_programs() -> None:
    """Keeps compiled programs between processes; `JAX_COMPILATION_CACHE_DIR` moves the folder."""
    if not os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        folder = os.path.join(cache_folder(), "xla")
        jax.config.update("jax_compilation_cache_dir", folder)
    # The small ones too: a run has some fifty, which together take longer than they take to read.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
