"""The worker processes of a process, as Linux tells them."""

import contextlib
from pathlib import Path


def workers_of(parent: int) -> list[int]:
    """Their process ids."""
    found = []
    for page in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = page.read_text().rpartition(")")[2].split()
            command = page.with_name("cmdline").read_bytes()
            if int(fields[1]) == parent and fields[0] != "Z" and b"spawn_main" in command:
                found.append(int(page.parent.name))
    return found


def has_ended(pid: int) -> bool:
    """Whether a process is no more, though nobody may have asked how it ended."""
    try:
        return "State:\tZ" in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return True
