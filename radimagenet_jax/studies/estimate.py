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
from radimagenet_jax.data import registry
from radimagenet_jax.data.preparation import prepare
from radimagenet_jax.data.tasks import TASKS
from radimagenet_jax.studies import embeddings, plan, shared
from radimagenet_jax.training import network
from radimagenet_jax.training.program import Program
from radimagenet_jax.training.progress import duration

_SIDE = 2048  # of the matrix product that the machine's speed is measured by
# Share of a matrix product's speed that whole networks are taken to reach: a guess, which the
# table of a dry run calls an estimate.
_EFFICIENCY = 0.4
_PASSES = 3  # a training step costs about three forward passes of what learns


def show(config: ConfigDict, groups: Sequence[plan.Group], workdir: Path) -> None:
    """Prints the groups with their runs, memory and estimated time.

    Args:
      config: The study's, checked.
      groups: Of the study or of a shard.
      workdir: Of the study; groups that are done there are marked.
    """
    speed = _speed()
    table = Table(title="groups", title_justify="left")
    for heading in ("group", "runs", "activations at the cut", "time", ""):
        table.add_column(heading, justify="right" if heading in ("runs", "time") else "left")
    total = 0.0
    for group in groups:
        memory, operations = _cost(config, group)
        done = (workdir / "groups" / f"{group.id}.json").is_file()
        seconds = operations / speed
        total += 0 if done else seconds
        shown = f"{memory / 2**30:.2f} GiB" if group.has_trunk else "-"
        if memory > config.study.memory_gib * 2**30:
            shown += ", computed in parts"
        state = "done" if done else ""
        table.add_row(group.id, str(len(group.runs)), shown, duration(seconds), state)
    console.print(table)
    for group in groups:
        for run in group.runs:
            print(run.id)
    count = sum(len(group.runs) for group in groups)
    console.print(
        f"{count} runs in {len(groups)} groups; roughly {duration(total)} on this machine, by the "
        "networks' operations and the speed of a matrix product; compiling and reading come on top"
    )


def _cost(config: ConfigDict, group: plan.Group) -> tuple[float, float]:
    """Bytes of a group's activations, and its floating-point operations."""
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
    bytes_per_image, tail, whole = _counted(program)
    train = [sizes[run.fold][0] for run in group.runs]
    held_out = [sum(sizes[run.fold][1:]) for run in group.runs]
    if not group.has_trunk:
        return 0.0, single.epochs * (train[0] * whole * _PASSES + sizes[first.fold][1] * whole)
    # Every image is in the training split of some fold, if there are several.
    images = max(train) if len(sizes) == 1 else sum(sizes[first.fold])
    views = first.views
    passes = views or single.epochs
    trunk = (images * passes + sum(max(sizes.values()))) * (whole - tail)
    learning = single.epochs * (sum(train) * _PASSES + sum(held_out)) * tail
    return bytes_per_image * images * max(1, views), trunk + learning


@functools.lru_cache(maxsize=32)
def _counted(program: Program) -> tuple[int, float, float]:
    """Of an image: bytes at the cut, operations of what learns, and of the whole network."""
    x = jax.ShapeDtypeStruct((1, *program.input_shape), jnp.float32)
    whole = _count(jax.make_jaxpr(program.model.apply)(program.shapes, x).jaxpr)
    part = shared.evaluation_cut(program)
    return part.bytes_per_image, _count(part.tail_jaxpr), whole


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
