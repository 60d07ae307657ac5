"""The contract of a weight file: what the numbers are, and what input they were trained on.

A file of weights says nothing about the input that it expects, and every part of
that (range, mean, channel order, stride variant) can be wrong without an error.
So the contract travels with the weights: beside a converted file, in every
checkpoint and in every report.
"""

import json
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Protocol

from radimagenet_jax import models
from radimagenet_jax.errors import WeightsError, cut
from radimagenet_jax.models.preprocess import SCHEMES, Input
from radimagenet_jax.wording import some

PREPROCESSINGS = tuple(SCHEMES)
CHANNEL_ORDERS = ("RGB", "BGR")

# Written into every contract, so that a later form can tell this one apart.
FORMAT = 1

# In characters: of the whole text, with thousands of labels, and of one of its texts.
_LONGEST = 4_000_000
_LONGEST_TEXT = 2000
# What the origin of a network begins with that was trained here.
_TRAINED_ON = "trained on "

# Of unknown fields or choices, in a message.
_LISTED = 12

LICENCES = {
    "RadImageNet": (
        "RadImageNet weights: the terms of https://github.com/BMEII-AI/RadImageNet and "
        "https://www.radimagenet.com apply; cite doi:10.1148/ryai.210315."
    ),
    "ImageNet": (
        "Keras Applications weights trained on ImageNet: the terms of their authors and of "
        "ImageNet apply."
    ),
    "": "Unknown: ask whoever gave you the file before you pass it on.",
}


def is_plain(text: str, longest: int) -> bool:
    """Whether a text is of sensible length, can be encoded, and controls no terminal."""
    return len(text) <= longest and (
        text.isprintable() or not any(unicodedata.category(each) in ("Cc", "Cs") for each in text)
    )


@dataclass(frozen=True)
class Contract:
    """What a set of weights is.

    Attributes:
      architecture: A name of `radimagenet_jax.models.names()`, e.g. 'resnet50'.
      variant: One of the architecture's variants, such as 'v1.5' (PyTorch's strides); '' where
        there is only one.
      preprocessing: How RGB in 0..255 becomes the input: a name of `PREPROCESSINGS`.
      channel_order: 'RGB' or 'BGR', the order that the first kernel expects.
      origin: Where the weights come from, for people.
      licence: What their owner allows, for people.
      sha256: Of the file they were read from, 64 lower-case hexadecimal digits.
      labels: Class names of the head in index order; None without a head.
      layout: Of the convolution kernels in memory; always 'HWIO'.
    """

    architecture: str
    variant: str
    preprocessing: str
    channel_order: str
    origin: str
    licence: str
    sha256: str
    labels: tuple[str, ...] | None = None
    layout: str = "HWIO"

    def __post_init__(self):
        texts = ("architecture", "variant", "preprocessing", "channel_order", "origin", "licence")
        for name in texts:
            _require(isinstance(getattr(self, name), str), name, "is not a text")
            _require(
                _can_be_shown(getattr(self, name)), name, "is too long or has control characters"
            )
        _require(bool(self.architecture), "architecture", "is empty")
        # A variant of a network that is not known here may be right.
        variants = sorted({"", *(each for name in models.names() for each in _variants(name))})
        for name, known in (
            ("variant", variants if self.architecture in models.names() else (self.variant,)),
            ("preprocessing", PREPROCESSINGS),
            ("channel_order", CHANNEL_ORDERS),
        ):
            _require(getattr(self, name) in known, name, f"is none of {_listed(known)}")
        _require(_is_sha256(self.sha256), "sha256", "is not 64 lower-case hexadecimal digits")
        _require(self.layout == "HWIO", "layout", "is not 'HWIO', the only one that is read")
        if self.labels is not None:
            _require(
                isinstance(self.labels, tuple)
                and len(self.labels) > 0
                and all(isinstance(label, str) for label in self.labels)
                and len(set(self.labels)) == len(self.labels),
                "labels",
                "is neither null nor a list of distinct class names",
            )
            _require(
                all(map(_can_be_shown, self.labels)),
                "labels",
                "has a name that is too long or has control characters",
            )

    @property
    def input(self) -> Input:
        """What the network takes, to be made of images."""
        return Input(self.preprocessing, self.channel_order)

    def after_training(self, dataset: str, terms: str) -> "Contract":
        """What the weights are once they have learnt from a data set.

        Args:
          dataset: Its name.
          terms: What its owner allows, which the licence then says too.
        """
        licence = self.licence if terms in self.licence else f"{self.licence} {terms}"
        return replace(
            self,
            origin=cut(f"{_TRAINED_ON}{dataset}, from {self.origin}", _LONGEST_TEXT),
            licence=cut(licence, _LONGEST_TEXT),
        )

    def to_json(self) -> str:
        """Returns the contract as one JSON object, with its format's number, for people too."""
        return json.dumps({"format": FORMAT, **asdict(self)}, indent=2, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: str, *, name: str = "contract.json") -> "Contract":
        """Reads what `to_json` wrote, strictly.

        Args:
          text: The JSON text.
          name: What to call it in an error.

        Returns:
          The contract.

        Raises:
          WeightsError: If the text is not JSON, a field is missing, unknown or
            wrong, or the format is a later one.
        """
        return cls.with_extra(text, None, name=name)[0]

    @classmethod
    def with_extra(cls, text: str, key: str | None, *, name: str) -> tuple["Contract", str | None]:
        """Reads a contract whose text may have a digest beside the contract's own fields.

        Args:
          text: The JSON text.
          key: What the digest is called; None if there must be none.
          name: What to call the text in an error.

        Returns:
          The contract, and the digest; None if there is none.

        Raises:
          WeightsError: As for `from_json`, and if the digest is not 64 hexadecimal digits.
        """
        if len(text) > _LONGEST:
            raise WeightsError(
                f"{name} is not a weight contract: it has {len(text):,} characters; convert the "
                "original weight file again."
            )
        try:
            record: Any = json.loads(text, object_pairs_hook=_distinct)
        except (ValueError, RecursionError) as error:
            raise WeightsError(
                f"{name} is not a weight contract: it is not valid JSON ({error}); convert the "
                "original weight file again."
            ) from error
        if not isinstance(record, Mapping):
            raise WeightsError(
                f"{name} is not a weight contract: it holds no JSON object; convert the original "
                "weight file again."
            )
        given = dict(record)
        extra = given.pop(key, None) if key else None
        if extra is not None and not _is_sha256(extra):
            raise WeightsError(
                f"{name} has a {key} that is not 64 lower-case hexadecimal digits; convert the "
                "original weight file again."
            )
        version = given.pop("format", None)
        if version != FORMAT or not isinstance(version, int) or isinstance(version, bool):
            raise WeightsError(
                f"{name} has contract format {_said(version)}, but this version of radimagenet_jax "
                f"reads format {FORMAT}; convert the original weight file again."
            )
        known = [field.name for field in fields(cls)]
        missing = [key for key in known if key not in given]
        unknown = [key for key in given if key not in known]
        if missing or unknown:
            parts = []
            if missing:
                parts.append(f"lacks {_listed(missing)}")
            if unknown:
                parts.append(f"has unknown {_listed(unknown)}")
            raise WeightsError(
                f"{name} {' and '.join(parts)}; convert the original weight file again."
            )
        if isinstance(given["labels"], list):
            given["labels"] = tuple(given["labels"])
        try:
            return cls(**given), extra
        except WeightsError as error:
            raise WeightsError(f"{name}: {error}") from error


def check_preprocessing(contract: Contract, preprocessing: str, allow_mismatch: bool) -> None:
    """Refuses an input that the weights were not trained on.

    Args:
      contract: Of the weights.
      preprocessing: The scheme that is about to be used, one of `PREPROCESSINGS`.
      allow_mismatch: True if the user has said that the mismatch is wanted.

    Raises:
      WeightsError: If the scheme is unknown, or is another than the contract's and
        `allow_mismatch` is false.
    """
    if preprocessing not in PREPROCESSINGS:
        raise WeightsError(
            f"there is no preprocessing {preprocessing!r}; choose one of {_listed(PREPROCESSINGS)}."
        )
    if preprocessing != contract.preprocessing and not allow_mismatch:
        raise WeightsError(
            f"the weights ({contract.origin}) expect the preprocessing "
            f"{contract.preprocessing!r}, not {preprocessing!r}, and would give wrong features "
            f"without any error; use {contract.preprocessing!r}, or allow the mismatch explicitly."
        )


class Described(Protocol):
    """What a contract says of the network alone, and where it comes from."""

    @property
    def architecture(self) -> str:
        """A name of `models.names()`."""

    @property
    def variant(self) -> str:
        """One of the architecture's variants."""

    @property
    def origin(self) -> str:
        """Where the weights come from, for people."""


def check_architecture(contract: Described, architecture: str, variant: str = "") -> None:
    """Refuses weights for another network, or for another variant of the same one.

    ResNet50 v1 and v1.5 have the same names and shapes, so that only the contract
    can tell a wrong pairing.

    Args:
      contract: Of the weights, or what is known of them without one.
      architecture: The network that they are about to be loaded into.
      variant: Its variant; '' accepts whichever the contract names.

    Raises:
      WeightsError: If either is another than the contract's.
    """
    if architecture != contract.architecture:
        raise WeightsError(
            f"the weights ({contract.origin}) are those of {contract.architecture}, "
            f"not of {architecture}; name the right network or give its own weights."
        )
    if variant and variant != contract.variant:
        raise WeightsError(
            f"the weights ({contract.origin}) are those of {architecture} "
            f"{contract.variant or '(Keras)'}, which computes other features than {variant} though "
            "the shapes agree (strides, epsilon or padding differ); "
            f"build the network with variant={contract.variant!r}."
        )


def _variants(name: str) -> tuple[str, ...]:
    return models.architecture(name).variants


def is_trained(origin: str) -> bool:
    """Tells whether an origin is one that `Contract.after_training` gave."""
    return origin.startswith(_TRAINED_ON)


def _require(holds: bool, field: str, fault: str) -> None:
    if not holds:
        raise WeightsError(f"the contract's {field} {fault}; correct it or convert again.")


def _listed(names: Sequence[str]) -> str:
    return some(names, _LISTED, lambda name: repr(name[:80]))


def _said(version: Any) -> str:
    return repr(version)[:40] if isinstance(version, int | float | str | None) else "of its own"


def _is_sha256(text: Any) -> bool:
    return isinstance(text, str) and len(text) == 64 and set(text) <= set("0123456789abcdef")


def _can_be_shown(text: str) -> bool:
    return is_plain(text, _LONGEST_TEXT)


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object whose names are distinct: of two of one name, either may be the right one."""
    record = dict(pairs)
    if len(record) != len(pairs):
        raise ValueError("it has two fields of one name")
    return record
