"""One training, by Keras and by us, on the same weights and batches.

Keras trains by the step of its own `Model.fit`, on keras.applications with the published head,
optimiser and loss, its layers frozen as the published scripts freeze them. Dropout and
augmentation, whose draws no two frameworks share, are off.
"""

import functools
import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import traverse_util

from radimagenet_jax import models
from radimagenet_jax.data.images import resize_nearest
from radimagenet_jax.models import preprocess
from radimagenet_jax.training import freezing, initialise, losses, state, step
from radimagenet_jax.training.optimizers import make_optimizer
from tfds_builders.phantom.patients import draw_split

BATCH = 8
# Published rates, of the two for each structure the lower one.
LEARNING_RATES = {"freezeall": 1e-3, "unfreezetop10": 1e-3, "unfreezeall": 1e-4}
SIZES = {"resnet50": 64, "densenet121": 64, "inception_v3": 139, "inception_resnet_v2": 139}
_LEAVES = {
    ("Conv2D", "kernel"): ("params", "kernel"),
    ("Conv2D", "bias"): ("params", "bias"),
    ("BatchNormalization", "gamma"): ("params", "scale"),
    ("BatchNormalization", "beta"): ("params", "bias"),
    ("BatchNormalization", "moving_mean"): ("batch_stats", "mean"),
    ("BatchNormalization", "moving_variance"): ("batch_stats", "var"),
}

# Values by name, such as 'params/stem/conv/kernel'.
Leaves = dict[str, np.ndarray]


@dataclass(frozen=True)
class Trajectory:
    """What a training went through.

    Attributes:
      losses: Mean loss of each step's batch.
      leaves: Every parameter and statistic at the end.
    """

    losses: list[float]
    leaves: Leaves


def flat(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Names the leaves of a tree by their paths."""
    return traverse_util.flatten_dict(tree, sep="/")


def role_of(variable: Any) -> str:
    """The role of a Keras variable: Keras 2 names it 'conv1/conv/kernel:0', Keras 3 'kernel'."""
    return str(variable.name).rpartition("/")[2].partition(":")[0]


def value_of(variable: Any) -> np.ndarray:
    """What a Keras variable holds; `value` is a method in Keras 2, a property in Keras 3."""
    return np.asarray(variable.value() if callable(variable.value) else variable.value)


def keras_variables(base: Any, name: str) -> dict[str, Any]:
    """The variables of a Keras network, of Keras 2 or 3, under our names."""
    paths = {layer.name: layer.path for layer in models.architecture(name).keras_layers()}
    named = {}
    for layer in base.layers:
        for variable in layer.weights:
            path = paths[layer.name.replace("/", "_")]  # Keras 2 has 'conv1/conv'
            role = role_of(variable)
            collection, leaf = _LEAVES[type(layer).__name__, role]
            named[f"{collection}/{path}/{leaf}"] = variable
    return named


def values_of(base: Any, name: str) -> Leaves:
    """What a Keras network holds, under our names."""
    return {leaf: value_of(variable) for leaf, variable in keras_variables(base, name).items()}


def batches(size: int, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Phantom slices (steps * BATCH, S, S, 3) uint8 with their labels, in a fixed random order."""
    count = steps * BATCH
    drawn = list(itertools.islice(draw_split("train", count), count))
    chosen = np.random.default_rng(4).permutation(count)
    images = [resize_nearest(drawn[k].pixels[..., None], size) for k in chosen]
    labels = np.array([drawn[k].has_lesion for k in chosen], np.int32)
    return np.broadcast_to(np.stack(images), (count, size, size, 3)).copy(), labels


def calibrated(name: str, leaves: Leaves, images: np.ndarray) -> Leaves:
    """Makes random values behave as those of a network that has learnt something.

    Moving statistics come near those of the first batch: with arbitrary ones, inference mode
    would blow up the features from block to block. Residual branches count for a fifth: at
    full weight, ten steps of a whole ResNet50 are chaotic, and the smallest rounding error
    in its first kernel moves the last losses by a hundredth.
    """
    leaves = {
        leaf: value * np.float32(0.2) if leaf.endswith("/bn3/scale") else value
        for leaf, value in leaves.items()
    }
    x = preprocess.normalize(images[:BATCH], "caffe_div255")
    model = models.create(name, bn_momentum=0.0)
    apply = jax.jit(
        lambda variables, x: model.apply(variables, x, train=True, mutable="batch_stats")
    )
    _, updates = apply(traverse_util.unflatten_dict(leaves, sep="/"), x)
    stats = {leaf: np.asarray(value) for leaf, value in flat(updates).items()}
    rng = np.random.default_rng(0)
    near = dict(leaves)
    for leaf, value in stats.items():
        layer, _, role = leaf.rpartition("/")
        if role == "mean":
            deviation = np.sqrt(stats[f"{layer}/var"])
            moved = value + deviation * rng.normal(0, 0.2, value.shape)
        else:
            moved = value * rng.uniform(0.7, 1.4, value.shape)
        near[leaf] = moved.astype(np.float32)
    return near


def trained_by_keras(
    keras: Any,
    base: Any,
    name: str,
    structure: str,
    start: Leaves,
    images: np.ndarray,
    labels: np.ndarray,
    *,
    loss: Any = "binary_crossentropy",
    activation: str | None = "softmax",
) -> Trajectory:
    """Trains with Keras, and leaves the network as it was.

    Args:
      keras: The package: `keras` 3, or `tf_keras`, which is Keras 2.
      base: Its network without top, with global average pooling.
      name: Our name of it.
      structure: A key of `LEARNING_RATES`.
      start: Values to begin with.
      images: (steps * BATCH, S, S, 3) uint8.
      labels: (steps * BATCH,) int32, 0 or 1.
      loss: Keras' name of it, or one of its losses.
      activation: Of the head.
    """
    frozen = {"freezeall": len(base.layers), "unfreezetop10": len(base.layers) - 10}
    base.trainable = True
    for k, layer in enumerate(base.layers):
        layer.trainable = k >= frozen.get(structure, 0)
    variables = keras_variables(base, name)
    found = values_of(base, name)
    for leaf, variable in variables.items():
        variable.assign(start[leaf])
    head = keras.layers.Dense(2, activation=activation, kernel_initializer="zeros")
    model = keras.Model(base.input, head(base.output))
    optimizer = keras.optimizers.Adam(LEARNING_RATES[structure], epsilon=1e-7)
    model.compile(optimizer, loss=loss)
    preprocess_input = keras.applications.imagenet_utils.preprocess_input
    x = preprocess_input(images.astype(np.float32)) / 255
    y = np.eye(2, dtype=np.float32)[labels]
    losses = []
    for first in range(0, len(x), BATCH):
        rows = slice(first, first + BATCH)
        model.reset_metrics()
        losses.append(float(model.train_on_batch(x[rows], y[rows])))
    kernel, bias = (value_of(variable) for variable in head.weights)
    head_leaves = {"params/head/kernel": kernel, "params/head/bias": bias}
    trained = values_of(base, name) | head_leaves
    # Others use the network too, and know it as it was.
    base.trainable = True
    for layer in base.layers:
        layer.trainable = True
    for leaf, variable in variables.items():
        variable.assign(found[leaf])
    return Trajectory(losses, trained)


def trained_by_us(
    name: str,
    structure: str,
    start: Leaves,
    images: np.ndarray,
    labels: np.ndarray,
    *,
    bessel_correction: bool,
    loss: str = "softmax",
) -> tuple[Trajectory, freezing.Freeze]:
    """Trains with our own step; see `trained_by_keras`.

    Args:
      name: The network.
      structure: A key of `LEARNING_RATES`.
      start: Values to begin with.
      images: (steps * BATCH, S, S, 3) uint8.
      labels: (steps * BATCH,) int32, 0 or 1.
      bessel_correction: Of the moving variances: on for Keras 2, whose fused kernels have it.
      loss: A key of `losses.LOSSES`.
    """
    program = _program(
        name, structure, images.shape[1], len(images) // BATCH, bessel_correction, loss
    )
    variables = traverse_util.unflatten_dict({**program.scratch, **start}, sep="/")
    ids = jnp.arange(len(labels), dtype=jnp.uint32)
    examples = step.Examples(jnp.asarray(images), jnp.asarray(labels), ids)
    current = state.create(variables, program.tx, program.freeze)
    means = []
    for first in range(0, len(images), BATCH):
        index = np.arange(first, first + BATCH)
        current, sums = program.train_step(current, examples, index, np.ones(BATCH, np.float32))
        means.append(float(sums["loss"]) / BATCH)
    after = flat({"params": current.params, "batch_stats": current.batch_stats})
    leaves = {leaf: np.asarray(value) for leaf, value in after.items()}
    return Trajectory(means, leaves), program.freeze


@dataclass(frozen=True)
class _Program:
    """Our training step, compiled once for all values that it starts from."""

    scratch: dict[str, Any]
    freeze: freezing.Freeze
    tx: optax.GradientTransformation
    train_step: Callable[..., Any]


@functools.lru_cache(maxsize=1)
def _program(
    name: str, structure: str, size: int, steps: int, bessel_correction: bool, loss: str
) -> _Program:
    model = models.create(
        name, num_classes=2, head_init="zeros", bessel_correction=bessel_correction
    )
    variables = initialise.scratch(model, size, 0, "zeros")
    freeze = freezing.specify(structure, variables, models.architecture(name).keras_layers())
    tx = make_optimizer("adam", LEARNING_RATES[structure])
    train_step = step.make_train_step(
        model.clone(frozen_stats=freeze.frozen_stats),
        freeze,
        preprocess.Input("caffe_div255"),
        step.Recipe(tx, losses.LOSSES[loss]),
        step.Draws(seed=0, steps_per_epoch=steps),
    )
    return _Program(flat(variables), freeze, tx, jax.jit(train_step))


def disturbed(name: str, start: Leaves) -> Leaves:
    """The same values, but the first kernel's by one rounding error (1e-7 of each) up or down.

    What a training makes of them shows how much of a difference rounding alone explains.
    """
    first = next(layer.path for layer in models.architecture(name).keras_layers() if layer.path)
    kernel = f"params/{first}/kernel"
    signs = np.random.default_rng(5).choice([-1, 1], start[kernel].shape).astype(np.float32)
    return {**start, kernel: start[kernel] * (1 + np.float32(1e-7) * signs)}


def cancelled_biases(name: str) -> set[str]:
    """Biases before a BatchNorm: in training their gradients are rounding errors, no more."""
    if name != "resnet50":
        return set()  # no other network has any
    return {
        f"params/{layer.path}/bias"
        for layer in models.architecture(name).keras_layers()
        if layer.kind == "conv"
    }


def is_frozen(leaf: str, freeze: freezing.Freeze) -> bool:
    """Whether a parameter or a statistic must not move."""
    collection, _, path = leaf.partition("/")
    if collection == "batch_stats":
        return path.rpartition("/")[0] in freeze.frozen_stats
    return path not in freeze.trainable


def relative_distances(
    ours: Trajectory, theirs: Trajectory, start: Leaves, freeze: freezing.Freeze, name: str
) -> dict[str, float]:
    """How far the values are from each other, over how far they moved, both as root mean squares.

    Raises:
      AssertionError: If a value that learns did not move, or a frozen one did, by a single bit.
    """
    distances = {}
    for leaf, value in theirs.leaves.items():
        before = start.get(leaf, np.zeros_like(value))
        if is_frozen(leaf, freeze):
            np.testing.assert_array_equal(value, before, err_msg=f"Keras moved {leaf}")
            np.testing.assert_array_equal(ours.leaves[leaf], before, err_msg=f"we moved {leaf}")
        elif leaf not in cancelled_biases(name):
            moved = _rms(value - before)
            assert moved > 0, leaf
            distances[leaf] = _rms(ours.leaves[leaf] - value) / moved
    learning = {f"params/{leaf}" for leaf in freeze.trainable}
    assert learning <= set(distances) | cancelled_biases(name)
    return distances


def _rms(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(values, dtype=np.float64))))
