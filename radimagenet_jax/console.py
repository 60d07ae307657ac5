"""How every command talks to a person: one console, one way to fail."""

import os
import signal
import sys
from collections.abc import Callable, Sequence

from rich.console import Console

from radimagenet_jax import huge_pages
from radimagenet_jax.errors import UserError

# Everything for people goes to standard error, so that standard output stays
# free for results (JSON, paths) that another program may read.
console = Console(stderr=True, highlight=False, soft_wrap=True)


def warn(message: str) -> None:
    """Prints one warning sentence."""
    console.print("warning:", style="bold yellow", end=" ")
    console.print(message, markup=False)


def fail(message: str) -> None:
    """Prints one error sentence, in every process of a run."""
    console.quiet = False
    console.print("error:", style="bold red", end=" ")
    console.print(message, markup=False)


def run(command: Callable[[Sequence[str]], int | None]) -> None:
    """Runs a command's main function and turns its outcome into an exit code.

    A `UserError` becomes one sentence on standard error and exit code 1; Ctrl-C
    exits with 130 and a closed pipe with 141, as shells do. Anything else is
    a defect of ours and keeps its traceback. The process is started over first where that gives
    it memory that computes faster, see `huge_pages`.
    """
    huge_pages.restart_with()
    try:
        code = command(sys.argv[1:])
    except UserError as error:
        fail(str(error))
        code = 1
    except KeyboardInterrupt:
        fail("interrupted.")
        code = 128 + signal.SIGINT
    except BrokenPipeError:
        # Python would complain again when it flushes standard output at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 128 + signal.SIGPIPE
    sys.exit(code or 0)
