"""The training step, compiled for TPUs and GPUs that are not there by their own compilers."""

import dataclasses
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
from radimagenet_jax.training import compiled as hlo
from radimagenet_jax.training import determinism, network, sharding
from radimagenet_jax.training.examples import Examples
from radimagenet_jax.training.program import Values

# GiB of a chip's memory (https://cloud.google.com/tpu/docs/system-architecture-tpu-vm).
_TPU_MEMORY = {"v4": 32, "v5e": 16, "v5p": 95, "v6e": 32}
_TPUS = re.compile(rf"({'|'.join(_TPU_MEMORY)}):(\d+x\d+(?:x\d+)?)")
_FORMS = (
    f"a TPU's generation ({', '.join(_TPU_MEMORY)}) and a layout of chips, such as v5e:2x4 or "
    "v4:2x2x2, or a GPU and how many of them, such as h100 or a100:8"
)


@dataclass(frozen=True)
class _Gpu:
    """What NVIDIA's data sheets and CUDA's device queries say of a card, for XLA.

    Attributes:
      name: The card's.
      capability: Major and minor compute capability.
      cores: Streaming multiprocessors.
      lanes: Units for float32 of each.
      clock: In GHz.
      shared_memory: Bytes of a core, and how many of them a block may ask for.
      cache: Bytes of the second level's cache.
      bandwidth: Bytes of memory a second.
      memory: Bytes.
    """

    name: str
    capability: tuple[int, int]
    cores: int
    lanes: int
    clock: float
    shared_memory: tuple[int, int]
    cache: int
    bandwidth: float
    memory: int


_H100 = _Gpu(
    name="NVIDIA H100 80GB HBM3",
    capability=(9, 0),
    cores=132,
    lanes=128,
    clock=1.98,
    shared_memory=(228 * 2**10, 227 * 2**10),
    cache=50 * 2**20,
    bandwidth=3.352e12,
    memory=84_942_979_072,
)
_GPUS = {
    "a100": _Gpu(
        name="NVIDIA A100-SXM4-80GB",
        capability=(8, 0),
        cores=108,
        lanes=64,
        clock=1.41,
        shared_memory=(164 * 2**10, 163 * 2**10),
        cache=40 * 2**20,
        bandwidth=2.039e12,
        memory=85_100_068_864,
    ),
    "h100": _H100,
    "h200": dataclasses.replace(
        _H100, name="NVIDIA H200 141GB HBM3e", bandwidth=4.8e12, memory=151_397_597_184
    ),
}
_CARDS = re.compile(rf"({'|'.join(_GPUS)})(?::([1-8]))?")
CUDA_PLUGINS = ("jax_cuda12_plugin", "jax_cuda13_plugin")


@dataclass(frozen=True)
class Compiled:
    """A compiled step.

    Attributes:
      hbm_bytes: What a device holds at the peak, None if the compiler refused.
      flops: Floating-point operations of a device and step, if the compiler counts them.
      bytes_accessed: Bytes of a device's memory traffic a step, as the compiler counts them, or
        `compiled.traffic` if it does not.
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
    """Bytes of memory of one device of a topology, such as 'v5e:2x4' or 'h100'."""
    kind = name.partition(":")[0]
    return _GPUS[kind].memory if kind in _GPUS else _TPU_MEMORY[kind] * 2**30


def devices(name: str) -> Sequence[Any]:
    """Describes the devices of a topology to their compiler; to be called before JAX is used.

    Args:
      name: Such as 'v5e:2x4', 'h100' or 'h100:8'.

    Raises:
      ConfigError: If there is no such topology, or the compiler is not installed.
    """
    tpus, gpus = _TPUS.fullmatch(name), _CARDS.fullmatch(name)
    if not tpus and not gpus:
        raise ConfigError(f"--topology={name} is not known; give {_FORMS}.")
    if tpus and importlib.util.find_spec("libtpu") is None:
        raise ConfigError(
            "the TPU compiler libtpu is not installed; run pip install -e '.[aot]' first."
        )
    if gpus and not any(importlib.util.find_spec(plugin) for plugin in CUDA_PLUGINS):
        raise ConfigError(
            "JAX's CUDA plugin, whose compiler this needs, is not installed; run "
            "pip install -e '.[cuda13]' first (a GPU need not be there)."
        )
    # Without these, libtpu asks a metadata server for minutes which TPU this machine has.
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    jax.config.update("jax_platforms", "cpu")
    from jax.experimental import topologies

    try:
        if gpus:
            described = topologies.get_topology_desc(
                platform="cuda",
                topology_name=name,
                topology=f"1x1x{gpus[2] or 1}",
                target_config=_for_xla(_GPUS[gpus[1]]),
            )
        else:
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
            "v6e:2x4, v4:2x2x2, v5p:2x2x1 and h100 can."
        ) from error
    return described.devices


def _for_xla(gpu: _Gpu) -> str:
    """A card as XLA's GpuTargetConfigProto, in text."""
    major, minor = gpu.capability
    shared, of_block = gpu.shared_memory
    return f"""
        gpu_device_info {{
          threads_per_block_limit: 1024
          threads_per_warp: 32
          threads_per_core_limit: 2048
          shared_memory_per_block: {48 * 2**10}
          shared_memory_per_core: {shared}
          shared_memory_per_block_optin: {of_block}
          registers_per_core_limit: 65536
          registers_per_block_limit: 65536
          block_dim_limit_x: 2147483647
          block_dim_limit_y: 65535
          block_dim_limit_z: 65535
          core_count: {gpu.cores}
          fpus_per_core: {gpu.lanes}
          clock_rate_ghz: {gpu.clock}
          l2_cache_size: {gpu.cache}
          memory_bandwidth: {gpu.bandwidth:.0f}
          device_memory_size: {gpu.memory}
          cuda_compute_capability {{ major: {major} minor: {minor} }}
        }}
        platform_name: "CUDA"
        runtime_version {{ major: 12 minor: 9 }}
        dnn_version_info {{ major: 9 minor: 10 }}
        device_description_str: "{gpu.name}"
    """


# In an epoch: how many changes nothing but constants.
_STEPS = 1000


def compile_step(config: ConfigDict, described: Sequence[Any]) -> Compiled:
    """Compiles a config's training step, with the batch given as from disk.

    Args:
      config: Of `configs/base.py`; its data set needs not be there.
      described: Of `devices`.

    Raises:
      ConfigError: If the devices cannot share the batch.
    """
    count = len(described)
    sharding.check_shares(config.batch_size, count, config.accumulate)
    mesh = Mesh(np.array(described), (sharding.DATA_AXIS,))
    name = registry.with_fold(config.dataset.name, config.dataset.fold)
    classes = tuple(registry.builder(name).info.features["label"].names)
    # The input changes nothing in what is compiled but constants, so no weight file is needed.
    native = {"preprocessing": "published"} if config.preprocessing == "native" else {}
    program = network.from_scratch(ConfigDict({**config.to_dict(), **native}), classes, count)
    labels = np.arange(_STEPS * config.batch_size) % len(classes)
    values = Values.of(config, labels, len(classes))
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
    lowered = step.lower(state, examples, None, given((batch,), jnp.float32))
    gpu = described[0].platform == "gpu"
    asked: dict[str, str | bool] = {}
    if gpu:
        # As a run asks for; and no kernels that only a GPU could choose among.
        asked = {determinism.KERNELS: config.deterministic, "xla_gpu_enable_triton_gemm": False}
    try:
        compiled = lowered.compile(asked)
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
    if gpu and text is not None:
        # The compiler for GPUs counts nothing.
        cost = {"bytes accessed": hlo.traffic(text)}
    if held is None or cost is None or text is None:
        raise ConfigError("this compiler tells nothing of what it compiled; install it anew.")
    peak = held.argument_size_in_bytes + held.temp_size_in_bytes
    peak += held.output_size_in_bytes - held.alias_size_in_bytes + held.generated_code_size_in_bytes
    return Compiled(int(peak), cost.get("flops"), cost["bytes accessed"], seconds, text=text)
