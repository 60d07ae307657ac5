"""How the networks' operations are computed on each platform, and how programs are compiled.

The only folder that knows of CPUs, GPUs and TPUs: what is outside asks for a convolution, or for
`jit`, and gets what is best where it runs.
"""

from radimagenet_jax.models.ops.platform import (
    cache_folder,
    computes_on_host,
    jit,
    keep_compiled_programs,
    materialized,
    traced_once,
)
from radimagenet_jax.models.ops.resampling import affine_bilinear

__all__ = [
    "affine_bilinear",
    "cache_folder",
    "computes_on_host",
    "jit",
    "keep_compiled_programs",
    "materialized",
    "traced_once",
]
