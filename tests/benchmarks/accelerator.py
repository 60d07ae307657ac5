"""Training steps on a GPU or TPU: ours, PyTorch's (eager and compiled), and stock Flax.

    pip install -e '.[cuda13,bench]' && python -m tests.benchmarks.accelerator \
        --model=resnet50 --batch=256 --precision=bfloat16

All layers learn, 224 pixels, 165 classes, Adam; images are uint8 on the device, as a data set that
fits is, and each step gathers its batch there. Ours augments within the step, the others do not.
PyTorch runs networks from timm with channels_last, cuDNN's search for the fastest kernels, fused
Adam and, in bfloat16, its automatic mixed precision; stock Flax is the ResNet50 (v1.5) that flax's
ImageNet example builds. `ours_free` is ours with `config.deterministic=False`.

Each side is a process of its own, one after the other, alone on the accelerator, and compiles
without a cache; the median of three rounds counts. With `--kernels=N` ours is recorded for ten
steps, and the N kernels that took longest are listed. The last line is one JSON object.
"""

import argparse
import hashlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from tests.keras_networks import KERAS_APPLICATIONS

CLASSES, IMAGES, BATCHES = 165, 2048, 8
RATE, DROPOUT = 1e-4, 0.5
# Steps before anything is timed.
WARM = 5


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(prog="python -m tests.benchmarks.accelerator")
    made.add_argument("--model", choices=list(KERAS_APPLICATIONS), default="resnet50")
    made.add_argument("--batch", type=int, default=256)
    made.add_argument("--size", type=int, default=224, help="side of the images")
    made.add_argument("--precision", choices=("bfloat16", "float32"), default="bfloat16")
    made.add_argument("--augment", default="rotate_flip", help="of ours: a policy, or none")
    made.add_argument("--steps", type=int, default=40, help="of a round")
    made.add_argument("--rounds", type=int, default=3)
    made.add_argument("--kernels", type=int, default=0, metavar="N", help="list ours by time")
    made.add_argument("--sides", default=",".join(SIDES), help="which, of these")
    made.add_argument("--side", choices=list(SIDES), help=argparse.SUPPRESS)
    return made


def main() -> int:
    """Runs each side in its turn, and prints what they did."""
    options = parser().parse_args()
    if options.side:
        print(json.dumps(SIDES[options.side](options)))
        return 0
    found: dict[str, Any] = {}
    for side in options.sides.split(","):
        if side == "flax" and options.model != "resnet50":
            continue
        command = [sys.executable, "-m", "tests.benchmarks.accelerator", *sys.argv[1:]]
        done = subprocess.run([*command, f"--side={side}"], stdout=subprocess.PIPE, text=True)
        if done.returncode:
            print(f"{side}: ended with {done.returncode}", file=sys.stderr)
            found[side] = None
            continue
        found[side] = json.loads(done.stdout.splitlines()[-1])
        print(f"{side}: {json.dumps(found[side])}", file=sys.stderr)
    described = {name: getattr(options, name) for name in ("model", "batch", "size", "precision")}
    print(json.dumps(described | found))
    return int(None in found.values())


def timed(
    options: argparse.Namespace, step: Callable[[int], object], wait: Callable[[], object]
) -> float:
    """Images a second: the median over rounds of steps that are sent without waiting for them.

    Args:
      options: Of `parser`.
      step: Sends a step; its number is given.
      wait: Until all that was sent is done.
    """
    rates = []
    for _ in range(options.rounds):
        began = time.perf_counter()
        for number in range(options.steps):
            step(number)
        wait()
        rates.append(options.batch * options.steps / (time.perf_counter() - began))
    return round(statistics.median(rates), 1)


def examples(options: argparse.Namespace) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
    """Grey images, labels, and the places of some batches."""
    rng = np.random.default_rng(0)
    shape = (max(IMAGES, options.batch), options.size, options.size, 1)
    labels = rng.integers(0, CLASSES, shape[0]).astype(np.int32)
    places = [rng.permutation(shape[0])[: options.batch].astype(np.int32) for _ in range(BATCHES)]
    return rng.integers(0, 256, shape, np.uint8), labels, places


# ------------------------------------------------------------------------------------------ Ours


def ours(options: argparse.Namespace, deterministic: bool = True) -> dict[str, Any]:
    """The step of a run, compiled as a run's is."""
    from configs import base
    from radimagenet_jax.training import determinism

    config = base.get_config()
    config.model, config.dtype, config.augment = options.model, options.precision, options.augment
    config.image_size, config.batch_size = options.size, options.batch
    config.optimizer.learning_rate, config.dropout = RATE, DROPOUT
    config.deterministic = deterministic
    with tempfile.TemporaryDirectory() as folder:
        determinism.ask(deterministic, folder)
        return _ours(options, config)


def _ours(options: argparse.Namespace, config: Any) -> dict[str, Any]:
    import jax
    import jax.numpy as jnp
    import jaxlib

    from radimagenet_jax.data.datasets import Split
    from radimagenet_jax.models import ops
    from radimagenet_jax.training import network, sharding
    from radimagenet_jax.training.examples import place_whole
    from radimagenet_jax.training.program import Values

    images, labels, places = examples(options)
    program = network.from_scratch(config, tuple(map(str, range(CLASSES))), 1)
    values = Values.of(config, labels, CLASSES)
    state = jax.device_put(program.state(program.scratch(0), values))
    names = tuple(map(str, range(len(labels))))
    split = place_whole(
        Split(images, labels, names, names, np.arange(len(labels), dtype=np.uint32)),
        sharding.make_mesh({"data": 1}, options.batch, 1),
    )
    batches = [jnp.asarray(place) for place in places]
    mask = jnp.ones(options.batch, jnp.float32)
    began = time.perf_counter()
    lowered = ops.jit(program.train_step(values), donate_argnums=0).lower(
        state, split, batches[0], mask
    )
    traced = time.perf_counter()
    compiled = lowered.compile()
    ready = time.perf_counter()
    sums: Any = None

    def step(number: int) -> None:
        nonlocal state, sums
        state, sums = compiled(state, split, batches[number % BATCHES], mask)

    def wait() -> None:
        jax.block_until_ready((state, sums))

    for number in range(WARM):
        step(number)
    wait()
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(state.params):
        digest.update(np.asarray(leaf).tobytes())
    found = {
        "images_per_second": timed(options, step, wait),
        "trace_seconds": round(traced - began, 1),
        "compile_seconds": round(ready - traced, 1),
        **memory(compiled),
        "digest": digest.hexdigest()[:12],
        "device": jax.devices()[0].device_kind,
        "jaxlib": jaxlib.__version__,
    }
    if options.kernels:
        record(lambda: ([step(number) for number in range(10)], wait()), options.kernels)
    return found


def memory(compiled: Any) -> dict[str, float]:
    """What the compiler says of a step's memory and traffic, in GiB."""
    held, cost = compiled.memory_analysis(), compiled.cost_analysis()
    return {
        "temporary_gib": round(held.temp_size_in_bytes / 2**30, 2),
        "traffic_gib": round(cost.get("bytes accessed", 0) / 2**30, 2),
    }


def record(run: Callable[[], object], count: int) -> None:
    """Records ten steps, and lists the kernels that took longest, in milliseconds a step."""
    import jax

    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            run()
        (path,) = Path(folder).rglob("*.xplane.pb")
        profile = jax.profiler.ProfileData.from_file(str(path))
    spent: defaultdict[str, float] = defaultdict(float)
    calls: defaultdict[str, int] = defaultdict(int)
    for plane in profile.planes:
        if "GPU" not in plane.name and "TPU" not in plane.name:
            continue
        for line in plane.lines:
            # GPU's streams, and TPU's operations: other lines repeat these in groups.
            if not line.name.startswith(("Stream", "XLA Ops")):
                continue
            for event in line.events:
                stats = dict(event.stats)
                name = f"{stats.get('hlo_op', '')} {event.name[:60]}".strip()
                spent[name] += event.duration_ns / 1e7
                calls[name] += 1
    print(f"{sum(spent.values()):8.3f} ms a step in all kernels", file=sys.stderr)
    for name in sorted(spent, key=lambda name: -spent[name])[:count]:
        print(f"{spent[name]:8.3f} {calls[name] / 10:6.1f} x {name}", file=sys.stderr)


# ----------------------------------------------------------------------------------------- Peers


def torch(options: argparse.Namespace, compiled: bool) -> dict[str, Any]:
    """PyTorch with timm's network."""
    import timm
    import torch

    torch.backends.cudnn.benchmark = True
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    device = "cuda" if torch.cuda.is_available() else "cpu"
    base = timm.create_model(options.model, num_classes=0)
    head = torch.nn.Linear(base.num_features, CLASSES)
    model = torch.nn.Sequential(base, torch.nn.Dropout(DROPOUT), head)
    model.to(device, memory_format=torch.channels_last).train()
    optimizer = torch.optim.Adam(model.parameters(), RATE, fused=device == "cuda")
    pixels, classes, places = examples(options)
    images = torch.from_numpy(pixels.transpose(0, 3, 1, 2)).to(device)
    labels = torch.from_numpy(classes).long().to(device)
    batches = [torch.from_numpy(place).long().to(device) for place in places]

    def loss_of(x: Any, y: Any) -> Any:
        x = ((x.float() - 127.5) / 255).expand(-1, 3, -1, -1)
        x = x.contiguous(memory_format=torch.channels_last)
        with torch.autocast(device, torch.bfloat16, enabled=options.precision == "bfloat16"):
            logits = model(x)
        return torch.nn.functional.cross_entropy(logits.float(), y)

    forward = torch.compile(loss_of) if compiled else loss_of

    def step(number: int) -> None:
        optimizer.zero_grad(set_to_none=True)
        place = batches[number % BATCHES]
        forward(images[place], labels[place]).backward()
        optimizer.step()

    def wait() -> None:
        if device == "cuda":
            torch.cuda.synchronize()

    began = time.perf_counter()
    for number in range(WARM):
        step(number)
    wait()
    warm = time.perf_counter() - began
    return {
        "images_per_second": timed(options, step, wait),
        "compile_seconds": round(warm, 1),
        "torch": torch.__version__,
    }


def flax(options: argparse.Namespace) -> dict[str, Any]:
    """ResNet50 v1.5 of plain Flax layers, and optax's Adam."""
    import jax
    import jax.numpy as jnp
    import optax
    from flax import linen as nn

    dtype = jnp.dtype(options.precision)
    conv = partial(nn.Conv, use_bias=False, dtype=dtype)
    norm = partial(nn.BatchNorm, use_running_average=False, momentum=0.9, dtype=dtype)

    class Network(nn.Module):
        @nn.compact
        def __call__(self, x: jax.Array) -> jax.Array:
            x = nn.relu(norm()(conv(64, (7, 7), (2, 2), padding=[(3, 3), (3, 3)])(x)))
            x = nn.max_pool(x, (3, 3), (2, 2), "SAME")
            for stage, blocks in enumerate((3, 4, 6, 3)):
                for block in range(blocks):
                    width, stride = 64 * 2**stage, 2 if stage and not block else 1
                    y = nn.relu(norm()(conv(width, (1, 1))(x)))
                    y = nn.relu(norm()(conv(width, (3, 3), (stride, stride))(y)))
                    y = norm(scale_init=nn.initializers.zeros)(conv(4 * width, (1, 1))(y))
                    if x.shape != y.shape:
                        x = norm()(conv(4 * width, (1, 1), (stride, stride))(x))
                    x = nn.relu(x + y)
            return nn.Dense(CLASSES, dtype=jnp.float32)(x.mean((1, 2)))

    network, tx = Network(), optax.adam(RATE)
    blank = jnp.zeros((2, options.size, options.size, 3))
    variables = jax.jit(network.init)(jax.random.key(0), blank)
    params, stats = variables["params"], variables["batch_stats"]
    pixels, classes, places = examples(options)
    images, labels = jnp.asarray(pixels), jnp.asarray(classes)
    batches = [jnp.asarray(place) for place in places]

    @partial(jax.jit, donate_argnums=0)
    def take(state: Any, images: jax.Array, labels: jax.Array, place: jax.Array) -> Any:
        params, stats, opt = state
        x = (jnp.repeat(images[place], 3, -1).astype(dtype) - 127.5) / 255

        def loss(params: Any) -> Any:
            logits, updates = network.apply(
                {"params": params, "batch_stats": stats}, x, mutable=["batch_stats"]
            )
            losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels[place])
            return losses.mean(), updates["batch_stats"]

        (value, stats), gradients = jax.value_and_grad(loss, has_aux=True)(params)
        updates, opt = tx.update(gradients, opt, params)
        return (optax.apply_updates(params, updates), stats, opt), value

    state: Any = (params, stats, tx.init(params))
    began = time.perf_counter()
    compiled = take.lower(state, images, labels, batches[0]).compile()
    seconds = time.perf_counter() - began
    value: Any = None

    def step(number: int) -> None:
        nonlocal state, value
        state, value = compiled(state, images, labels, batches[number % BATCHES])

    def wait() -> None:
        jax.block_until_ready((state, value))

    for number in range(WARM):
        step(number)
    wait()
    return {
        "images_per_second": timed(options, step, wait),
        "compile_seconds": round(seconds, 1),
        **memory(compiled),
    }


SIDES: Mapping[str, Callable[[argparse.Namespace], dict[str, Any]]] = {
    "ours": ours,
    "ours_free": partial(ours, deterministic=False),
    "torch": partial(torch, compiled=False),
    "torch_compile": partial(torch, compiled=True),
    "flax": flax,
}

if __name__ == "__main__":
    os.environ.setdefault("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.9")
    sys.exit(main())
