"""Where a weight file comes from, and so which input it expects.

No file of Keras or PyTorch states its input. What can be told, from the surest sign to the weakest:

1. A contract that this project stored in the file.
2. A checksum that its publisher or a third party has made known.
3. Signs that no other file has: RadImageNet's name on a whole model that Keras 2 saved without a
   head, or on a ResNet50 whose convolutions have biases under PyTorch's names, which is a port of
   the former; and the names `backbone.<number>` that RadImageNet's PyTorch example gives.

Of all other files the input is not known: the layers of a network are the same whether it
was trained on ImageNet, on RadImageNet or on a user's images. Who loads one has to say it.
"""

import re
from dataclasses import dataclass, replace

from radimagenet_jax import models
from radimagenet_jax.errors import WeightsError
from radimagenet_jax.models.preprocess import PUBLISHED, SCHEMES
from radimagenet_jax.weights.contract import LICENCES, Contract
from radimagenet_jax.weights.opened import Opened

# What each input is known from, for who has to choose.
_USED_BY = {
    "caffe_div255": "the published RadImageNet scripts, for every network",
    "caffe": "Keras Applications' ResNet50",
    "torch": "torchvision, timm, Keras Applications' DenseNet121",
    "tf": "Keras Applications' Inception networks",
}


@dataclass(frozen=True)
class Origin:
    """Where a file comes from, as far as it can be told.

    Attributes:
      title: For people, e.g. 'RadImageNet, released Keras file'.
      licence: A note on what its owner allows.
      preprocessing: The input that it expects; '' where nothing tells.
      channel_order: 'RGB' or 'BGR'; '' where nothing tells.
      evidence: A sentence on what tells it, if that is less than a checksum, else ''.
    """

    title: str
    licence: str
    preprocessing: str = ""
    channel_order: str = ""
    evidence: str = ""

    def stated(self, preprocessing: str) -> "Origin":
        """The same origin with the input that the user states; '' changes nothing."""
        if not preprocessing:
            return self
        order = SCHEMES[preprocessing].channel_order
        if preprocessing == self.preprocessing:
            order = self.channel_order
        return replace(self, preprocessing=preprocessing, channel_order=order, evidence="")

    def contract(self, architecture: str, variant: str, sha256: str, *, file: str) -> Contract:
        """The contract of a file from here that holds this network.

        Raises:
          WeightsError: If its input is not known, with what it can be and how to say it.
        """
        if not self.preprocessing:
            offered = "; ".join(f"{name!r} ({who})" for name, who in _USED_BY.items())
            raise WeightsError(
                f"{file} holds the weights of {models.architecture(architecture).title}, and "
                f"nothing in it says which input they were trained on ({self.title}): say it with "
                "preprocessing=NAME in Python, --preprocessing=NAME for `convert` and `predict`, "
                f"or --config.preprocessing=NAME in training, where NAME is one of {offered}."
            )
        return Contract(
            architecture=architecture,
            variant=variant,
            preprocessing=self.preprocessing,
            channel_order=self.channel_order,
            origin=self.title,
            licence=self.licence,
            sha256=sha256,
        )


def of_keras(architecture: str, opened: Opened, *, md5: str, sha256: str, whole: bool) -> Origin:
    """Returns where a Keras file comes from, by the rule of this module.

    Args:
      architecture: What its layers are.
      opened: The file.
      md5: Of the whole file.
      sha256: Of the whole file.
      whole: True if it holds the network without its top and nothing else.

    Returns:
      The origin.
    """
    entry = models.architecture(architecture)
    native = entry.native_input
    if md5 in (entry.imagenet_md5, entry.imagenet_top_md5) and md5:
        return Origin(
            "Keras Applications, ImageNet (known checksum)",
            LICENCES["ImageNet"],
            native,
            SCHEMES[native].channel_order,
        )
    if sha256 == entry.radimagenet_sha256:
        return _radimagenet("RadImageNet, released Keras file (known checksum)")
    version = opened.keras_version
    if (
        whole
        and opened.whole_model
        and version.startswith("2.")
        and entry.released
        and re.match(rf"RadImageNet-{entry.released}_notop\b", opened.path.name)
    ):
        return _radimagenet(
            "RadImageNet, released Keras file (by its name and form)",
            f"Its name and form are those of RadImageNet's released file, whose input is "
            f"{PUBLISHED!r}; its checksum is not known.",
        )
    writer = f"Keras {version}".rstrip() if version else "Keras' names"
    return Origin(f"{writer}, origin not stated", LICENCES[""])


def of_torch(
    architecture: str, file_name: str, *, with_biases: bool, numbered: bool, whole: bool
) -> Origin:
    """Returns where a file with PyTorch's names comes from, by the rule of this module.

    Args:
      architecture: What its layers are.
      file_name: Without folders.
      with_biases: True if its convolutions have biases.
      numbered: True if its tensors are called `backbone.<number>`, as in RadImageNet's example.
      whole: True if it holds the network without its top and nothing else.

    Returns:
      The origin.
    """
    is_released = bool(models.architecture(architecture).released)
    if is_released and with_biases and "RadImageNet" in file_name:
        return _radimagenet(
            "RadImageNet, Keras weights ported to PyTorch",
            "It has RadImageNet's name and its convolutions have biases, so it is taken as a port "
            f"of the released Keras file, with the input {PUBLISHED!r}.",
        )
    if is_released and numbered and not with_biases:
        return Origin(
            title="RadImageNet, released PyTorch file"
            if whole
            else "a network in the form of RadImageNet's PyTorch example",
            licence=LICENCES["RadImageNet" if whole else ""],
            preprocessing="tf",
            channel_order="BGR",
            evidence="Its tensors are called as in RadImageNet's PyTorch files, so its input is "
            "taken as BGR in [-1, 1], as the RadImageNet notebooks feed it; if it was trained with "
            "ImageNet's mean and SD, say preprocessing='torch'.",
        )
    return Origin("PyTorch's names, origin not stated", LICENCES[""])


def _radimagenet(title: str, evidence: str = "") -> Origin:
    order = SCHEMES[PUBLISHED].channel_order
    return Origin(title, LICENCES["RadImageNet"], PUBLISHED, order, evidence)
