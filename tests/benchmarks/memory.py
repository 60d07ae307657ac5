"""The memory of a training step on CPU: ours, and the same network of Flax's own layers.

    pip install -e . && python -m tests.benchmarks.memory --model=resnet50 --batch=16 --size=224

Both train all layers in float32. The stock side has `flax.linen.BatchNorm`, XLA's own convolutions,
pools and gradients, `optax.adam`, and is compiled as `jax.jit` does by itself; its state is donated
too. Of each are given what XLA sets aside for intermediate results, and the most that the process
had resident in its second step, state and interpreter included, which also counts what libraries
allocate by themselves. The last line of the output is one JSON object; the exit code is 1 if ours
takes more than 1.3 times as much by either measure.
"""

import argparse
import contextlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

from radimagenet_jax import models
from radimagenet_jax.models import layers, preprocess
from radimagenet_jax.models.ops import platform
from tests.benchmarks import train_step, turns

PyTree = Any

MOST = 1.3
_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")
_RESET_PEAK = "5"  # see proc_pid_clear_refs(5)


class StockBatchNorm(nn.Module):
    """Flax's BatchNorm under the fields of ours."""

    inference: bool
    epsilon: float
    momentum: float
    use_scale: bool
    bessel_correction: bool
    stats_groups: int
    dtype: Any

    @nn.compact
    def __call__(
        self, x: jax.Array, mask: jax.Array | None = None, shift: jax.Array | None = None
    ) -> jax.Array:
        """Normalises x (N, H, W, C) + shift (C,)."""
        norm = nn.BatchNorm(
            use_running_average=self.inference,
            momentum=self.momentum,
            epsilon=self.epsilon,
            use_scale=self.use_scale,
        )
        return norm(x if shift is None else x + shift)


def stock(options: argparse.Namespace) -> train_step.Made:
    """The step that a script with Flax and Optax has."""
    images, labels = train_step.batch(options)
    model = models.create(options.model, num_classes=2, dropout=train_step.DROPOUT)
    variables = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, *images.shape[1:])))
    tx = optax.adam(train_step.LEARNING_RATE)

    def step(state: PyTree, images: jax.Array, labels: jax.Array) -> tuple[PyTree, jax.Array]:
        params, batch_stats, opt_state = state

        def loss_of(params: PyTree) -> tuple[jax.Array, PyTree]:
            (logits, _), updates = model.apply(
                {"params": params, "batch_stats": batch_stats},
                preprocess.normalize(images, preprocess.PUBLISHED),
                train=True,
                rngs={"dropout": jax.random.key(1)},
                mutable=["batch_stats"],
            )
            losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
            return losses.mean(), updates["batch_stats"]

        differentiated = jax.value_and_grad(loss_of, has_aux=True)
        (loss, batch_stats), gradients = differentiated(params)
        updates, opt_state = tx.update(gradients, opt_state, params)
        return (optax.apply_updates(params, updates), batch_stats, opt_state), loss

    state = variables["params"], variables["batch_stats"], tx.init(variables["params"])
    return jax.jit(step, donate_argnums=0), (state, jnp.asarray(images), jnp.asarray(labels))


SIDES = {"ours": train_step.made, "stock": stock}


def main() -> int:
    """Measures both sides, each in a process of its own."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.memory")
    turns.add_sizes(parser)
    parser.add_argument("--side", choices=list(SIDES), help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.structure = "unfreezeall"
    if options.side:
        print(json.dumps(_measure(options)))
        return 0
    found = {}
    for side in SIDES:
        done = subprocess.run(
            [sys.executable, "-m", "tests.benchmarks.memory", *sys.argv[1:], f"--side={side}"],
            stdout=subprocess.PIPE,
            text=True,
            check=True,
            env=turns.environment_of(turns.OURS),  # both with the same pages
        )
        found[side] = json.loads(done.stdout.splitlines()[-1])
    ratios = {what: round(found["ours"][what] / found["stock"][what], 3) for what in found["ours"]}
    print(json.dumps({"model": options.model, "mebibytes": found, "ratios": ratios}))
    return int(max(ratios.values()) > MOST)


def _measure(options: argparse.Namespace) -> dict[str, float]:
    with contextlib.ExitStack() as stack:
        if options.side == "stock":
            stack.enter_context(mock.patch.object(layers, "BatchNorm", StockBatchNorm))
            stack.enter_context(platform.force("plain"))
        step, (state, *rest) = SIDES[options.side](options)
        compiled = step.lower(state, *rest).compile()
    temporaries = compiled.memory_analysis().temp_size_in_bytes / 2**20
    state, _ = jax.block_until_ready(compiled(state, *rest))
    # Forgets what compiling took.
    _CLEAR.write_text(_RESET_PEAK)
    jax.block_until_ready(compiled(state, *rest))
    (line,) = (line for line in _STATUS.read_text().splitlines() if line.startswith("VmHWM"))
    return {"temporaries": round(temporaries), "resident": round(int(line.split()[1]) / 1024)}


if __name__ == "__main__":
    sys.exit(main())
