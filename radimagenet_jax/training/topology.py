"""The training step, compiled for a TPU topology by the TPU's own compiler, on any machine."""

import importlib.util
import os
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from radimagenet_jax.data import registry
from radimagenet_jax.errors import ConfigError
from radimagenet_jax.training import network, sharding
from radimagenet_jax.training.examples import Examples
from radimagenet_jax.training.program import Values

# GiB of a chip's memory (https://cloud.google.com/tpu/docs/system-architecture-tpu-vm).
_MEMORY_GIB = {"v4": 32, "v5e": 16, "v5p": 95, "v6e": 32}
_FORM = re.compile(r"(v4|v5e|v5p|v6e):(\d+x\d+(?:x\d+)?)")


@dataclass(frozen=True)
class Compiled:
    """A compiled step.

    Attributes:
      hbm_bytes: What a device holds at the peak, None if the compiler refused.
      flops: Floating-point operations of a device and step, as the compiler counts them.
      bytes_accessed: Bytes of a device's memory traffic a step, as the compiler counts them.
      seconds: The compilation took.
      text: The optimised program, '' if the compiler refused.
      refusal: The compiler's reason, '' if it did not refuse.
    """

    hbm_bytes: int | None
    flops: float | None
    bytes_accessed: float | None
    seconds: float
    text: str = ""
    refusal: str = ""


def memory(name: str) -> int:
    """Bytes of memory of one device of a topology, such as 'v5e:2x4'."""
    return _MEMORY_GIB[name.partition(":")[0]] * 2**30


def devices(name: str) -> Sequence[Any]:
    """Describes the devices of a topology to the compiler; to be called before JAX is used.

    Args:
      name: Such as 'v5e:2x4'.

    Raises:
      ConfigError: If there is no such topology, or the compiler is not installed.
    """
    if not _FORM.fullmatch(name):
        raise ConfigError(
            f"--topology={name} is not known; give a generation ({', '.join(_MEMORY_GIB)}) and a "
            "layout of chips, such as v5e:2x4 or v4:2x2x2."
        )
    if importlib.util.find_spec("libtpu") is None:
        raise ConfigError(
            "the TPU compiler libtpu is not installed; run pip install -e '.[aot]' first."
        )
    # Without these, libtpu asks a metadata server for minutes which TPU this machine has.
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    jax.config.update("jax_platforms", "cpu")
    from jax.experimental import topologies

    try:
        described = topologies.get_topology_desc(platform="tpu", topology_name=name)
    # It raises what its C++ parts met, of many kinds; the name is all that was given to it.
    except Exception as error:
        reason = str(error).splitlines()[0][:200]
        if "lock" in reason.lower() or "in use" in reason.lower():
            raise ConfigError(
                f"libtpu allows one process at a time ({reason}); wait for the other to end."
            ) from error
        raise ConfigError(
            f"--topology={name} cannot be described ({reason}); such as v5e:2x4, v5e:16x16, "
            "v6e:2x4, v4:2x2x2 and v5p:2x2x1 can."
        ) from error
    return described.devices


def compile_step(config: ConfigDict, described: Sequence[Any]) -> Compiled:
    """Compiles a config's training step, with the batch given as from disk.

    Args:
      config: Of `configs/base.py`; its data set needs not be there.
      described: Of `devices`.

    Raises:
      ConfigError: If the devices cannot share the batch.
    """
    count = len(described)
    if config.batch_size % count:
        raise ConfigError(
            f"config.batch_size {config.batch_size} cannot be shared by {count} devices; "
            "give --per_device."
        )
    mesh = Mesh(np.array(described), (sharding.DATA_AXIS,))
    name = registry.with_fold(config.dataset.name, config.dataset.fold)
    classes = tuple(registry.builder(name).info.features["label"].names)
    # The input changes nothing in what is compiled but constants, so no weight file is needed.
    native = {"preprocessing": "published"} if config.preprocessing == "native" else {}
    program = network.from_scratch(ConfigDict({**config.to_dict(), **native}), classes, count)
    values = Values(config.optimizer.learning_rate, 0, 0, 1000, 1000 * config.epochs)
    state = jax.eval_shape(lambda variables: program.state(variables, values), program.shapes)
    layout = sharding.state_layout(state, mesh, config.shard_optimizer)
    split, size, batch = sharding.by_example(mesh), config.image_size, config.batch_size

    def given(shape: tuple[int, ...], dtype: Any) -> Any:  # stands for an array
        return jax.ShapeDtypeStruct(shape, dtype, sharding=split)

    examples = Examples(
        given((batch, size, size, 1), jnp.uint8),
        given((batch,), jnp.int32),
        given((batch,), jnp.uint32),
    )
    step = jax.jit(
        program.train_step(values),
        in_shardings=(layout, split, None, split),
        out_shardings=(layout, sharding.replicated(mesh)),
        donate_argnums=0,
    )
    began = time.monotonic()
    try:
        compiled = step.lower(state, examples, None, given((batch,), jnp.float32)).compile()
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        reason = re.search(r"Used [^.]*\.\d+\w+ of [^.]*\.\d+\w+ hbm", str(error))
        return Compiled(
            None,
            None,
            None,
            time.monotonic() - began,
            refusal=reason[0] if reason else str(error).splitlines()[0][:200],
        )
    seconds = time.monotonic() - began
    held, cost, text = compiled.memory_analysis(), compiled.cost_analysis(), compiled.as_text()
    if held is None or cost is None or text is None:
        raise ConfigError("this libtpu tells nothing of what it compiled; install '.[aot]' anew.")
    peak = held.argument_size_in_bytes + held.temp_size_in_bytes
    peak += held.output_size_in_bytes - held.alias_size_in_bytes + held.generated_code_size_in_bytes
    return Compiled(int(peak), cost["flops"], cost["bytes accessed"], seconds, text=text)
