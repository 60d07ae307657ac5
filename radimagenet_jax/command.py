"""How every command runs: one way to fail, and exit codes as shells have them."""

import argparse
import os
import signal
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

from radimagenet_jax import huge_pages
from radimagenet_jax.console import fail
from radimagenet_jax.errors import UserError, shown


class Parser(argparse.ArgumentParser):
    """A parser of flags with all that our commands' parsers have in common."""

    def __init__(self, name: str, description: str, epilog: str):
        """Takes the command's name, what it does, and what its help ends with."""
        super().__init__(
            prog=f"python -m radimagenet_jax.{name}",
            description=description,
            epilog=epilog,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )

    def error(self, message: str) -> NoReturn:
        """Says what is wrong with the flags, and exits with code 2."""
        super().error(shown(message))

    def split_fields(self, arguments: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
        """Parses flags, and returns beside them those that set a field of a config."""
        options, rest = self.parse_known_args(arguments)
        unknown = [word for word in rest if not word.startswith("--config.")]
        if unknown:
            self.error(f"unknown arguments: {' '.join(unknown)}")
        return options, rest


def run(main: Callable[[Sequence[str]], int | None]) -> None:
    """Runs a command's main function and turns its outcome into an exit code.

    A `UserError` becomes one sentence on standard error and exit code 1; Ctrl-C
    exits with 130 and a closed pipe with 141, as shells do. Anything else is
    a defect of ours and keeps its traceback. The process is started over first where that gives
    it memory that computes faster, see `huge_pages`.
    """
    huge_pages.restart_with()
    try:
        code = main(sys.argv[1:])
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
