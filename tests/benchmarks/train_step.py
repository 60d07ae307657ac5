"""Training steps of a network: ours, Keras 2's and PyTorch's.

    pip install -e '.[bench]' && python -m tests.benchmarks.train_step \
        --model=resnet50 --structure=freezeall --batch=16 --size=224

All in float32, on the same number of images with random weights, without augmentation: ours as a
run takes it; tf_keras by the function that `fit` calls for each batch of a `tf.data` set; PyTorch
eagerly, the network from timm, in the faster of its two memory formats. Frozen layers are in
inference mode on every side. Each side is a process of its own, alone on the machine, that compiles
and warms up first; all have two turns, and the median step counts. The last line of the output is
one JSON object. The exit code is 1 if ours is below 1.2 times the faster peer.
"""

import argparse
import os
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from tests.benchmarks import turns
from tests.keras_networks import KERAS_APPLICATIONS

ROUNDS = 5
STRUCTURES = ("freezeall", "unfreezeall")
DROPOUT = 0.5
LEARNING_RATE = 1e-4

# A jitted step of (state, *rest) that gives the next state first, and its arguments.
Made = tuple[Callable[..., Any], tuple[Any, ...]]


def main() -> int:
    """Compares the sides, a step at a time."""
    parser = turns.parser("tests.benchmarks.train_step", ROUNDS)
    parser.add_argument("--structure", choices=STRUCTURES, default="freezeall")
    return turns.main(parser, SIDES, ("model", "structure", "batch", "size"))


def batch(options: argparse.Namespace) -> tuple[np.ndarray, np.ndarray]:
    """Random images (batch, size, size, 3) uint8 and labels (batch,) int32 of two classes."""
    rng = np.random.default_rng(0)
    shape = (options.batch, options.size, options.size, 3)
    labels = rng.integers(0, 2, options.batch).astype(np.int32)
    return rng.integers(0, 256, shape).astype(np.uint8), labels


def ours(options: argparse.Namespace) -> turns.Step:
    """The step of a run."""
    import jax

    compiled, (current, *rest) = made(options)

    def take() -> object:
        nonlocal current
        current, sums = compiled(current, *rest)
        return jax.block_until_ready((current, sums))

    return take


def made(options: argparse.Namespace) -> Made:
    """The step of a run, its state donated."""
    import jax.numpy as jnp

    from radimagenet_jax import models
    from radimagenet_jax.models import preprocess
    from radimagenet_jax.models.ops import platform
    from radimagenet_jax.training import freezing, initialise, state, step
    from radimagenet_jax.training.optimizers import make_optimizer

    images, labels = batch(options)
    model = models.create(options.model, num_classes=2, dropout=DROPOUT)
    variables = initialise.scratch(model, options.size, 0, "glorot_uniform")
    layers = models.architecture(options.model).keras_layers()
    freeze = freezing.specify(options.structure, variables, layers)
    tx = make_optimizer("adam", LEARNING_RATE)
    train_step = step.make_train_step(
        model.clone(frozen_stats=freeze.frozen_stats),
        freeze,
        preprocess.Input(preprocess.PUBLISHED),
        step.Recipe(tx),
        step.Draws(seed=0, steps_per_epoch=100),
    )
    ids = jnp.arange(len(labels), dtype=jnp.uint32)
    examples = step.Examples(jnp.asarray(images), jnp.asarray(labels), ids)
    mask = jnp.ones(len(labels), jnp.float32)
    arguments = (state.create(variables, tx, freeze), examples, None, mask)
    return platform.jit(train_step, donate_argnums=0), arguments


def keras(options: argparse.Namespace) -> turns.Step:
    """The published model and its step."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import tensorflow as tf
    import tf_keras

    images, labels = batch(options)
    application = getattr(tf_keras.applications, KERAS_APPLICATIONS[options.model])
    base = application(weights=None, include_top=False, input_shape=images.shape[1:])
    for layer in base.layers:
        layer.trainable = options.structure == "unfreezeall"
    pooled = tf_keras.layers.GlobalAveragePooling2D()(base.output)
    dropped = tf_keras.layers.Dropout(DROPOUT)(pooled)
    model = tf_keras.Model(base.input, tf_keras.layers.Dense(2, activation="softmax")(dropped))
    optimizer = tf_keras.optimizers.Adam(LEARNING_RATE)
    model.compile(optimizer, loss="binary_crossentropy")
    x = images.astype(np.float32) / 255
    y = np.eye(2, dtype=np.float32)[labels]
    batches = iter(tf.data.Dataset.from_tensors((x, y)).repeat())
    take = model.make_train_function()
    return lambda: take(batches)


def torch(options: argparse.Namespace) -> turns.Step:
    """Eager PyTorch, in the memory format whose second step is the faster one."""
    import timm
    import torch

    images, labels = batch(options)
    x = torch.from_numpy(images.astype(np.float32) / 255).permute(0, 3, 1, 2)
    y = torch.from_numpy(labels.astype(np.int64))

    def made(memory_format: torch.memory_format) -> turns.Step:
        base = timm.create_model(options.model, num_classes=0)
        head = torch.nn.Linear(base.num_features, 2)
        model = torch.nn.Sequential(base, torch.nn.Dropout(DROPOUT), head)
        model.to(memory_format=memory_format)
        if options.structure == "freezeall":
            base.requires_grad_(False).eval()
        learning = [value for value in model.parameters() if value.requires_grad]
        optimizer = torch.optim.Adam(learning, LEARNING_RATE)
        laid_out = x.contiguous(memory_format=memory_format)

        def take() -> object:
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(model(laid_out), y).backward()
            return optimizer.step()

        return take

    return turns.fastest_format(made)


SIDES = {"ours": ours, "keras": keras, "torch": torch}


if __name__ == "__main__":
    sys.exit(main())
