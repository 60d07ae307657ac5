"""What the machine's processor is called."""

import functools
import re
from pathlib import Path

_TOLD = Path("/proc/cpuinfo")


@functools.cache
def name() -> str:
    """The CPU's name as Linux has it, such as 'AMD EPYC 7R13'; '' where that is not told."""
    try:
        told = _TOLD.read_text(errors="replace")
    except OSError:
        return ""
    found = re.search(r"^model name\s*:\s*(.+)$", told, re.MULTILINE)
    return found[1].strip() if found else ""
