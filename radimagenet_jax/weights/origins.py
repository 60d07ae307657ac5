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

from dataclasses import dataclass, replace

from radimagenet_jax import models
from radimagenet_jax.models.preprocess import PUBLISHED, SCHEMES
from radimagenet_jax.weights.contract import LICENCES, Contract

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

    def stated(self, preprocessing: str) -> "Origin":
        """The same origin with the input that the user states; '' changes nothing."""
        if not preprocessing:
            return self
        order = SCHEMES[preprocessing].channel_order
        if preprocessing == self.preprocessing:
            order = self.channel_order
        return replace(self, preprocessing=preprocessing, channel_order=order, assumption="")

    def contract(self, architecture: str, variant: str, sha256: str) -> Contract:
        """The contract of a file from here that holds this network."""
        return Contract(
            architecture=architecture,
            variant=variant,
            preprocessing=self.preprocessing,
            channel_order=self.channel_order,
            origin=self.title,
            licence=self.licence,
            sha256=sha256,
        )

    @property
    def notes(self) -> tuple[str, ...]:
        """What a report says of it."""
        return (self.assumption,) if self.assumption else ()


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
    entry = models.architecture(architecture)
    native = entry.native_input
    if md5 == entry.imagenet_md5:
        return _imagenet("Keras Applications, ImageNet (known checksum)", native)
    if sha256 == entry.radimagenet_sha256:
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
