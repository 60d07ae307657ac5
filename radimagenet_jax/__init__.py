"""RadImageNet in JAX: pretrained radiology networks, fine-tuning and comparison."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from radimagenet_jax.pretrained import load_pretrained

__version__ = "0.1.0"

__all__ = ["__version__", "load_pretrained"]


def __getattr__(name: str) -> Any:
    # Loaded on demand: importing a subpackage must not import jax and h5py, which
    # take seconds and would start a backend before `jax.distributed` is set up.
    if name == "load_pretrained":
        from radimagenet_jax.pretrained import load_pretrained

        return load_pretrained
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
