"""What a user says that a weight file is."""

from dataclasses import dataclass

from radimagenet_jax import models
from radimagenet_jax.errors import WeightsError
from radimagenet_jax.weights.assembly import Named
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
      preprocessing: The input that the weights expect, where no contract states it.
      unless_told: The input where nothing else tells it.
    """

    architecture: str = ""
    variant: str = ""
    preprocessing: str = ""
    unless_told: str = ""

    @classmethod
    def of(
        cls, architecture: str | None, preprocessing: str | None, unless_told: str | None = None
    ) -> "Request":
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
        for named in (preprocessing, unless_told):
            if named is not None and named not in PREPROCESSINGS:
                raise WeightsError(
                    f"there is no preprocessing {named!r}; choose one of "
                    f"{', '.join(PREPROCESSINGS)}."
                )
        return cls(name, variant, preprocessing or "", unless_told or "")

    def check(self, named: Named) -> None:
        """Refuses weights that are something else.

        Args:
          named: What the file holds.

        Raises:
          WeightsError: With what it is instead.
        """
        if self.architecture:
            check_architecture(named.network, self.architecture, self.variant)
        if named.contract is not None and self.preprocessing:
            check_preprocessing(named.contract, self.preprocessing, allow_mismatch=False)

    def settled(self, named: Named, *, file: str) -> tuple[Contract, str]:
        """Settles which input a file's weights expect.

        Args:
          named: What the file holds.
          file: Its name, for messages.

        Returns:
          The contract, and who tells the input: it is 'stated' by the file's own contract, there
          is 'evidence', or only the 'user' says it.

        Raises:
          WeightsError: If nobody tells it.
        """
        if named.contract is not None:
            return named.contract, "stated"
        known = named.known
        assert known is not None, "a scheme gives the contract or what is known without one"
        has_evidence = bool(known.source.preprocessing)
        said = self.preprocessing or ("" if has_evidence else self.unless_told)
        contract = known.source.stated(said).contract(
            known.architecture, known.variant, known.sha256, file=file
        )
        return contract, "evidence" if has_evidence and not said else "user"
