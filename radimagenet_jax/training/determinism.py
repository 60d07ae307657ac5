"""The same bits twice on a GPU: what XLA is asked before it starts, and what it chose is kept.

On a GPU two things make two runs of one program differ. Some kernels add in an order that changes
from call to call; XLA has others, which it takes when it is asked to. And XLA times kernels against
each other whenever it compiles, and takes the fastest of that moment; its choices can be written to
a file and read again (https://openxla.org/xla/determinism). They are kept in the run's folder, from
which a resumed run has them, and on the machine, from which its next run has them.

CPUs and TPUs compute the same twice by themselves.
"""

import contextlib
import hashlib
import importlib
import os
import pkgutil
import platform
import re
from collections.abc import Mapping, MutableMapping
from pathlib import Path
from typing import Any

import jax
import jaxlib

from radimagenet_jax import processor
from radimagenet_jax.console import warn
from radimagenet_jax.files import expanded
from radimagenet_jax.models import ops

# What a run's folder keeps of XLA's choices.
CHOICES = "autotuning.txt"

# Has XLA take kernels that add in one order.
KERNELS = "xla_gpu_exclude_nondeterministic_ops"
_READ, _WRITE = "--xla_gpu_load_autotune_results_from", "--xla_gpu_dump_autotune_results_to"
_NEXT = "next-"
_GPUS = ("xla_cuda", "xla_rocm")
_LARGEST = 64 * 2**20
_DRIVER = Path("/proc/driver/nvidia/version")

# Where this process' XLA writes its choices, and the folder that keeps them. XLA reads its flags
# once, so there is one of these in a process.
_writes: tuple[Path, Path] | None = None


def ask(
    deterministic: bool,
    folder: str | os.PathLike[str],
    environment: MutableMapping[str, str] = os.environ,
) -> None:
    """Asks XLA for the same bits twice, if a GPU may be used.

    To be called before JAX looks at the devices; afterwards nothing that is asked is heard. What
    XLA_FLAGS says already stays as it is.

    Args:
      deterministic: Whether to ask, see `config.deterministic`.
      folder: A run's or a study's, there or not.
      environment: In which XLA finds its flags.
    """
    global _writes
    _writes = None
    if not deterministic or not may_use_gpu(environment):
        return
    flags = {f"--{KERNELS}": "true"}
    said = environment.get("XLA_FLAGS", "")
    if _READ not in said and _WRITE not in said:
        path = expanded(folder).absolute()
        begun_with = _read(path / CHOICES) or _newest()
        # By their content and not by the run: JAX keeps compiled programs by their flags, and runs
        # that begin with the same choices share them.
        known = _place(begun_with or "")
        written = known.with_name(f"{_NEXT}{known.name}")
        with contextlib.suppress(OSError):  # a home that cannot be written to keeps no choices
            known.parent.mkdir(parents=True, exist_ok=True)
            flags[_WRITE] = str(written)
            _writes = written, path
            if begun_with is not None:
                _write(known, begun_with)
                if known.exists():
                    flags[_READ] = str(known)
    asked = [f'{name}="{value}"' for name, value in flags.items() if name not in said]
    environment["XLA_FLAGS"] = " ".join([said, *asked]).strip()


def keep() -> None:
    """Keeps in the folder and on the machine what XLA has chosen up to now, if it was asked to."""
    if _writes is None:
        return
    written, folder = _writes
    text = _read(written)
    if text is not None:
        _write(folder / CHOICES, text)
        _write(_place(text), text)


def may_use_gpu(environment: Mapping[str, str]) -> bool:
    """Tells, without looking at the devices, whether JAX may find a GPU and use it."""
    wanted = environment.get("JAX_PLATFORMS", "")
    if wanted and not any(name in wanted for name in ("cuda", "rocm", "gpu")):
        return False
    try:
        plugins = importlib.import_module("jax_plugins")
    except ImportError:
        return False
    return any(one.name.startswith(_GPUS) for one in pkgutil.iter_modules(plugins.__path__))


def machine() -> dict[str, Any]:
    """What the bits of a result depend on besides the code: chips, their driver and compiler."""
    device = jax.devices()[0]
    found = {
        "chip": device.device_kind,
        "chips": jax.device_count(),
        "jaxlib": jaxlib.__version__,
        "runtime": " ".join(device.client.platform_version.split()),
    }
    if device.platform == "gpu":
        found["driver"] = _driver()
    if device.platform == "cpu":
        found["chip"] = processor.name() or platform.processor() or platform.machine()
    return found


def moved(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """A sentence on a run that goes on where it cannot have the same bits."""
    changed = [
        f"{name} {before.get(name)}, now {now.get(name)}"
        for name in now.keys() | before.keys()
        if before.get(name) != now.get(name)
    ]
    return (
        f"this run was elsewhere before ({'; '.join(sorted(changed))}): it goes on from its "
        "checkpoint, but its last bits will not be those of a run that never moved."
    )


def _driver() -> str:
    """The version of NVIDIA's driver, '' where there is none."""
    try:
        found = re.search(r"\b\d+\.\d+(?:\.\d+)?\b", _DRIVER.read_text())
    except OSError:
        return ""
    return found[0] if found else ""


def _store() -> Path:
    """The machine's folder of choices, of this jaxlib."""
    return Path(ops.cache_folder()) / "autotuning" / f"jaxlib-{jaxlib.__version__}"


def _place(text: str) -> Path:
    """Where the machine keeps choices: a file whose name tells its content."""
    return _store() / f"{hashlib.sha256(text.encode()).hexdigest()[:16]}.txt"


def _newest() -> str | None:
    """The choices that were kept last on this machine."""
    kept = [path for path in _store().glob("*.txt") if not path.name.startswith(_NEXT)]
    return _read(max(kept, key=lambda path: path.stat().st_mtime)) if kept else None


def _read(path: Path) -> str | None:
    """A file of choices; None if there is none, or it is damaged, which is said."""
    try:
        text = path.read_text(encoding="utf-8") if path.stat().st_size <= _LARGEST else ""
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError):
        text = ""
    # XLA's own text: its version, and a block for each choice.
    lines = text.splitlines()
    if lines and lines[0].startswith("version:") and (len(lines) == 1 or lines[-1] == "}"):
        return text
    warn(f"{path} is damaged and not used, so that XLA chooses its kernels anew; remove the file.")
    return None


def _write(path: Path, text: str) -> None:
    if path.exists() and _read(path) == text:
        return
    # Several processes of a study may write the same file at once.
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        warn(f"{path} cannot be written ({error.strerror}): XLA's choices of kernels are not kept.")
