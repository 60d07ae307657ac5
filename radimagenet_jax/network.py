"""`Network`: a network with its weights, ready for images.

It is what `load_pretrained` and `create_model` return: images in; scores, features and maps out.
"""

import functools
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from numpy.typing import NDArray

from radimagenet_jax import models
from radimagenet_jax.errors import ConfigError, DataError
from radimagenet_jax.models import ops
from radimagenet_jax.models.network import HEAD
from radimagenet_jax.models.preprocess import Input
from radimagenet_jax.weights import native
from radimagenet_jax.weights.contract import Contract
from radimagenet_jax.weights.loaded import Report
from radimagenet_jax.weights.usage import Usage
from radimagenet_jax.wording import some

# Images per call of the compiled network: enough to keep it busy, and little memory.
_BATCH = 32
_IMAGE_SIZE = 224
# Rows that a table shows when it is printed.
_SHOWN = 20


@dataclass(frozen=True)
class Scored:
    """What a network says of N images: one table.

    Attributes:
      keys: What each image is called.
      class_names: Of C classes.
      scores: (N, C) float32, the softmax of the logits.
    """

    keys: tuple[str, ...]
    class_names: tuple[str, ...]
    scores: NDArray[np.float32]

    @property
    def prediction(self) -> tuple[str, ...]:
        """Name of the class with the highest score, of each image."""
        return tuple(self.class_names[best] for best in self.scores.argmax(-1).tolist())

    def columns(self) -> dict[str, Any]:
        """The table by column, as `pandas.DataFrame(scored.columns())` takes it."""
        scores = {f"score_{name}": self.scores[:, i] for i, name in enumerate(self.class_names)}
        return {"key": self.keys, "prediction": self.prediction, **scores}

    def __len__(self) -> int:
        return len(self.keys)

    def __str__(self) -> str:
        columns = self.columns()
        rows = [
            [value if isinstance(value, str) else f"{value:.4f}" for value in row]
            for row in zip(*columns.values(), strict=True)
        ][:_SHOWN]
        widths = [max(map(len, column)) for column in zip(columns, *rows, strict=True)]
        lines = (
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in ([*columns], *rows)
        )
        more = [f"... and {len(self) - _SHOWN:,} more"] if len(self) > _SHOWN else []
        return "\n".join([*lines, *more])


@dataclass(frozen=True)
class Network:
    """A network with its weights, their contract and its use.

    Attributes:
      model: The Linen module, with a head if there are classes; it computes in float32, or in the
        precision of the run that it was trained by.
      variables: {'params', 'batch_stats'}, plain nested dicts of float32 arrays.
      contract: What the weights are, and which input they expect.
      report: How they were read or made; `report.lines()` is for people.
      num_classes: Of the head, None without one.
      usage: Image size, positive class and operating point, as far as they are known.
    """

    model: models.Network
    variables: Mapping[str, Any]
    contract: Contract
    report: Report
    num_classes: int | None = None
    usage: Usage = field(default_factory=Usage)

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """Names of the classes in the order of the scores; None without a head.

        Classes that nobody has named are called '0', '1' and so on.
        """
        if self.num_classes is None:
            return None
        return self.contract.labels or tuple(map(str, range(self.num_classes)))

    @property
    def image_size(self) -> int:
        """Side of the images that `predict` makes, in pixels: that of the training, or 224."""
        return self.usage.image_size or _IMAGE_SIZE

    def replace(self, **fields: Any) -> "Network":
        """Returns the same network with other fields, such as `variables` that were trained."""
        return replace(self, **fields)

    # ------------------------------------------------------------------ Input
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
        _check_images(images)
        return self.contract.input.of(jnp.asarray(images))

    def _input(self, x: Any) -> Any:
        """The network's input of images or of what `preprocess` made of them."""
        if getattr(x, "dtype", None) == np.uint8:
            return self.preprocess(x)
        self._check_input(x)
        return x

    # ------------------------------------------------------------------ Output
    def apply(self, images: Any, maps_of: int | None = None) -> dict[str, jax.Array]:
        """Applies the network to one batch of images; the call returns before it is computed.

        It is compiled once for each shape, preprocessing included.

        Args:
          images: (B, S, S, 1 or 3) uint8, 0..255.
          maps_of: Index of a class, for its activation maps.

        Returns:
          'pooled' (B, C); with a head 'scores' (B, classes); with `maps_of` 'maps' (B, h, w), as
          `cam(..., size=0)` gives them. All are float32.
        """
        out = self._compiled["images"](self.variables, images)
        spatial = out.pop("spatial")
        if maps_of is not None:
            out["maps"] = _products(spatial, self.variables["params"][HEAD]["kernel"][:, maps_of])
        return out

    def features(self, x: Any) -> dict[str, jax.Array]:
        """Applies the network in inference mode.

        The network is compiled once for an image size and a power of two of images, up
        to 32 images a call; longer inputs run call by call.

        Args:
          x: (N, H, W, 3) floating point, as `preprocess` returns it, or images as it takes them.

        Returns:
          {'spatial': (N, h, w, C), 'pooled': (N, C)}, float32; C is the architecture's
          feature size.

        Raises:
          DataError: If x has another shape or dtype, or is too small for the network.

        >>> import numpy as np
        >>> import radimagenet_jax as rin
        >>> net = rin.create_model("resnet50")
        >>> net.features(np.zeros((2, 32, 32, 1), np.uint8))["pooled"].shape
        (2, 2048)
        """
        return self._in_batches(self._input(x), "spatial", "pooled")

    def scores(self, x: Any) -> jax.Array:
        """Scores of images.

        Args:
          x: As for `features`.

        Returns:
          (N, classes) float32, the softmax of the logits.

        Raises:
          DataError: As for `features`.
          ConfigError: If the network has no head.
        """
        self._require_head("scores")
        return self._in_batches(self._input(x), "scores")["scores"]

    def cam(self, x: Any, of: str | int = "positive", *, size: int | None = None) -> jax.Array:
        """Class activation maps: what each place adds to the score of a class.

        The head is one dense layer on the features' mean, so that its logit is, but for the bias,
        the mean of the features at each place times the class's weights. These products are the
        map, exact and without a gradient; Grad-CAM gives the same up to a factor.

        Args:
          x: As for `features`.
          of: Name or index of the class; 'positive' is the run's positive class, else the last.
          size: Side of the maps in pixels; None for that of the images, 0 for the features' own
            (h, w).

        Returns:
          (N, S, S) float32 in units of the logit, bilinear between the features' places: above 0
          speaks for the class, below against it.

        Raises:
          DataError: As for `features`.
          ConfigError: If the network has no head, or there is no such class.

        >>> import numpy as np
        >>> import radimagenet_jax as rin
        >>> net = rin.create_model("resnet50", class_names=("benign", "malignant"))
        >>> net.cam(np.zeros((2, 64, 64, 1), np.uint8), of="malignant").shape
        (2, 64, 64)
        """
        self._require_head("maps")
        x = self._input(x)
        index = self.class_index(of)
        spatial = self._in_batches(x, "spatial")["spatial"]
        maps = _products(spatial, self.variables["params"][HEAD]["kernel"][:, index])
        shape = maps.shape[1:] if size == 0 else (size, size) if size else x.shape[1:3]
        return jax.image.resize(maps, (len(maps), *shape), "bilinear")

    def predict(self, images: Any) -> Scored:
        """Scores images of any kind: a table with a row each.

        Args:
          images: A path or several, of PNG, JPEG, BMP, TIFF or DICOM files, of folders of them, or
            of tables that name them; or an array (N, H, W, 1 or 3) uint8; or several arrays (H, W),
            (H, W, 1) or (H, W, 3) uint8. All are resized to `image_size` by nearest neighbour, as
            in training.

        Raises:
          DataError: If an image cannot be read, or an array has another shape or dtype.
          ConfigError: If the network has no head.

        >>> import numpy as np
        >>> import radimagenet_jax as rin
        >>> net = rin.create_model("resnet50", class_names=("benign", "malignant"), image_size=32)
        >>> scored = net.predict([np.zeros((40, 30), np.uint8)])
        >>> scored.class_names, scored.scores.shape
        (('benign', 'malignant'), (1, 2))
        """
        self._require_head("scores")
        assert self.class_names is not None  # it has a head
        keys: list[str] = []
        parts: list[NDArray[np.float32]] = [np.empty((0, len(self.class_names)), np.float32)]
        for names, batch in _read_batches(images, self.image_size, self.usage):
            keys += names
            parts.append(np.asarray(self.scores(batch)))
        return Scored(tuple(keys), self.class_names, np.concatenate(parts))

    def class_index(self, of: str | int) -> int:
        """The index of a class.

        Args:
          of: Its name or index; 'positive', unless a class is called so, is `usage.positive`, and
            the last class if that is not known.

        Raises:
          ConfigError: If there is no such class.
        """
        names = self.class_names or ()
        if of in names:
            return names.index(str(of))
        if of == "positive" and names:
            return (
                len(names) - 1 if self.usage.positive is None else names.index(self.usage.positive)
            )
        if isinstance(of, int) and not isinstance(of, bool) and 0 <= of < len(names):
            return of
        raise ConfigError(f"there is no class {of!r}; the network has {some(names, _SHOWN)}.")

    # ------------------------------------------------------------------ Handing on
    def save(self, folder: Path | str, *, trained_on: str = "", terms: str = "") -> None:
        """Writes the network as a folder, laid out as a repository of the Hugging Face Hub.

        It holds `model.safetensors`, `contract.json`, `usage.json`, and a model card, `README.md`;
        `load_pretrained` reads it back.

        Args:
          folder: It must not exist yet, or be empty.
          trained_on: What a training loop of your own has taught it, such as 'our nodules, 2026':
            the contract and the card then say so, beside where its first weights are from.
          terms: What these images' owner allows, which the card says too.

        Raises:
          WeightsError: If the folder is taken or cannot be written, or the network is not of the
            published size. Nothing is left behind.
          ConfigError: If the network has classes that nobody has named.
        """
        if self.num_classes is not None and self.contract.labels is None:
            raise ConfigError(
                "the classes of this network have no names; give them before it is saved: "
                "net.named('benign', 'malignant')."
            )
        contract = self.contract
        if trained_on:
            contract = contract.after_training(trained_on, terms)
        native.write(Path(folder), jax.device_get(self.variables), contract, self.usage)

    def named(self, *class_names: str) -> "Network":
        """Returns the same network with names for its classes, in the order of its scores.

        Raises:
          ConfigError: If there are more or fewer names than classes.
        """
        if len(class_names) != self.num_classes:
            raise ConfigError(
                f"{len(class_names)} names are given, but the network has "
                f"{self.num_classes or 'no'} classes; name each, in the order of its scores."
            )
        return replace(self, contract=replace(self.contract, labels=class_names))

    # ------------------------------------------------------------------ Computing
    @functools.cached_property
    def _compiled(self) -> Mapping[str, Callable[..., dict[str, jax.Array]]]:
        """By what they take: the network's input, or images."""

        def of_input(variables: Mapping[str, Any], x: jax.Array) -> dict[str, jax.Array]:
            logits, out = self.model.apply(variables, x, train=False)
            found = {key: out[key].astype(jnp.float32) for key in ("spatial", "pooled")}
            return found if logits is None else {**found, "scores": jax.nn.softmax(logits)}

        def of_images(variables: Mapping[str, Any], images: jax.Array) -> dict[str, jax.Array]:
            return of_input(variables, self.contract.input.of(images))

        # As an argument, the weights are no constants of the compiled programs.
        return {"input": ops.jit(of_input), "images": ops.jit(of_images)}

    def _in_batches(self, x: Any, *names: str) -> dict[str, jax.Array]:
        parts = []
        for start in range(0, x.shape[0], _BATCH):
            part = jnp.asarray(x[start : start + _BATCH], jnp.float32)
            kept = part.shape[0]
            # Padding to a power of two bounds the number of compilations.
            padded = 1 << (kept - 1).bit_length()
            part = jnp.pad(part, ((0, padded - kept), (0, 0), (0, 0), (0, 0)))
            out = self._compiled["input"](self.variables, part)
            parts.append({name: out[name][:kept] for name in names})
        if len(parts) == 1:
            return parts[0]
        return {key: jnp.concatenate([part[key] for part in parts]) for key in parts[0]}

    def _require_head(self, what: str) -> None:
        if self.num_classes is None:
            raise ConfigError(
                f"{self.report.file} has no head and so gives no {what}; take features, load a "
                "trained run, or add a head with num_classes and train it."
            )

    def _check_input(self, x: Any) -> None:
        shape, dtype = getattr(x, "shape", None), getattr(x, "dtype", None)
        if shape is None or dtype is None:
            raise DataError(f"features takes one array, not {type(x).__name__}; stack it first.")
        if not jnp.issubdtype(dtype, jnp.floating):
            raise DataError(
                f"features takes uint8 images or preprocessed ones, not {np.dtype(dtype).name}; "
                "call preprocess first."
            )
        entry = models.architecture(self.contract.architecture)
        if len(shape) != 4 or shape[-1] != 3 or 0 in shape:
            raise DataError(f"features takes images (N, H, W, 3), not {tuple(shape)}.")
        if min(shape[1:3]) < entry.min_image_size:
            raise DataError(
                f"{entry.title} needs images of at least {entry.min_image_size} pixels a side, "
                f"not {shape[1]} x {shape[2]}; resize them."
            )
        ends = self.preprocess(np.array([0, 255], np.uint8).reshape(2, 1, 1, 1))
        low, high = float(ends.min()), float(ends.max())
        # Interpolation may overshoot a little; ten times the range is another scheme.
        largest = float(jnp.max(jnp.abs(x)))
        if largest > 10 * max(-low, high):
            warnings.warn(
                f"the input has values up to {largest:.4g} in magnitude, but "
                f"{self.contract.preprocessing!r} gives {low:.3g} to {high:.3g}: was it "
                "preprocessed?",
                stacklevel=4,
            )


def activation_maps(
    model: nn.Module,
    made_of: Input,
    variables: Mapping[str, Any],
    images: NDArray[np.uint8],
    classes: NDArray[np.integer],
) -> NDArray[np.float32]:
    """Class activation maps at the features' own places; see `Network.cam`.

    Args:
      model: A network with a head.
      made_of: What its input is.
      variables: {'params', 'batch_stats'}.
      images: (N, S, S, 1 or 3), 0..255.
      classes: (N,) the class that each map is for.

    Returns:
      (N, h, w) in units of the logit.
    """
    variables = jax.device_get(variables)
    weights = np.asarray(variables["params"][HEAD]["kernel"]).T[classes]

    @ops.jit
    def maps(variables: Any, images: jax.Array, weights: jax.Array) -> jax.Array:
        _, out = model.apply(variables, made_of.of(images), train=False)
        return _products(out["spatial"].astype(jnp.float32), weights)

    parts = []
    for start in range(0, len(images), _BATCH):
        part, own = images[start : start + _BATCH], weights[start : start + _BATCH]
        fill = (0, (_BATCH if len(images) > _BATCH else len(part)) - len(part))
        padded = np.pad(part, (fill, (0, 0), (0, 0), (0, 0))), np.pad(own, (fill, (0, 0)))
        parts.append(np.asarray(maps(variables, *padded))[: len(part)])
    return np.concatenate(parts)


# Not `ops.jit`, which asks for the backend, and other processes may still have to be joined.
@jax.jit
def _products(spatial: jax.Array, weights: jax.Array) -> jax.Array:
    """(N, h, w, C) features times weights, (C,) of all or (N, C) of each: (N, h, w)."""
    own = "c" if weights.ndim == 1 else "nc"
    return jnp.einsum(f"nhwc,{own}->nhw", spatial, weights, precision=jax.lax.Precision.HIGHEST)


def _check_images(images: Any) -> None:
    shape, dtype = getattr(images, "shape", None), getattr(images, "dtype", None)
    if shape is None or dtype is None:
        raise DataError(
            f"preprocess takes one array of images, not {type(images).__name__}; stack the "
            "images with numpy.stack."
        )
    if len(shape) != 4 or shape[-1] not in (1, 3):
        hint = "add the batch axis: images[None]" if len(shape) == 3 else "bring them to it"
        raise DataError(f"preprocess takes images (N, H, W, 1 or 3), not {tuple(shape)}; {hint}.")
    if 0 in shape:
        raise DataError(f"preprocess got no pixels: the images are {tuple(shape)}.")
    if dtype != np.uint8:
        raise DataError(
            f"preprocess takes uint8 images of 0..255, not {_range_of(images)}; "
            f"{_hint_on_range(images)}."
        )


def _range_of(images: Any) -> str:
    return f"{np.dtype(images.dtype).name} up to {_largest(images):g}"


def _largest(images: Any) -> float:
    return float(np.max(images)) if np.dtype(images.dtype).kind in "biuf" else float("nan")


def _hint_on_range(images: Any) -> str:
    kind, largest = np.dtype(images.dtype).kind, _largest(images)
    if kind == "f" and largest <= 1.0:
        return "they look scaled to [0, 1]: multiply by 255 and round first"
    if kind in "iu" and largest > 255:
        return "bring them to 8 bits first, with the window that a reader would choose"
    return "if they hold whole grey values of 0..255, use images.astype('uint8')"


def _read_batches(
    images: Any, size: int, usage: Usage
) -> Iterable[tuple[list[str], NDArray[np.uint8]]]:
    """Keys and images (B, S, S, 1 or 3) of what `Network.predict` takes."""
    # Who gives arrays preprocessed needs no reader.
    from radimagenet_jax.data import reading

    group: list[tuple[str, NDArray[np.uint8]]] = []
    for key, image in reading.each(images, size, usage.windows, unwrap=usage.unwrap):
        if len(group) == _BATCH or (group and group[0][1].shape != image.shape):
            yield [name for name, _ in group], np.stack([one for _, one in group])
            group = []
        group.append((key, image))
    if group:
        yield [name for name, _ in group], np.stack([one for _, one in group])
