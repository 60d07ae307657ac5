"""`load_pretrained`: a weight file becomes a network that is ready for images.

from radimagenet_jax import load_pretrained

pretrained = load_pretrained("RadImageNet-ResNet50_notop.h5")
x = pretrained.preprocess(images)            # uint8 (N, H, W, 1 or 3)
features = pretrained.features(x)            # 'spatial' and 'pooled'
"""

import functools
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from radimagenet_jax import models
from radimagenet_jax.errors import DataError
from radimagenet_jax.models import ops
from radimagenet_jax.models.preprocess import SCHEMES
from radimagenet_jax.weights import reading
from radimagenet_jax.weights.contract import Contract
from radimagenet_jax.weights.loaded import Report

# Images per call of the compiled network: enough to keep it busy, and little memory.
_BATCH = 32


@dataclass(frozen=True)
class Pretrained:
    """A network with its weights and their contract.

    Attributes:
      model: The Linen module in float32, with a head if the file has one dense layer on the pooled
        features.
      variables: {'params', 'batch_stats'}, plain nested dicts of float32 arrays.
      contract: What the weights are, and which input they expect.
      report: How they were read; `report.lines()` is for people.
      num_classes: Of the head, None without one; `contract.labels` names its classes if the file
        does.
      image_size: Side of the images that a run was trained on, in pixels; None of a file.
    """

    model: nn.Module
    variables: Mapping[str, Any]
    contract: Contract
    report: Report
    num_classes: int | None = None
    image_size: int | None = None

    def preprocess(self, images: Any) -> jax.Array:
        """Turns images into the input that these weights were trained on.

        Args:
          images: (N, H, W, 1) grey or (N, H, W, 3) RGB, uint8, 0..255; resized by the
            caller, with nearest neighbour in the published protocol.

        Returns:
          (N, H, W, 3) float32 in the contract's range and channel order.

        Raises:
          DataError: If the shape, dtype or range is another: the result would be wrong
            without any error.
        """
        self._check_images(images)
        return self.contract.input.of(jnp.asarray(images))

    def features(self, x: Any) -> dict[str, jax.Array]:
        """Applies the network to preprocessed images, in inference mode.

        The network is compiled once for an image size and a power of two of images, up
        to 32 images a call; longer inputs run call by call.

        Args:
          x: (N, H, W, 3) floating point, as `preprocess` returns it.

        Returns:
          {'spatial': (N, h, w, C), 'pooled': (N, C)}, float32; C is the architecture's
          feature size.

        Raises:
          DataError: If x has another shape or dtype, or is too small for the network.
        """
        self._check_input(x)
        count, parts = x.shape[0], []
        for start in range(0, count, _BATCH):
            part = jnp.asarray(x[start : start + _BATCH], jnp.float32)
            kept = part.shape[0]
            # Padding to a power of two bounds the number of compilations.
            padded = 1 << (kept - 1).bit_length()
            part = jnp.pad(part, ((0, padded - kept), (0, 0), (0, 0), (0, 0)))
            out = self._apply(self.variables, part)
            parts.append({key: value[:kept] for key, value in out.items()})
        if len(parts) == 1:
            return parts[0]
        return {key: jnp.concatenate([part[key] for part in parts]) for key in parts[0]}

    @functools.cached_property
    def _apply(self) -> Callable[..., dict[str, jax.Array]]:
        def apply(variables: Mapping[str, Any], x: jax.Array) -> dict[str, jax.Array]:
            _, out = self.model.apply(variables, x, train=False)
            return {key: out[key].astype(jnp.float32) for key in ("spatial", "pooled")}

        return ops.jit(apply)

    def _check_images(self, images: Any) -> None:
        shape, dtype = getattr(images, "shape", None), getattr(images, "dtype", None)
        if shape is None or dtype is None:
            raise DataError(
                f"preprocess takes one array of images, not {type(images).__name__}; stack the "
                "images with numpy.stack."
            )
        if len(shape) != 4 or shape[-1] not in (1, 3):
            hint = "add the batch axis: images[None]" if len(shape) == 3 else "bring them to it"
            raise DataError(
                f"preprocess takes images (N, H, W, 1 or 3), not {tuple(shape)}; {hint}."
            )
        if 0 in shape:
            raise DataError(f"preprocess got no pixels: the images are {tuple(shape)}.")
        if dtype != np.uint8:
            largest = float(np.max(images)) if np.dtype(dtype).kind in "biuf" else float("nan")
            if np.dtype(dtype).kind == "f" and largest <= 1.0:
                hint = "they look scaled to [0, 1]: multiply by 255 and round first"
            elif np.dtype(dtype).kind in "iu" and largest > 255:
                hint = "bring them to 8 bits first, with the window that a reader would choose"
            else:
                hint = "if they hold whole grey values of 0..255, use images.astype('uint8')"
            raise DataError(
                f"preprocess takes uint8 images of 0..255, not {np.dtype(dtype).name} up to "
                f"{largest:g}; {hint}."
            )

    def _check_input(self, x: Any) -> None:
        shape, dtype = getattr(x, "shape", None), getattr(x, "dtype", None)
        if shape is None or dtype is None:
            raise DataError(f"features takes one array, not {type(x).__name__}; stack it first.")
        if not jnp.issubdtype(dtype, jnp.floating):
            raise DataError(
                f"features takes preprocessed images, not {np.dtype(dtype).name}; call "
                "preprocess first."
            )
        entry = models.architecture(self.contract.architecture)
        if len(shape) != 4 or shape[-1] != 3 or 0 in shape:
            raise DataError(f"features takes images (N, H, W, 3), not {tuple(shape)}.")
        if min(shape[1:3]) < entry.min_image_size:
            raise DataError(
                f"{entry.title} needs images of at least {entry.min_image_size} pixels a side, "
                f"not {shape[1]} x {shape[2]}; resize them."
            )
        scheme = SCHEMES[self.contract.preprocessing]
        ends = (np.array([[0.0], [255.0]]) / scheme.divisor - scheme.mean) / scheme.std
        low, high = ends.min(), ends.max()
        # Interpolation may overshoot a little; ten times the range is another scheme.
        largest = float(jnp.max(jnp.abs(x)))
        if largest > 10 * max(-low, high):
            warnings.warn(
                f"the input has values up to {largest:.4g} in magnitude, but "
                f"{self.contract.preprocessing!r} gives {low:.3g} to {high:.3g}: was it "
                "preprocessed?",
                stacklevel=3,
            )


def load_pretrained(
    path: str | Path, *, architecture: str | None = None, preprocessing: str | None = None
) -> Pretrained:
    """Loads a weight file, whole and strictly, and the network that it belongs to.

    Args:
      path: A released RadImageNet file, any other form that `weights.reading` knows, or the working
        directory of a run of ours, which gives its best network with its head.
      architecture: What the network must be, e.g. 'resnet50' or 'resnet50:v1'; None
        recognises it by the file's layers.
      preprocessing: The input that the weights expect: 'caffe_div255', 'caffe', 'torch' or
        'tf'. None takes the file's contract or the signs of `weights.origins`; it has to be said
        for a file that has neither.

    Returns:
      The network, its variables, its contract, and the two functions of its use.

    Raises:
      WeightsError: In one sentence, if the file is missing, damaged, of another network,
        contradicts an argument, or does not tell its input. Nothing is partly loaded.
    """
    weights = reading.read(path, architecture=architecture, preprocessing=preprocessing)
    return Pretrained(
        weights.network(),
        weights.variables,
        weights.contract,
        weights.report,
        weights.num_classes,
        weights.config["image_size"] if weights.config else None,
    )
