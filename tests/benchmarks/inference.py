"""Inference of a network: ours, Keras 2's and PyTorch's.

    pip install -e '.[bench]' && python -m tests.benchmarks.inference \
        --model=resnet50 --batch=16 --size=224

All in float32, on the same images with random weights and a head of two classes, in inference
mode: ours as `predict` applies a run, uint8 images to scores; tf_keras by `predict_on_batch` and
PyTorch under `inference_mode`, the network from timm, in the faster of its two memory formats, both
on images that are already floats. Each side is a process of its own that compiles and warms up
first; then they take turns, one batch at a time, and the median counts. The last line of the output
is one JSON object. The exit code is 1 if ours is below 1.2 times the faster peer.
"""

import argparse
import json
import os
import sys

import numpy as np

from tests.benchmarks import turns
from tests.keras_networks import KERAS_APPLICATIONS

ROUNDS = 7
LEAST = 1.2


def main() -> int:
    """Starts a process for each side, lets them take turns, and compares."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.inference")
    parser.add_argument("--model", choices=list(KERAS_APPLICATIONS), default="resnet50")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--size", type=int, default=224, help="side of the images")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--peers", default="keras,torch", help="or one of them, or none")
    parser.add_argument("--side", choices=list(SIDES), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        shape = (options.batch, options.size, options.size, 3)
        images = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
        turns.serve(lambda: SIDES[options.side](options.model, images))
        return 0
    try:
        peers = turns.peers_of(options.peers, ("keras", "torch"))
    except ValueError as error:
        parser.error(str(error))
    taken = turns.take_turns("tests.benchmarks.inference", ["ours", *peers], options.rounds)
    rates = {name: round(options.batch / seconds, 3) for name, seconds in taken.items()}
    ratios = {name: round(rates["ours"] / rates[name], 3) for name in peers}
    described = {name: getattr(options, name) for name in ("model", "batch", "size")}
    figures = {"images_per_second": rates, "ratios": ratios, "cpus": os.cpu_count()}
    print(json.dumps(described | figures))
    return int(any(ratio < LEAST for ratio in ratios.values()))


def ours(name: str, images: np.ndarray) -> turns.Step:
    """What `predict` computes of a batch."""
    import jax

    from radimagenet_jax import models
    from radimagenet_jax.predict import make_scores
    from radimagenet_jax.training import initialise

    model = models.create(name, num_classes=2)
    variables = initialise.scratch(model, images.shape[1], 0, "glorot_uniform")
    scores = make_scores(model, jax.device_put(variables), "caffe_div255", "")
    return lambda: jax.device_get(scores(images))


def keras(name: str, images: np.ndarray) -> turns.Step:
    """The published model's prediction."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import tf_keras

    application = getattr(tf_keras.applications, KERAS_APPLICATIONS[name])
    base = application(weights=None, include_top=False, input_shape=images.shape[1:], pooling="avg")
    model = tf_keras.Model(base.input, tf_keras.layers.Dense(2, activation="softmax")(base.output))
    x = images.astype(np.float32) / 255
    return lambda: model.predict_on_batch(x)


def torch(name: str, images: np.ndarray) -> turns.Step:
    """Eager PyTorch, in the memory format whose second step is the faster one."""
    import timm
    import torch

    x = torch.from_numpy(images.astype(np.float32) / 255).permute(0, 3, 1, 2)

    def made(memory_format: torch.memory_format) -> turns.Step:
        model = timm.create_model(name, num_classes=2).eval().to(memory_format=memory_format)
        batch = x.contiguous(memory_format=memory_format)

        def step() -> object:
            with torch.inference_mode():
                return torch.softmax(model(batch), -1)

        return step

    return turns.fastest(
        [made(layout) for layout in (torch.contiguous_format, torch.channels_last)]
    )


SIDES = {"ours": ours, "keras": keras, "torch": torch}


if __name__ == "__main__":
    sys.exit(main())
