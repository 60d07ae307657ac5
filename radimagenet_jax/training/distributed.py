"""Joins the processes of one run: by flags, or as TPU, Slurm or Open MPI describe them."""

import atexit
import contextlib
import hashlib
import importlib.util
import os
import re
import subprocess
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from radimagenet_jax import console
from radimagenet_jax.errors import ConfigError, UserError

T = TypeVar("T")

# (number of processes, this process), as each launcher tells its processes.
_RANKS = {
    "Slurm": ("SLURM_NTASKS", "SLURM_PROCID"),
    "Open MPI": ("OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK"),
}
# What JAX needs besides to find the coordinator. Open MPI 5 no longer sets its variable, and a
# shell inside `salloc` has Slurm's job but no step; both then need --coordinator.
_ADDRESS = {"Slurm": "SLURM_STEP_NODELIST", "Open MPI": "OMPI_MCA_orte_hnp_uri"}
# Hosts of a large job may start minutes apart; a process that is silent for so long is dead.
_JOIN_SECONDS, _SILENCE_SECONDS, _LEAVE_SECONDS = 300, 30, 15
_MESSAGE_BYTES = 4096
# What gloo, NCCL and the coordination service say of a process that is gone.
_LOST = re.compile(
    r"gloo|connection (?:closed|reset|refused)|peer|heartbeat|coordination service|UNAVAILABLE"
    r"|DEADLINE_EXCEEDED|ABORTED",
    re.IGNORECASE,
)
_together = False
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
    global _together
    cluster = find(coordinator, processes, process_id, os.environ, _on_tpu())
    if cluster is None:
        return
    # Only CPU devices look at it; they have no other way to reach another process.
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    try:
        jax.distributed.initialize(
            cluster.coordinator,
            cluster.processes,
            cluster.process_id,
            initialization_timeout=_JOIN_SECONDS,
            heartbeat_timeout_seconds=_SILENCE_SECONDS,
            shutdown_timeout_seconds=_LEAVE_SECONDS,
        )
    except (RuntimeError, ValueError) as exc:
        raise ConfigError(
            f"The other processes cannot be joined at {cluster.coordinator or 'the address found'}"
            f" ({exc}); check that all of them run and that the port is free and open."
        ) from exc
    _together = jax.process_count() > 1
    if _together:
        _leave_a_last_word()
    if not is_lead():
        # One voice is enough; what goes wrong is still said, by whoever meets it.
        console.console.quiet = True


def _leave_a_last_word() -> None:
    """Lets a shell say why this process is gone, if it goes without a word of its own.

    When another process dies, collectives would wait for ever, and JAX's coordination service ends
    this one from C++: no handler of Python runs, and what it prints is a stack trace.
    """
    sentence = (
        f"error: process {jax.process_index()} of this run was ended, most likely because another "
        "process is gone (the lines above may say which); start all of them again with the same "
        "command: the run resumes from its last checkpoint."
    )
    # The shell waits for a line; an end without one is the end of this process.
    shell = subprocess.Popen(
        ["sh", "-c", 'read -r line || printf "%s\\n" "$1" >&2', "sh", sentence],
        stdin=subprocess.PIPE,
        start_new_session=True,
    )
    atexit.register(shell.communicate, b"\n")


def is_together() -> bool:
    """Whether this process is one of several of its run."""
    return _together


def is_lead() -> bool:
    """Whether this process writes the run's files and speaks: the first one, or the only one."""
    return not _together or jax.process_index() == 0


def lead_first(action: Callable[[], T], follow: Callable[[], T]) -> T:
    """Lets the first process act, then the others follow; if it fails, all fail alike.

    Raises:
      UserError: What `action` raised, in every process.
    """
    if not _together:
        return action()
    result: T | None
    result, message = None, ""
    if is_lead():
        try:
            result = action()
        except UserError as error:
            message = str(error)
    message = _from_lead(message)
    if message:
        raise UserError(message)
    return follow() if result is None else result


def agree(what: Mapping[str, str]) -> None:
    """Checks that all processes of the run have the same config, code and data.

    Args:
      what: A value for each thing that must be the same, by its name.

    Raises:
      ConfigError: In every process, if they differ, naming the things and the processes.
    """
    if not _together:
        return
    own = np.stack([_digest(value) for value in what.values()])
    every = multihost_utils.process_allgather(own)
    wrong = []
    for place, name in enumerate(what):
        others = np.flatnonzero((every[:, place] != every[0, place]).any(-1))
        if len(others):
            numbers = ", ".join(str(number) for number in others)
            wrong.append(f"the {name} of process {numbers} is not that of process 0")
    if wrong:
        raise ConfigError(
            f"{'; '.join(wrong)}: start all processes with the same command, code and data."
        )


def code_digest() -> str:
    """sha256 of this package's source files, which all processes of a run must share."""
    digest = hashlib.sha256()
    home = Path(__file__).resolve().parents[1]
    for path in sorted(home.rglob("*.py")):
        digest.update(path.relative_to(home).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()


def as_lead_has_it(number: int) -> int:
    """The first process' value of a number; all must ask at the same step."""
    if not _together:
        return number
    return int(multihost_utils.broadcast_one_to_all(np.int32(number)))


def all_or_none(action: Callable[[], T]) -> T:
    """Runs what may fail in some processes only, and then fails in all of them; all must call it.

    Raises:
      UserError: What `action` raised, here or in another process.
    """
    if not _together:
        return action()
    failure: UserError | None = None
    try:
        result = action()
    except UserError as error:
        failure = error
    failed = np.flatnonzero(multihost_utils.process_allgather(np.bool_(failure is not None)))
    if failure is not None:
        raise failure
    if len(failed):
        raise UserError(f"process {failed[0]} of this run says why, and the others end with it.")
    return result


def preempted(call: int) -> bool:
    """Whether a process of the run got SIGTERM, and this is the call at which all stop for it.

    Args:
      call: 1, 2, 3...: the service counts calls to find one that no process has passed.
    """
    return multihost_utils.reached_preemption_sync_point(call)


@contextlib.contextmanager
def telling_of_lost_processes(resume: Path) -> Iterator[None]:
    """Turns the failure of a collective, when another process is gone, into a sentence.

    Args:
      resume: The run's working directory.

    Raises:
      UserError: If another process cannot be reached.
    """
    try:
        yield
    except (jax.errors.JaxRuntimeError, ValueError) as error:
        reason = str(error)
        if not _together or not _LOST.search(reason):
            raise
        raise UserError(
            f"process {jax.process_index()} lost another process of the run in {resume} "
            f"({reason.splitlines()[0][:160]}); look at why that one ended, and start all again "
            "with the same command: the run resumes from its last checkpoint."
        ) from error


def _from_lead(message: str) -> str:
    encoded = message.encode()[:_MESSAGE_BYTES]
    padded = np.zeros(_MESSAGE_BYTES, np.uint8)
    padded[: len(encoded)] = np.frombuffer(encoded, np.uint8)
    received = np.asarray(multihost_utils.broadcast_one_to_all(padded), np.uint8)
    return received.tobytes().rstrip(b"\0").decode(errors="ignore")


def _digest(value: str) -> np.ndarray:
    return np.frombuffer(hashlib.sha256(value.encode()).digest(), np.uint8)


def _on_tpu() -> bool:
    present = any(Path(device).exists() for device in _TPU_DEVICES)
    return present and importlib.util.find_spec("libtpu") is not None
