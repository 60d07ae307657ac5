"""Joins the processes of one run: by flags, or as TPU, Slurm or Open MPI describe them."""

import importlib.util
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import jax

from radimagenet_jax.errors import ConfigError

# (number of processes, this process), as each launcher tells its processes.
_RANKS = {
    "Slurm": ("SLURM_NTASKS", "SLURM_PROCID"),
    "Open MPI": ("OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK"),
}
# What JAX needs besides to find the coordinator. Open MPI 5 no longer sets its variable, and a
# shell inside `salloc` has Slurm's job but no step; both then need --coordinator.
_ADDRESS = {"Slurm": "SLURM_STEP_NODELIST", "Open MPI": "OMPI_MCA_orte_hnp_uri"}
_TPU_DEVICES = ("/dev/accel0", "/dev/vfio/0")


@dataclass(frozen=True)
class Cluster:
    """How to join: `None` leaves a value to JAX's own detection.

    Attributes:
      coordinator: HOST:PORT of process 0.
      processes: How many processes the run has.
      process_id: Which of them this is, from 0.
    """

    coordinator: str | None = None
    processes: int | None = None
    process_id: int | None = None


def find(
    coordinator: str | None,
    processes: int | None,
    process_id: int | None,
    environment: Mapping[str, str],
    on_tpu: bool,
) -> Cluster | None:
    """Decides whether there are other processes to join, and how.

    Args:
      coordinator: The flag --coordinator, HOST:PORT, or None.
      processes: The flag --processes, or None.
      process_id: The flag --process_id, or None.
      environment: The environment variables.
      on_tpu: Whether this machine is a TPU VM; JAX asks its metadata for the others.

    Returns:
      The cluster, or None for a process on its own.

    Raises:
      ConfigError: If the flags are incomplete or contradict each other.
    """
    if coordinator is None:
        if processes is not None or process_id is not None:
            raise ConfigError("--processes and --process_id need --coordinator=HOST:PORT.")
        if on_tpu and environment.get("JAX_PLATFORMS", "tpu").startswith("tpu"):
            return Cluster()
        for launcher, (count, rank) in _RANKS.items():
            several = rank in environment and int(environment.get(count, "1")) > 1
            if several and _ADDRESS[launcher] in environment:
                return Cluster()
            if several and launcher == "Open MPI":
                raise ConfigError(
                    f"Open MPI started {environment[count]} processes but does not say where the "
                    "first one is; add --coordinator=HOST:PORT."
                )
        return None

    if not re.fullmatch(r".+:\d{1,5}", coordinator):
        raise ConfigError(f"--coordinator must be HOST:PORT, not {coordinator!r}.")
    for count, rank in _RANKS.values():
        if processes is None and process_id is None and {count, rank} <= environment.keys():
            processes, process_id = int(environment[count]), int(environment[rank])
    if processes is None or process_id is None:
        raise ConfigError("--coordinator needs --processes=N and --process_id=I beside it.")
    if not 0 <= process_id < processes:
        raise ConfigError(
            f"--process_id={process_id} must be from 0 to {processes - 1} for "
            f"--processes={processes}."
        )
    return Cluster(coordinator, processes, process_id)


def start(
    coordinator: str | None = None, processes: int | None = None, process_id: int | None = None
) -> None:
    """Joins the other processes of the run, if there are any, before JAX looks at the devices.

    Args:
      coordinator: The flag --coordinator, HOST:PORT of process 0, or None.
      processes: The flag --processes, or None.
      process_id: The flag --process_id, or None.

    Raises:
      ConfigError: If the flags contradict each other or the others cannot be reached.
    """
    cluster = find(coordinator, processes, process_id, os.environ, _on_tpu())
    if cluster is None:
        return
    # Only CPU devices look at it; they have no other way to reach another process.
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    try:
        jax.distributed.initialize(cluster.coordinator, cluster.processes, cluster.process_id)
    except (RuntimeError, ValueError) as exc:
        raise ConfigError(
            f"The other processes cannot be joined at {cluster.coordinator or 'the address found'}"
            f" ({exc}); check that all of them run and that the port is free and open."
        ) from exc


def _on_tpu() -> bool:
    present = any(Path(device).exists() for device in _TPU_DEVICES)
    return present and importlib.util.find_spec("libtpu") is not None
