"""Inference of a network: ours, Keras 2's and PyTorch's.

    pip install -e '.[bench]' && python -m tests.benchmarks.inference \
        --model=resnet50 --batch=16 --size=224

All in float32, on the same images with random weights and a head of two classes, in inference
mode: ours as `predict` applies a run, uint8 images to scores; tf_keras by `predict_on_batch` and
PyTorch under `inference_mode`, the network from timm, in the faster of its two memory formats, both
on images that are already floats. Each side is a process of its own, alone on the machine, that
compiles and warms up first; all have two turns, and the median batch counts. The last line of the
output is one JSON object. The exit code is 1 if ours is below 1.2 times the faster peer.
"""

import argparse
import os
import sys

import numpy as np

from tests.benchmarks import turns
from tests.keras_networks import KERAS_APPLICATIONS

ROUNDS = 7


def main() -> int:
    """Compares the sides, a batch at a time."""
    described = ("model", "batch", "size")
    return turns.main(turns.parser("tests.benchmarks.inference", ROUNDS), SIDES, described)


def _images(options: argparse.Namespace) -> np.ndarray:
    shape = (options.batch, options.size, options.size, 3)
    return np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)


def ours(options: argparse.Namespace) -> turns.Step:
    """What `predict` computes of a batch."""
    import jax

    import radimagenet_jax as rin

    net = rin.create_model(options.model, num_classes=2)
    net = net.replace(variables=jax.device_put(net.variables))
    images = _images(options)
    return lambda: jax.device_get(net.apply(images)["scores"])


def keras(options: argparse.Namespace) -> turns.Step:
    """The published model's prediction."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import tf_keras

    images = _images(options)
    application = getattr(tf_keras.applications, KERAS_APPLICATIONS[options.model])
    base = application(weights=None, include_top=False, input_shape=images.shape[1:], pooling="avg")
    model = tf_keras.Model(base.input, tf_keras.layers.Dense(2, activation="softmax")(base.output))
    x = images.astype(np.float32) / 255
    return lambda: model.predict_on_batch(x)


def torch(options: argparse.Namespace) -> turns.Step:
    """Eager PyTorch, in the memory format whose second step is the faster one."""
    import timm
    import torch

    x = torch.from_numpy(_images(options).astype(np.float32) / 255).permute(0, 3, 1, 2)

    def made(memory_format: torch.memory_format) -> turns.Step:
        model = (
            timm.create_model(options.model, num_classes=2).eval().to(memory_format=memory_format)
        )
        batch = x.contiguous(memory_format=memory_format)

        def step() -> object:
            with torch.inference_mode():
                return torch.softmax(model(batch), -1)

        return step

    return turns.fastest_format(made)


SIDES = {"ours": ours, "keras": keras, "torch": torch}


if __name__ == "__main__":
    sys.exit(main())
