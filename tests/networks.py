"""What is known of each network from outside of the package: one record for one more network."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import pytest


class Known(NamedTuple):
    """A network of keras.applications.

    Attributes:
      keras: What it is called there.
      module: Where its preprocess_input is.
      parameters: Its count_params() without its top.
      features: Channels of its pooled features.
      layers: How many convolutions and BatchNorms it has.
      top_ten: Parameters that learn in its last ten layers, and which of our layers hold them.
      shallow: Fields of ours by which it is small enough to differentiate in a second, with every
        kind of layer in it.
      last_layers: A structure for `shallow` that ends in its last layers, so that a long prefix is
        frozen.
      size: Side of small images for it, in pixels.
      published_sizes: Sides at which its features are compared with Keras'.
    """

    keras: str
    module: str
    parameters: int
    features: int
    layers: tuple[int, int]
    top_ten: tuple[int, set[str]]
    shallow: Mapping[str, Any]
    last_layers: str
    size: int
    published_sizes: tuple[int, ...]


KNOWN = {
    "resnet50": Known(
        keras="ResNet50",
        module="resnet",
        parameters=23_587_712,
        features=2048,
        layers=(53, 53),
        top_ten=(
            3_416_576,
            {f"stage4_block3/{layer}" for layer in ("bn1", "conv2", "bn2", "conv3", "bn3")},
        ),
        shallow={"stage_sizes": (2, 1), "width": 8},
        last_layers="layers=stage2_block1/(bn1|conv2|bn2|conv3|bn3)",
        size=32,
        published_sizes=(32, 224, 256),
    ),
    "densenet121": Known(
        keras="DenseNet121",
        module="densenet",
        parameters=7_037_504,
        features=1024,
        layers=(120, 121),
        top_ten=(
            168_128,
            {
                "final_bn",
                *(f"stage4_block16/{layer}" for layer in ("bn1", "conv1", "bn2", "conv2")),
            },
        ),
        shallow={"block_sizes": (2, 1), "growth": 8, "width": 8},
        last_layers="layers=stage2_block1/.*,final_bn",
        size=32,
        published_sizes=(32, 224, 256),
    ),
    "inception_v3": Known(
        keras="InceptionV3",
        module="inception_v3",
        parameters=21_802_784,
        features=2048,
        layers=(94, 94),
        top_ten=(192, {"mixed7c/branch_pool/bn1"}),
        shallow={"repeats": (1, 1, 1), "width": 0.05},
        last_layers="layers=mixed7b/branch_pool/bn1",
        size=75,
        published_sizes=(224, 256, 299),
    ),
    "inception_resnet_v2": Known(
        keras="InceptionResNetV2",
        module="inception_resnet_v2",
        parameters=54_336_736,
        features=1536,
        layers=(244, 204),
        top_ten=(
            4_130_592,
            {"block8_10/branch1/bn3", "block8_10/conv", "conv7b/conv", "conv7b/bn"},
        ),
        shallow={"repeats": (1, 1, 1), "width": 0.05},
        last_layers="layers=block8_1/branch1/bn3,block8_1/conv,conv7b/.*",
        size=75,
        published_sizes=(224, 256, 299),
    ),
}


def each(quick: str) -> pytest.MarkDecorator:
    """A test of every network by its name, slow for all but one."""
    return pytest.mark.parametrize(
        "name",
        [name if name == quick else pytest.param(name, marks=pytest.mark.slow) for name in KNOWN],
    )
