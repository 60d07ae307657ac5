"""What a process of eight devices finds of examples in parts, as one JSON object.

    python -m tests.training.on_eight_devices DATA_DIR

with XLA_FLAGS=--xla_force_host_platform_device_count=8.
"""

import json
import re
import sys

import jax
import numpy as np

from radimagenet_jax import models
from radimagenet_jax.data import augment, datasets
from radimagenet_jax.models.preprocess import Input
from radimagenet_jax.training import (
    compiled,
    evaluation,
    examples,
    feed,
    freezing,
    initialise,
    sharding,
    state,
    step,
    stepping,
)
from radimagenet_jax.training.optimizers import make_optimizer
from radimagenet_jax.training.order import DataOrder
from tests.conftest import COMPILED_QUICKLY

SIZE, BATCH, DEVICES = 32, 48, 8
FIRST, LAST = 19, 23  # the end of an epoch, with its padding, is among them
# Not a multiple of the devices; nor is an image of 128 bytes.
COUNT, SIDE = 301, 17


def made_up() -> datasets.Split:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (COUNT, SIDE, SIDE, 3), dtype=np.uint8)
    numbers = np.arange(COUNT)
    keys = tuple(map(str, numbers))
    ids = numbers.astype(np.uint32) + 7
    return datasets.Split(images, numbers.astype(np.int32), keys, ("",) * COUNT, ids)


def batches() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    ordered = DataOrder(COUNT, BATCH, seed=0, shuffle=False)
    return {
        "shuffled": rng.permutation(COUNT)[:BATCH],
        "in order": ordered.batch(2)[0],
        "the last, with its padding": ordered.batch(ordered.steps_per_epoch - 1)[0],
        "one example": np.full(BATCH, COUNT - 1),
        "all of one device": np.arange(3, COUNT, DEVICES)[np.arange(BATCH) % 37],
        "each device its own": np.arange(BATCH).reshape(-1, DEVICES).T.ravel(),
    }


def gathered(mesh) -> dict[str, list[bool]]:
    split, where = made_up(), sharding.by_example(mesh)
    held = examples.place_in_parts(split, mesh)
    at = jax.jit(lambda held, index: held.at(index))
    found = {}
    for name, index in batches().items():
        batch = at(held, sharding.place(index.astype(np.int32), where))
        expected = (split.images[index], split.labels[index], split.ids[index])
        given = jax.device_get((batch.images, batch.labels, batch.ids))
        found[name] = [
            *map(np.array_equal, given, expected),
            batch.images.sharding.is_equivalent_to(where, 4),
        ]
    return found


class Run:
    """A few steps of a shallow network, and the logits of the validation split."""

    def __init__(self, count: int, accumulate: int):
        model = models.create(
            "resnet50", num_classes=2, stage_sizes=(1, 1, 1, 1), width=8, dropout=0.5
        )
        variables = initialise.scratch(model, SIZE, 0, "glorot_uniform")
        layers = models.architecture("resnet50").keras_layers()
        freeze = freezing.specify("freezeall", variables, layers)
        tx = make_optimizer("adam", 1e-3)
        self.order = DataOrder(count, BATCH, seed=3, shuffle=True)
        recipe = step.Recipe(tx, policy=augment.POLICIES["rotate_flip"], accumulate=accumulate)
        draws = step.Draws(seed=1, steps_per_epoch=self.order.steps_per_epoch)
        self.step = step.make_train_step(model, freeze, Input("caffe_div255"), recipe, draws)
        self.eval_step = step.make_eval_step(model, Input("caffe_div255"))
        self.first = state.create(variables, tx, freeze).replace(step=np.int32(FIRST))

    def losses(self, fed, mesh, scan: str) -> tuple[list[float], str, str]:
        """Losses, the digest of the last state, and the compiled program."""
        layout = sharding.state_layout(self.first, mesh, False)
        current = jax.tree.map(sharding.place, self.first, layout)
        steps = stepping.stepper(scan, self.step, fed, self.order, layout, mesh)
        steps.compile(current, FIRST, LAST)
        found, done = [], FIRST
        while done < LAST:
            until = min(LAST, self.order.next_boundary(done, 0))
            current, taken = steps.advance(current, done, until)
            done += taken.sent
            found += [float(sums["loss"]) for sums in taken.rows]
        digest = state.digest(current.params, current.batch_stats)
        return found, digest, steps._compiled.as_text()

    def logits(self, fed, count: int) -> list[list[float]]:
        weights = {"params": self.first.params, "batch_stats": self.first.batch_stats}
        eval_step = jax.jit(self.eval_step, compiler_options=COMPILED_QUICKLY)
        return evaluation.predict(eval_step, weights, fed, count, BATCH).tolist()


def trained(data_dir: str, mesh) -> dict[str, dict]:
    held, streamed = (
        datasets.load("phantom", data_dir, SIZE, streaming=how) for how in ("false", "true")
    )
    alone = sharding.make_mesh({"data": 1}, BATCH)
    found = {}
    for name, dataset, where, in_parts, scan, accumulate in (
        ("one device", held, alone, False, "false", 1),
        ("whole", held, mesh, False, "false", 1),
        ("disk", streamed, mesh, False, "false", 1),
        ("parts", streamed, mesh, True, "false", 1),
        ("whole, accumulated", held, mesh, False, "false", 2),
        ("parts, accumulated, looped", held, mesh, True, "true", 2),
    ):
        run = Run(len(dataset.train), accumulate)
        fed = feed.feed(dataset.train, where, in_parts=in_parts)
        losses, digest, text = run.losses(fed, where, scan)
        found[name] = told = {"losses": losses, "digest": digest}
        if in_parts:
            images = fed.examples.images
            told |= program(text) | {
                "count": len(dataset.train),
                "shape": images.shape,
                "bytes": [shard.data.nbytes for shard in images.addressable_shards],
            }
        if accumulate == 1:
            val = feed.feed(dataset.val, where, in_parts=in_parts)
            told["logits"] = run.logits(val, len(dataset.val))
    return found


def program(text: str) -> dict:
    """What of a compiled program tells how it comes by its images."""
    return {
        "arrays": sorted(set(re.findall(r"u8\[[\d,]+\]", text))),
        "gathered": sorted(set(re.findall(r"= (\S+) all-gather\(", text))),
        "copied": sorted(set(re.findall(r"= (u8\[[\d,]+\])\S* copy\(", text))),
        "sent": compiled.collective_bytes(text),
    }


if __name__ == "__main__":
    on_all = sharding.make_mesh({"data": DEVICES}, BATCH)
    print(json.dumps({"gathered": gathered(on_all), "trained": trained(sys.argv[1], on_all)}))
