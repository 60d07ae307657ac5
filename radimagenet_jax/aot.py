"""Compiles the training step for chips that are not there: `python -m radimagenet_jax.aot`."""

import json
from collections.abc import Sequence

from radimagenet_jax import command, console
from radimagenet_jax.errors import ConfigError

_EPILOG = """\
It compiles the step that training takes, with the chip's own compiler, on any machine, and
computes nothing: no data, no weights and no chip are needed, only the extra `aot` for TPUs
(pip install -e '.[aot]') or `cuda13` for GPUs. A network takes minutes to compile.

It prints one JSON object: topology, devices, global_batch, hbm_bytes_per_device (what the step
holds at its peak), hbm_limit_bytes, fits, flops_per_device, bytes_accessed_per_device,
collective_bytes_per_device (each a step), compile_seconds. `fits` is false also where the
compiler itself refuses; the largest batch that should fit is then named on standard error.
For GPUs it leaves out what takes a GPU, timing kernels against each other; their compiler counts
no operations (flops_per_device is null), and the traffic is every kernel's arrays, each once.

topologies: a TPU's generation and how its chips are laid out, or a GPU and how many, such as
  v5e:2x4  v5e:16x16  v6e:2x4  v4:2x2x2  v5p:2x2x1  a100  h100  h100:8  h200

examples:
  python -m radimagenet_jax.aot --config=configs/radimagenet.py --topology=v5e:2x4 --per_device=128
  python -m radimagenet_jax.aot --config=configs/breast.py --topology=a100 --per_device=256
  python -m radimagenet_jax.aot --config=configs/covid.py --topology=v6e:2x4 --report \\
      --config.model=densenet121 --config.structure=freezeall
"""


def main(arguments: Sequence[str]) -> int:
    """Parses the command line, compiles and prints; returns the exit code."""
    parser = command.Parser(
        "aot",
        "Compile the training step for TPUs or GPUs and say what it takes.",
        _EPILOG,
    )
    parser.add_config("a config page")
    parser.add_argument(
        "--topology", required=True, metavar="NAME", help="such as v5e:2x4, or h100"
    )
    parser.add_argument(
        "--per_device",
        type=int,
        metavar="N",
        help="images a device and step; otherwise config.batch_size is shared by the devices",
    )
    parser.add_argument(
        "--report",
        action="store_true",
        help="also list the largest buffers and the collectives, on standard error",
    )
    parser.add_fields("--config.dtype=bfloat16")
    options, rest = parser.split_fields(arguments)
    if options.per_device is not None and options.per_device < 1:
        raise ConfigError(f"--per_device is {options.per_device}; give 1 or more images.")

    # Imported late: the compiler must be found before JAX looks for devices.
    from radimagenet_jax.training import topology

    devices = topology.devices(options.topology)

    from radimagenet_jax.training import compiled
    from radimagenet_jax.training import config as config_pages

    config = config_pages.load(options.config, rest)
    config_pages.validate(config)
    if options.per_device:
        config.batch_size = options.per_device * len(devices)
    with console.console.status(f"compiling {config.model} for {options.topology} ..."):
        program = topology.compile_step(config, devices)
    if options.report and program.text:
        console.console.print(compiled.buffers(program.text))
        console.console.print(compiled.collectives(program.text))
    found = {
        "topology": options.topology,
        "devices": len(devices),
        "global_batch": config.batch_size,
        "hbm_bytes_per_device": program.hbm_bytes,
        "hbm_limit_bytes": topology.memory(options.topology),
        "fits": program.hbm_bytes is not None
        and program.hbm_bytes <= topology.memory(options.topology),
        "flops_per_device": program.flops,
        "bytes_accessed_per_device": program.bytes_accessed,
        "collective_bytes_per_device": compiled.collective_bytes(program.text)
        if program.text
        else None,
        "compile_seconds": round(program.seconds, 1),
    }
    if not found["fits"]:
        console.warn(_what_fits(config.batch_size, len(devices), found, program.refusal))
    print(json.dumps(found))
    return 0


def _what_fits(batch: int, devices: int, found: dict[str, int | float | None], refusal: str) -> str:
    each = batch // devices
    limit, needed = found["hbm_limit_bytes"], found["hbm_bytes_per_device"]
    why = refusal or f"it takes {(needed or 0) / 2**30:.1f} GiB of {(limit or 0) / 2**30:.0f}"
    # What the step holds grows with the batch, parameters and their moments hardly count.
    share = (limit or 0) / needed if needed else 0.5
    fitting = max(1, int(each * share * 0.95))
    return (
        f"{each} images do not fit a device ({why}); try --per_device={fitting}, "
        "config.accumulate, config.remat=blocks, or config.dtype=bfloat16."
    )


if __name__ == "__main__":
    command.run(main)
