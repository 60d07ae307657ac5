"""Our own names: each tensor is called as the variable that it is.

They come with a contract, so that any network can be read that this process knows.
"""

from radimagenet_jax import models
from radimagenet_jax.errors import WeightsError
from radimagenet_jax.weights.assembly import Named, Rule
from radimagenet_jax.weights.opened import Opened
from radimagenet_jax.weights.request import Request

NAMES = "our names"


def recognises(opened: Opened) -> bool:
    """Tells whether a file's tensors have our names."""
    return opened.contract is not None


def describe(opened: Opened, request: Request) -> Named:
    """Takes the contract's word for everything.

    Raises:
      WeightsError: If the contract is of a network that is not known.
    """
    del request  # it is held against the contract, which nothing can change
    contract = opened.contract
    assert contract is not None, "a form with our names gives their contract"
    if contract.architecture not in models.names():
        raise WeightsError(
            f"{opened.path} is of the architecture {contract.architecture!r}, which this version "
            f"of radimagenet_jax does not have; it has {', '.join(models.names())}. A network of "
            "your own has to be registered first: name its module in the environment variable "
            "RADIMAGENET_NETWORKS."
        )
    entry = models.architecture(contract.architecture)
    if contract.variant not in entry.variants:
        raise WeightsError(
            f"{opened.path} is of the variant {contract.variant!r}, which {entry.title} does not "
            "have; convert the original weight file again."
        )
    notes = [f"From {contract.origin}."] if opened.config is None else []
    return Named(
        contract, opened.tensors, rule=lambda target: Rule(target, target), notes=tuple(notes)
    )
