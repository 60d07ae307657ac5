"""RadImageNet in JAX: pretrained radiology networks, fine-tuning and comparison.

    import radimagenet_jax as rin

    net = rin.load_pretrained("RadImageNet-ResNet50_notop.h5")
    net.features(images)["pooled"]

Reading is lazy: the import takes no time, and what is used first is loaded then.
"""

import importlib
import sys
from typing import TYPE_CHECKING, Any

from radimagenet_jax.version import __version__

if TYPE_CHECKING:
    from radimagenet_jax.data.reading import read_image
    from radimagenet_jax.network import Network
    from radimagenet_jax.pretrained import create_model, freeze, list_models, load_pretrained

__docformat__ = "google"  # for pdoc

__all__ = [
    "Network",
    "__version__",
    "create_model",
    "freeze",
    "list_models",
    "load_pretrained",
    "read_image",
]

# Loaded on demand: importing a subpackage must not import jax and h5py, which take seconds and
# would start a backend before `jax.distributed` is set up.
_PLACES = {
    "Network": "network",
    "create_model": "pretrained",
    "freeze": "pretrained",
    "list_models": "pretrained",
    "load_pretrained": "pretrained",
    "read_image": "data.reading",
}


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_PLACES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)


# pdoc shows what a module holds and asks for nothing, so that it is given all.
if "pdoc" in sys.modules:
    globals().update({name: __getattr__(name) for name in _PLACES})
