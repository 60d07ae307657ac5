"""The card: what a person must know of an exported network, inside its file."""

import json
import zipfile
from pathlib import Path
from typing import Any

from radimagenet_jax.exports.source import FEATURES, IMAGES, PROBABILITIES, Source
from radimagenet_jax.version import __version__
from radimagenet_jax.weights.card import NOT_A_DEVICE

# The member of a zip archive that holds it.
MEMBER = "card.json"


def card(source: Source) -> dict[str, Any]:
    """Returns the card of a network, ready for JSON; what the network has not is left out."""
    size, contract = source.image_size, source.contract
    meanings = {
        PROBABILITIES: "(N, classes) float32, of the classes in their order; they add up to 1",
        FEATURES: "(N, C) float32, the mean of the last activations over the image",
    }
    found: dict[str, Any] = {
        "notice": NOT_A_DEVICE,
        "made_by": f"radimagenet_jax {__version__}",
        "input": {
            IMAGES: f"(N, {size}, {size}, 3) uint8, RGB; a grey image three times; resized with "
            "nearest neighbour; the preprocessing is inside",
        },
        "outputs": {name: meanings[name] for name in source.outputs},
    }
    if contract.labels:
        found["classes"] = list(contract.labels)
    usage = source.usage
    if contract.labels and usage.threshold is not None:
        found["operating_point"] = {
            "positive": usage.positive,
            "threshold": usage.threshold,
            "meaning": "positive where its probability is at least the threshold, which was fixed "
            "on validation images",
        }
    if usage.windows:
        found["dicom"] = {
            "windows": [{"center": center, "width": width} for center, width in usage.windows],
            "unwrap": usage.unwrap,
        }
    found["contract"] = json.loads(contract.to_json())
    return found


def as_texts(source: Source) -> dict[str, str]:
    """Returns the card as texts by name; what is no text is JSON."""
    return {
        name: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        for name, value in card(source).items()
    }


def append(path: Path, source: Source) -> None:
    """Adds the card to a zip archive, or a zip archive with the card to any other file.

    Formats that are read from their beginning do not mind what follows.

    Raises:
      OSError: If the disk refuses.
    """
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(MEMBER, json.dumps(card(source), indent=2, ensure_ascii=False) + "\n")
