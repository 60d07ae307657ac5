"""Training steps of a network: ours, Keras 2's and PyTorch's.

    pip install -e '.[bench]' && python -m tests.benchmarks.train_step \
        --model=resnet50 --structure=freezeall --batch=16 --size=224

All in float32, on the same number of images with random weights, without augmentation: ours as a
run takes it; tf_keras by `train_on_batch` of the published model; PyTorch eagerly, the network from
timm, in the faster of its two memory formats. Frozen layers are in inference mode on every side.
Each side is a process of its own that compiles and warms up first; then they take turns, one step
at a time, and the median step counts. The last line of the output is one JSON object. The exit
code is 1 if ours is below 1.2 times the faster peer.
"""

import argparse
import json
import os
import sys
from collections.abc import Callable

import numpy as np

from tests.benchmarks import turns
from tests.keras_networks import KERAS_APPLICATIONS

ROUNDS = 5
LEAST = 1.2
STRUCTURES = ("freezeall", "unfreezeall")
DROPOUT = 0.5
LEARNING_RATE = 1e-4


def main() -> int:
    """Starts a process for each side, lets them take turns, and compares."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.train_step")
    parser.add_argument("--model", choices=list(KERAS_APPLICATIONS), default="resnet50")
    parser.add_argument("--structure", choices=STRUCTURES, default="freezeall")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--size", type=int, default=224, help="side of the images")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--peers", default="keras,torch", help="or one of them, or none")
    parser.add_argument("--side", choices=list(SIDES), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        turns.serve(lambda: SIDES[options.side](options.model, options.structure, *_batch(options)))
        return 0
    try:
        peers = turns.peers_of(options.peers, ("keras", "torch"))
    except ValueError as error:
        parser.error(str(error))
    taken = turns.take_turns("tests.benchmarks.train_step", ["ours", *peers], options.rounds)
    rates = {name: round(options.batch / seconds, 3) for name, seconds in taken.items()}
    ratios = {name: round(rates["ours"] / rates[name], 3) for name in peers}
    described = {name: getattr(options, name) for name in ("model", "structure", "batch", "size")}
    figures = {"images_per_second": rates, "ratios": ratios, "cpus": os.cpu_count()}
    print(json.dumps(described | figures))
    return int(any(ratio < LEAST for ratio in ratios.values()))


def _batch(options: argparse.Namespace) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    shape = (options.batch, options.size, options.size, 3)
    labels = rng.integers(0, 2, options.batch).astype(np.int32)
    return rng.integers(0, 256, shape).astype(np.uint8), labels


def ours(name: str, structure: str, images: np.ndarray, labels: np.ndarray) -> Callable[[], object]:
    """The step of a run, its state donated."""
    import jax
    import jax.numpy as jnp

    from radimagenet_jax import models
    from radimagenet_jax.training import freezing, initialise, state, step

    model = models.create(name, num_classes=2, dropout=DROPOUT)
    variables = initialise.scratch(model, images.shape[1], 0, "glorot_uniform")
    freeze = freezing.specify(structure, variables, models.architecture(name).keras_layers())
    tx = step.make_optimizer("adam", LEARNING_RATE)
    train_step = step.make_train_step(
        model.clone(frozen_stats=freeze.frozen_stats),
        tx,
        freeze,
        scheme="caffe_div255",
        policy=None,
        seed=0,
        steps_per_epoch=100,
    )
    compiled = jax.jit(train_step, donate_argnums=0)
    current = state.create(variables, tx, freeze)
    ids = jnp.arange(len(labels), dtype=jnp.uint32)
    examples = step.Examples(jnp.asarray(images), jnp.asarray(labels), ids)
    mask = jnp.ones(len(labels), jnp.float32)

    def take() -> object:
        nonlocal current
        current, sums = compiled(current, examples, None, mask)
        return jax.block_until_ready((current, sums))

    return take


def keras(
    name: str, structure: str, images: np.ndarray, labels: np.ndarray
) -> Callable[[], object]:
    """The published model and its step."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import tf_keras

    application = getattr(tf_keras.applications, KERAS_APPLICATIONS[name])
    base = application(weights=None, include_top=False, input_shape=images.shape[1:])
    for layer in base.layers:
        layer.trainable = structure == "unfreezeall"
    pooled = tf_keras.layers.GlobalAveragePooling2D()(base.output)
    dropped = tf_keras.layers.Dropout(DROPOUT)(pooled)
    model = tf_keras.Model(base.input, tf_keras.layers.Dense(2, activation="softmax")(dropped))
    optimizer = tf_keras.optimizers.Adam(LEARNING_RATE)
    model.compile(optimizer, loss="binary_crossentropy")
    x = images.astype(np.float32) / 255
    y = np.eye(2, dtype=np.float32)[labels]
    return lambda: model.train_on_batch(x, y)


def torch(
    name: str, structure: str, images: np.ndarray, labels: np.ndarray
) -> Callable[[], object]:
    """Eager PyTorch, in the memory format whose second step is the faster one."""
    import timm
    import torch

    x = torch.from_numpy(images.astype(np.float32) / 255).permute(0, 3, 1, 2)
    y = torch.from_numpy(labels.astype(np.int64))

    def made(memory_format: torch.memory_format) -> Callable[[], object]:
        base = timm.create_model(name, num_classes=0)
        head = torch.nn.Linear(base.num_features, 2)
        model = torch.nn.Sequential(base, torch.nn.Dropout(DROPOUT), head)
        model.to(memory_format=memory_format)
        if structure == "freezeall":
            base.requires_grad_(False).eval()
        learning = [value for value in model.parameters() if value.requires_grad]
        optimizer = torch.optim.Adam(learning, LEARNING_RATE)
        batch = x.contiguous(memory_format=memory_format)

        def take() -> object:
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(model(batch), y).backward()
            return optimizer.step()

        return take

    return turns.fastest(
        [made(layout) for layout in (torch.contiguous_format, torch.channels_last)]
    )


SIDES = {"ours": ours, "keras": keras, "torch": torch}


if __name__ == "__main__":
    sys.exit(main())
