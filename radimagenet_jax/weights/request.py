"""What a user says that a weight file is."""

from dataclasses import dataclass

from radimagenet_jax import models
from radimagenet_jax.errors import WeightsError
from radimagenet_jax.weights.contract import (
    PREPROCESSINGS,
    Contract,
    check_architecture,
    check_preprocessing,
)


@dataclass(frozen=True)
class Request:
    """What a file must be; '' leaves it to the file.

    Attributes:
      architecture: A name of `models.names()`.
      variant: One of its variants.
      preprocessing: The input that the weights expect, where the file does not state it.
    """

    architecture: str = ""
    variant: str = ""
    preprocessing: str = ""

    @classmethod
    def of(cls, architecture: str | None, preprocessing: str | None) -> "Request":
        """Takes what a user wrote, such as 'resnet50:v1.5' and 'torch'; None is no word on it.

        Raises:
          WeightsError: If there is no such architecture, variant or preprocessing.
        """
        name, _, variant = (architecture or "").partition(":")
        if (name or variant) and name not in models.names():
            raise WeightsError(
                f"there is no architecture {name!r}; choose one of {', '.join(models.names())}."
            )
        if variant and variant not in models.architecture(name).variants:
            offered = ", ".join(models.architecture(name).variants) or "no variants"
            raise WeightsError(f"{name} has {offered}, not {variant!r}; correct the name.")
        if preprocessing is not None and preprocessing not in PREPROCESSINGS:
            raise WeightsError(
                f"there is no preprocessing {preprocessing!r}; choose one of "
                f"{', '.join(PREPROCESSINGS)}."
            )
        return cls(name, variant, preprocessing or "")

    def check(self, contract: Contract, *, stated: bool) -> None:
        """Refuses weights that are something else.

        Args:
          contract: Of the weights.
          stated: True if the file itself has it; else it follows the request already.

        Raises:
          WeightsError: With what it is instead.
        """
        if self.architecture:
            check_architecture(contract, self.architecture, self.variant)
        if stated and self.preprocessing:
            check_preprocessing(contract, self.preprocessing, allow_mismatch=False)
