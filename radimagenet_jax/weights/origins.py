"""Where a weight file comes from, and so which input it expects.

No released file states its input. The rule, from the surest sign to the weakest:

1. A contract that this project stored in the file.
2. A checksum that its publisher or a third party has made known.
3. For PyTorch names: convolutions with biases are the port of the RadImageNet
   Keras ResNet50 (v1 strides, the Keras input); without them it is a network trained
   in PyTorch (v1.5 strides, BGR in [-1, 1], as the RadImageNet notebooks feed it).
4. Keras Applications' own file name pattern, or a file written by Keras 3: the
   network's native ImageNet input, since RadImageNet was released with Keras 2.
5. Any other Keras 2 file: RadImageNet, with the input of its published scripts.

The last three are conventions, not knowledge: the reader says so, and a
preprocessing named by the user replaces what they give.
"""

from dataclasses import dataclass

from radimagenet_jax.models.preprocess import PUBLISHED, SCHEMES
from radimagenet_jax.weights.contract import LICENCES

# What keras.applications' preprocess_input of each network does.
NATIVE = {
    "resnet50": "caffe",
    "densenet121": "torch",
    "inception_v3": "tf",
    "inception_resnet_v2": "tf",
}

# md5 of the files without top, as keras.applications checks them after the download.
_IMAGENET_MD5 = {
    "4d473c1dd8becc155b73f8504c6f6626": "resnet50",
    "30ee3e1110167f948a6b9946edeeb738": "densenet121",
    "bcbd6486424b2319ff4ef7d526e38f63": "inception_v3",
    "d19885ff4a710c122648d3b5c3b684e4": "inception_resnet_v2",
}

# As third parties report it; upstream publishes none.
_RADIMAGENET_SHA256 = {
    "1f1d1c9fe6ab6980daa5e528145fe0db249c55415f8b3e1f3e3b1624d184f159": "resnet50",
}

# Every file of keras.applications is called so; RadImageNet's are 'RadImageNet-..._notop'.
_KERAS_APPLICATIONS_NAME = "_weights_tf_dim_ordering_tf_kernels"


@dataclass(frozen=True)
class Origin:
    """Where a file comes from, as far as it can be told.

    Attributes:
      title: For people, e.g. 'RadImageNet, released Keras file'.
      licence: A note on what its owner allows.
      preprocessing: The input that it expects.
      channel_order: 'RGB' or 'BGR'.
      assumption: A sentence if this follows from a convention only, else ''.
    """

    title: str
    licence: str
    preprocessing: str
    channel_order: str
    assumption: str = ""


def of_keras(
    architecture: str, *, file_name: str, md5: str, sha256: str, keras_version: str
) -> Origin:
    """Returns where a Keras file comes from, by the rule of this module.

    Args:
      architecture: What its layers are.
      file_name: Without folders.
      md5: Of the whole file.
      sha256: Of the whole file.
      keras_version: Of the writer, '' if unknown.

    Returns:
      The origin.
    """
    native = NATIVE.get(architecture, PUBLISHED)
    if _IMAGENET_MD5.get(md5) == architecture:
        return _imagenet("Keras Applications, ImageNet (known checksum)", native)
    if _RADIMAGENET_SHA256.get(sha256) == architecture:
        return _radimagenet("RadImageNet, released Keras file (known checksum)")
    if _KERAS_APPLICATIONS_NAME in file_name:
        return _imagenet(
            "Keras Applications, ImageNet (by its file name)",
            native,
            f"By its name this is Keras' own ImageNet file, so its input is taken as {native!r}.",
        )
    if keras_version.startswith("3"):
        return _imagenet(
            "Keras 3 (taken as Keras Applications, ImageNet)",
            native,
            f"Keras 3 wrote this file, so its input is taken as Keras Applications' {native!r}; "
            f"if these are RadImageNet weights, say preprocessing={PUBLISHED!r}.",
        )
    return _radimagenet(
        "RadImageNet, Keras 2 file",
        f"Keras 2 files are taken as RadImageNet's, with the input {PUBLISHED!r}; if these are "
        f"ImageNet weights, say preprocessing={native!r}.",
    )


def of_torch(*, with_biases: bool) -> Origin:
    """Returns where a file with PyTorch's names comes from, by the rule of this module.

    Args:
      with_biases: True if its convolutions have biases.

    Returns:
      The origin.
    """
    if with_biases:
        return _radimagenet(
            "RadImageNet, Keras weights ported to PyTorch",
            "Its convolutions have biases, so it is taken as a port of the released Keras file, "
            f"with the input {PUBLISHED!r}.",
        )
    return Origin(
        title="RadImageNet, released PyTorch file",
        licence=LICENCES["RadImageNet"],
        preprocessing="tf",
        channel_order="BGR",
        assumption="Its input is taken as BGR in [-1, 1], as the RadImageNet notebooks feed it; if "
        "it was trained with ImageNet's mean and SD, say preprocessing='torch'.",
    )


def stated(origin: Origin, preprocessing: str | None) -> Origin:
    """Returns the origin with the preprocessing that the user states, if any.

    Args:
      origin: By the rule of this module.
      preprocessing: A name of `SCHEMES`, or None.

    Returns:
      The same origin, or one whose input is the user's word.
    """
    if preprocessing is None:
        return origin
    return Origin(
        title=origin.title,
        licence=origin.licence,
        preprocessing=preprocessing,
        channel_order=origin.channel_order
        if preprocessing == origin.preprocessing
        else SCHEMES[preprocessing].channel_order,
    )


def _radimagenet(title: str, assumption: str = "") -> Origin:
    return Origin(
        title,
        LICENCES["RadImageNet"],
        PUBLISHED,
        SCHEMES[PUBLISHED].channel_order,
        assumption,
    )


def _imagenet(title: str, native: str, assumption: str = "") -> Origin:
    return Origin(title, LICENCES["ImageNet"], native, SCHEMES[native].channel_order, assumption)
