"""What a study would compute, before anything is: runs, groups, memory, and the time it takes."""

import functools
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core
from ml_collections import ConfigDict
from rich.table import Table

from radimagenet_jax.console import console
from radimagenet_jax.data import datasets, registry
from radimagenet_jax.data.preparation import prepare
from radimagenet_jax.data.tasks import TASKS
from radimagenet_jax.progress import duration
from radimagenet_jax.studies import embeddings, plan, shared
from radimagenet_jax.training import network
from radimagenet_jax.training.program import Program

_SIDE = 2048  # of the matrix product that the machine's speed is measured by
# Share of a matrix product's speed that whole networks are taken to reach: a guess, which the
# table of a dry run calls an estimate.
_EFFICIENCY = 0.4
_PASSES = 3  # a training step costs about three forward passes of what learns
# Compiling a group's programs takes as long as so many samples, with and without a shared trunk,
# and one more for so many equations of the network: measured with shallow and whole ResNet50
# (1,507 equations) and DenseNet121 (3,796).
_SAMPLES = {True: 5, False: 8}
_EQUATIONS = 100
_SAMPLE_LAYERS = 12  # of the small network that is compiled as a sample
_START = 6.0  # seconds: starting the program, checking weights, writing the page
_READ = 16  # images that the speed of reading is measured by


def show(config: ConfigDict, groups: Sequence[plan.Group], workdir: Path) -> None:
    """Prints the groups with their runs, memory and estimated time.

    Args:
      config: The study's, checked.
      groups: Of the study or of a shard.
      workdir: Of the study; groups that are done there are marked.
    """
    speed = _speed()
    reading = _reading(config, groups, workdir)
    compiled: set[tuple[object, ...]] = set()
    table = Table(title="groups", title_justify="left")
    for heading in ("group", "runs", "activations at the cut", "time"):
        is_number = heading in ("runs", "time")
        table.add_column(heading, justify="right" if is_number else "left", overflow="fold")
    total = _START + reading
    for group in groups:
        memory, operations, equations = _cost(config, group)
        done = _is_done(workdir, group)
        seconds = operations / speed
        form = _form(group)
        if not done and form not in compiled:
            compiled.add(form)
            seconds += _sample() * (_SAMPLES[group.has_trunk] + equations / _EQUATIONS)
        total += 0 if done else seconds
        shown = f"{memory / 2**30:.2f} GiB" if group.has_trunk else "-"
        if memory > config.study.memory_gib * 2**30:
            shown += ", computed in parts"
        left = "done" if done else duration(seconds)
        table.add_row(group.id, str(len(group.runs)), shown, left)
    console.print(table)
    for group in groups:
        for run in group.runs:
            print(run.id)
    count = sum(len(group.runs) for group in groups)
    console.print(
        f"{count} runs in {len(groups)} groups; roughly {duration(total)} on this machine as it is "
        f"now, {duration(reading)} of it to read images: by the networks' operations, the speed of "
        "a matrix product and the time that a small network takes to compile"
    )


def _is_done(workdir: Path, group: plan.Group) -> bool:
    return (workdir / "groups" / f"{group.id}.json").is_file()


def _form(group: plan.Group) -> tuple[object, ...]:
    """What groups have in common that are computed by the same compiled programs."""
    run = group.runs[0]
    shared = (run.views, len(group.runs)) if group.has_trunk else ()
    return run.task, run.model, run.structure, run.preprocessing, group.has_trunk, *shared


def _reading(config: ConfigDict, groups: Sequence[plan.Group], workdir: Path) -> float:
    """Seconds to read the images of each fold of the tasks that are to be computed."""
    seconds = 0.0
    left = [group.runs[0] for group in groups if not _is_done(workdir, group)]
    for run in {run.task: run for run in left}.values():
        single = plan.run_config(config, run)
        for fold in config.study.folds or plan.folds(run.task):
            name = registry.with_fold(single.dataset.name, fold)
            count = sum(_sizes(single.dataset.name, fold, single.dataset.data_dir))
            began = time.perf_counter()
            opened = datasets.load(
                name, single.dataset.data_dir, single.image_size, streaming="true"
            )
            ready = time.perf_counter()
            chosen = range(min(_READ, len(opened.train)))
            opened.train.read(list(chosen))
            each = (time.perf_counter() - ready) / max(1, len(chosen))
            seconds += ready - began + each * count
    return seconds


def _cost(config: ConfigDict, group: plan.Group) -> tuple[float, float, int]:
    """Bytes of a group's activations, its floating-point operations, its network's equations."""
    first = group.runs[0]
    single = plan.run_config(config, first)
    sizes = {
        run.fold: _sizes(single.dataset.name, run.fold, single.dataset.data_dir)
        for run in group.runs
    }
    labels = TASKS[first.task].labels
    if first.has_table:
        program: Program = embeddings.program(single, embeddings.read(config, first), labels)
    else:
        # What weights it begins with changes nothing in what is computed.
        scratch = ConfigDict({**single.to_dict(), "init": "scratch", "preprocessing": "published"})
        program = network.from_scratch(scratch, labels)
    bytes_per_image, tail, whole, equations = _counted(program)
    train = [sizes[run.fold][0] for run in group.runs]
    held_out = [sum(sizes[run.fold][1:]) for run in group.runs]
    if not group.has_trunk:
        operations = single.epochs * (train[0] * whole * _PASSES + sizes[first.fold][1] * whole)
        return 0.0, operations, equations
    # Every image is in the training split of some fold, if there are several.
    images = max(train) if len(sizes) == 1 else sum(sizes[first.fold])
    views = first.views
    passes = views or single.epochs
    trunk = (images * passes + sum(max(sizes.values()))) * (whole - tail)
    learning = single.epochs * (sum(train) * _PASSES + sum(held_out)) * tail
    return bytes_per_image * images * max(1, views), trunk + learning, equations


@functools.lru_cache(maxsize=32)
def _counted(program: Program) -> tuple[int, float, float, int]:
    """Of an image: bytes at the cut, operations of what learns, of all; the network's equations."""
    x = jax.ShapeDtypeStruct((1, *program.input_shape), jnp.float32)
    traced = jax.make_jaxpr(program.model.apply)(program.shapes, x).jaxpr
    part = shared.evaluation_cut(program)
    return part.bytes_per_image, _count(part.tail_jaxpr), _count(traced), _equations(traced)


def _equations(jaxpr: core.Jaxpr) -> int:
    """How many steps a program has, those within its functions counted."""
    return len(jaxpr.eqns) + sum(
        _equations(part) for eqn in jaxpr.eqns for part in core.jaxprs_in_params(eqn.params)
    )


def _count(jaxpr: core.Jaxpr) -> float:
    """Operations of the convolutions and matrix products."""
    total = 0.0
    for eqn in jaxpr.eqns:
        # Operands of these two are arrays, whose abstract values have shapes.
        out: Any = eqn.outvars[0].aval if eqn.outvars else None
        shapes: list[Any] = [getattr(v.aval, "shape", ()) for v in eqn.invars]
        if eqn.primitive.name == "conv_general_dilated":
            total += 2.0 * out.size * float(np.prod(shapes[1][:-1]))
        elif eqn.primitive.name == "dot_general":
            (contracted, _), _ = eqn.params["dimension_numbers"]
            total += 2.0 * out.size * float(np.prod([shapes[0][d] for d in contracted]))
        else:
            # Alternatives, as for a platform, cost what the dearest of them does.
            inner = [_count(part) for part in core.jaxprs_in_params(eqn.params)]
            total += max(inner, default=0.0)
    return total


@functools.cache
def _sample() -> float:
    """Seconds to compile the gradient of a small network here, the quicker of two times."""

    def loss(kernels: jax.Array, x: jax.Array) -> jax.Array:
        for kernel in kernels:
            x = jax.lax.conv(x, kernel, (1, 1), "SAME")
            x = jax.nn.relu((x - x.mean((0, 2, 3), keepdims=True)) * jax.lax.rsqrt(x.var() + 1))
        return x.sum()

    kernels = jnp.zeros((_SAMPLE_LAYERS, 8, 8, 3, 3))
    took = []
    for side in (8, 9):  # the same shape would not be compiled again
        began = time.perf_counter()
        jax.jit(jax.grad(loss)).lower(kernels, jnp.zeros((2, 8, side, side))).compile()
        took.append(time.perf_counter() - began)
    return min(took)


@functools.cache
def _speed() -> float:
    """Operations a second of a matrix product here, times what networks reach of it."""
    square = jnp.ones((_SIDE, _SIDE), jnp.float32)
    product = jax.jit(lambda a: a @ a)
    product(square).block_until_ready()
    began = time.perf_counter()
    product(square).block_until_ready()
    return _EFFICIENCY * 2.0 * _SIDE**3 / (time.perf_counter() - began)


@functools.cache
def _sizes(name: str, fold: int, data_dir: str) -> tuple[int, ...]:
    """Images in train, val and test of a fold; the data set is prepared first if need be."""
    built = prepare(registry.with_fold(name, fold), data_dir)
    return tuple(built.info.splits[split].num_examples for split in ("train", "val", "test"))
