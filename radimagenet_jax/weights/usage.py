"""How a network is to be used, which its weights and their input alone do not say."""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import NoneType

from radimagenet_jax import own_files
from radimagenet_jax.errors import WeightsError

_LARGEST_IMAGE = 4096
_DTYPES = ("float32", "bfloat16")
_FORM: Mapping[str, own_files.Form] = {
    "image_size": (int, NoneType),
    "positive": (str, NoneType),
    "threshold": own_files.NUMBER_OR_NONE,
    "dtype": str,
    "windows": [[own_files.NUMBER, 2]],
    "unwrap": bool,
}


@dataclass(frozen=True)
class Usage:
    """How a network is to be used.

    Attributes:
      image_size: Side S of the square input that it was trained with, in pixels; None if unknown.
      positive: Name of the class whose score is judged; None if unknown.
      threshold: The operating point fixed on validation: an image is called positive if the score
        of that class is at least this; None if none was fixed.
      dtype: What it was trained to compute in, 'float32' or 'bfloat16'.
      windows: Centre and width of the windows through which its training saw DICOM files, one or,
        for three channels, three; () for each file's own.
      unwrap: Whether negative values were taken to be stored wrapped around, see
        `data.dicom.decode_dicom`.

    Raises:
      ValueError: If a value is outside its range.
    """

    image_size: int | None = None
    positive: str | None = None
    threshold: float | None = None
    dtype: str = "float32"
    windows: tuple[tuple[float, float], ...] = ()
    unwrap: bool = False

    def __post_init__(self) -> None:
        if self.image_size is not None and not 1 <= self.image_size <= _LARGEST_IMAGE:
            raise ValueError(f"'image_size' is not from 1 to {_LARGEST_IMAGE}")
        if self.threshold is not None and not math.isfinite(self.threshold):
            raise ValueError("'threshold' is not a finite number")
        if self.dtype not in _DTYPES:
            raise ValueError(f"'dtype' is none of {', '.join(_DTYPES)}")
        if len(self.windows) not in (0, 1, 3) or any(width < 1 for _, width in self.windows):
            raise ValueError("'windows' are neither none, one nor three, each at least 1 wide")

    def to_json(self) -> str:
        """Returns it as one JSON object."""
        return json.dumps(asdict(self), indent=2, ensure_ascii=False) + "\n"

    @classmethod
    def read(cls, path: Path) -> "Usage":
        """Reads what `to_json` wrote; nothing is known if the file is not there.

        Raises:
          WeightsError: If the file is damaged.
        """
        if not path.is_file():
            return cls()
        remedy = "remove it, or convert the original weights again"
        record = own_files.read_json(path, _FORM, remedy, WeightsError)
        try:
            windows = tuple((center, width) for center, width in record["windows"])
            return cls(**{name: record[name] for name in _FORM} | {"windows": windows})
        except ValueError as error:
            raise WeightsError(f"{path} is damaged ({error}); {remedy}.") from error

    def check(self, labels: tuple[str, ...] | None, path: Path) -> None:
        """Refuses a positive class that the weights do not have.

        Raises:
          WeightsError: If the labels lack it.
        """
        if self.positive is not None and self.positive not in (labels or ()):
            raise WeightsError(
                f"{path} names the positive class {self.positive!r}, which the weights beside it "
                "do not have; remove it, or convert the original weights again."
            )
