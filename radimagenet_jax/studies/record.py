"""What a group keeps of how it was computed, so that the page of a study can say it."""

import json
from collections.abc import Sequence
from typing import Any

from ml_collections import ConfigDict

from radimagenet_jax.reports import provenance
from radimagenet_jax.studies.images import Images
from radimagenet_jax.training.network import Start


def made_by(command: Sequence[str]) -> provenance.Provenance:
    """When, by which command, with what and on what a group was computed."""
    stamped = provenance.stamp(command, provenance.devices())
    return {**stamped, "smoke": provenance.is_smoke(stamped["command"])}


def weights(single: ConfigDict, start: Start) -> dict[str, Any]:
    """What the runs of a group began with: its contract, None for scratch, and the network."""
    from_scratch = single.init == "scratch"
    options = single.model_options.to_dict()
    return {
        "weights": None if from_scratch else json.loads(start.contract.to_json()),
        "weights_remarks": list(start.remarks),
        "network": provenance.network(single.model, options, single.image_size),
    }


def training(single: ConfigDict, images: Images, positive: int) -> dict[str, Any]:
    """On what the runs of a group were trained and judged, and by which recipe.

    Args:
      single: The config of one of them.
      images: Of the task.
      positive: Index of the class whose AUROC is reported.
    """
    return {
        "epochs": single.epochs,
        "batch_size": single.batch_size,
        "image_size": single.image_size,
        "positive": images.class_names[positive],
        "class_names": list(images.class_names),
        "images": {
            "name": single.dataset.name,
            "terms": images.terms,
            "fingerprints": {str(fold): digest for fold, digest in images.fingerprints.items()},
            "sizes": {
                str(fold): {split: len(places) for split, places in splits.items()}
                for fold, splits in images.splits.items()
            },
        },
    }
