"""Ten training steps of Keras 2 against ours: losses, weights and statistics.

    pip install -e '.[bench]' && python -m tests.benchmarks.trajectory

Asked for binary cross-entropy, Keras 2 takes the softmax's logits for those of a sigmoid (see
radimagenet_jax/training/losses.py), so both losses are compared: `keras2` with its
`binary_crossentropy`, `softmax` with its `categorical_crossentropy`. The weights are random, with
moving statistics near those of the images; the head begins at zero; no dropout, no augmentation. A
line for each run, with how far our own losses move when the first kernel is off by one rounding
error; the last line of the output is one JSON object. The exit code is 1 if a loss differs
by more than 1e-3 of itself.
"""

import argparse
import itertools
import json
import os
import sys

# TensorFlow's remarks on missing accelerators; it reads this when it is imported.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tf_keras

from radimagenet_jax.console import console
from tests.keras_networks import KERAS_APPLICATIONS, random_values
from tests.training import trajectory

STEPS = 10
KERAS_LOSSES = {"keras2": "binary_crossentropy", "softmax": "categorical_crossentropy"}
TOLERANCE = 1e-3


def main() -> int:
    """Runs every combination that is asked for."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.trajectory",
        description="Compare ten training steps with Keras 2 (tf_keras).",
    )
    parser.add_argument("--model", nargs="*", default=list(trajectory.SIZES))
    parser.add_argument("--structure", nargs="*", default=list(trajectory.LEARNING_RATES))
    parser.add_argument("--loss", nargs="*", default=list(KERAS_LOSSES))
    parser.add_argument("--size", type=int, help="side of the images, instead of the network's own")
    options = parser.parse_args()
    rows = []
    for name in options.model:
        size = options.size or trajectory.SIZES[name]
        base = _network(name, size)
        images, labels = trajectory.batches(size, STEPS)
        start = trajectory.calibrated(name, _randomised(base, name), images)
        for structure, loss in itertools.product(options.structure, options.loss):
            run = (name, structure, start, images, labels)
            theirs = trajectory.trained_by_keras(tf_keras, base, *run, loss=KERAS_LOSSES[loss])
            ours, freeze = trajectory.trained_by_us(*run, bessel_correction=True, loss=loss)
            again, _ = trajectory.trained_by_us(
                name,
                structure,
                trajectory.disturbed(name, start),
                images,
                labels,
                bessel_correction=True,
                loss=loss,
            )
            distances = trajectory.relative_distances(ours, theirs, start, freeze, name)
            difference = np.abs(np.divide(ours.losses, theirs.losses) - 1).max()
            rounding = np.abs(np.divide(again.losses, ours.losses) - 1).max()
            rows.append(
                {
                    "model": name,
                    "size": size,
                    "structure": structure,
                    "loss": loss,
                    "learning_rate": trajectory.LEARNING_RATES[structure],
                    "losses_keras": theirs.losses,
                    "losses": ours.losses,
                    "largest_relative_loss_difference": float(difference),
                    "largest_relative_loss_difference_by_rounding": float(rounding),
                    "median_relative_distance": float(np.median(list(distances.values()))),
                    "largest_statistics_distance": max(
                        (d for leaf, d in distances.items() if leaf.startswith("batch_stats")),
                        default=None,
                    ),
                }
            )
            console.print(
                f"{name} {structure} {loss}: losses within {difference:.1e} "
                f"(rounding alone: {rounding:.1e}), "
                f"median distance of what learns {rows[-1]['median_relative_distance']:.1e} "
                "of its way"
            )
    print(json.dumps({"steps": STEPS, "tf_keras": tf_keras.__version__, "runs": rows}))
    return int(any(row["largest_relative_loss_difference"] > TOLERANCE for row in rows))


def _network(name: str, size: int) -> tf_keras.Model:
    tf_keras.backend.clear_session()  # so that layers are numbered from the start
    application = getattr(tf_keras.applications, KERAS_APPLICATIONS[name])
    return application(weights=None, include_top=False, pooling="avg", input_shape=(size, size, 3))


def _randomised(base: tf_keras.Model, name: str) -> trajectory.Leaves:
    rng = np.random.default_rng(7)
    return {
        leaf: random_values(trajectory.role_of(variable), tuple(variable.shape), rng)
        for leaf, variable in trajectory.keras_variables(base, name).items()
    }


if __name__ == "__main__":
    sys.exit(main())
