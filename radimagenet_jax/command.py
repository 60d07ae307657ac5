"""How every command runs: one way to fail, and exit codes as shells have them."""

import argparse
import importlib
import os
import re
import sys
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn

from radimagenet_jax import huge_pages, interruption
from radimagenet_jax.console import fail
from radimagenet_jax.errors import ConfigError, UserError, shown
from radimagenet_jax.files import expanded

# Modules that call `models.register`, separated by commas.
_NETWORKS = "RADIMAGENET_NETWORKS"
_CLOSED_PIPE = 128 + 13  # SIGPIPE, which Windows has not
# What stands in a column of its own within a line: two spaces or more after some text.
_WHOLE_WORDS: Any = {"break_on_hyphens": False, "break_long_words": False}
_COLUMN = re.compile(r"(?<=\S)  +(?=\S)")


class _Filled(argparse.RawDescriptionHelpFormatter):
    """Fills the paragraphs of a help to the terminal's width; tables and examples keep theirs."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        lines: list[str] = []
        paragraph: list[str] = []
        for line in [*text.splitlines(), ""]:
            if line and not line.startswith(" ") and not line.endswith(":"):
                paragraph.append(line)
                continue
            if paragraph:
                lines += textwrap.wrap(" ".join(paragraph), width, break_on_hyphens=False)
                paragraph = []
            lines += _fitted(line, width)
        return "".join(f"{indent}{line}\n" for line in lines[:-1])


def _fitted(line: str, width: int) -> list[str]:
    """A line of a table or an example, its further lines below its last column."""
    if len(line) <= width:
        return [line]
    start = len(line) - len(line.lstrip())
    if line.lstrip().startswith(("python ", "--")):
        whole = line.removesuffix(" \\")
        further = start if line.lstrip().startswith("--") else start + 6
        parts = textwrap.wrap(whole, width - 2, subsequent_indent=" " * further, **_WHOLE_WORDS)
        ends = [" \\"] * (len(parts) - 1) + ["" if whole == line else " \\"]
        return [part + end for part, end in zip(parts, ends, strict=True)]
    column = _COLUMN.search(line)
    below = " " * (column.end() if column else start)
    return textwrap.wrap(line, width, subsequent_indent=below, **_WHOLE_WORDS)


class Parser(argparse.ArgumentParser):
    """A parser of flags with all that our commands' parsers have in common."""

    def __init__(self, name: str, description: str, epilog: str):
        """Takes the command's name, what it does, and what its help ends with."""
        super().__init__(
            prog=f"python -m radimagenet_jax.{name}",
            description=description,
            epilog=epilog,
            formatter_class=_Filled,
            allow_abbrev=False,
        )

    def error(self, message: str) -> NoReturn:
        """Says what is wrong with the flags, and exits with code 2."""
        super().error(shown(message))

    def line(self, arguments: Sequence[str]) -> list[str]:
        """The command line, for pages and results: the command's name, then its arguments."""
        return [*self.prog.split(), *arguments]

    def add_config(self, what: str, *, required: bool = True) -> None:
        """Adds --config; `what` is its help."""
        self.add_argument("--config", required=required, metavar="PAGE[:ARGUMENTS]", help=what)

    def add_fields(self, example: str) -> None:
        """Adds to the help that fields can be set, which `split_fields` sorts out."""
        self.add_argument(
            "--config.FIELD",
            metavar="VALUE",
            dest="ignored",
            help=f"sets a field of the config, such as {example}",
        )

    def split_fields(self, arguments: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
        """Parses flags, and returns beside them those that set a field of a config."""
        options, rest = self.parse_known_args(arguments)
        unknown = [word for word in rest if not word.startswith("--config.")]
        if unknown:
            self.error(f"unknown arguments: {' '.join(unknown)}")
        return options, rest

    def add_network(self, weights: str) -> None:
        """Adds --workdir or --weights, whose help is `weights`, and --preprocessing."""
        source = self.add_mutually_exclusive_group(required=True)
        source.add_argument("--workdir", metavar="RUN", help="working directory of a finished run")
        source.add_argument("--weights", metavar="FILE", help=weights)
        self.add_argument(
            "--preprocessing",
            metavar="NAME",
            help="with --weights, the input that they expect where the file does not tell: "
            "caffe_div255, caffe, torch or tf",
        )

    def add_data_dir(self) -> None:
        """Adds --data_dir, of those who prepare data sets."""
        from radimagenet_jax.data.registry import DEFAULT_DATA_DIR

        self.add_argument(
            "--data_dir",
            default=DEFAULT_DATA_DIR,
            metavar="DIR",
            help="where prepared data sets and downloads live (default: %(default)s)",
        )


def network_of(options: argparse.Namespace) -> Path:
    """The run or the weight file that the flags of `Parser.add_network` name.

    Raises:
      ConfigError: If a preprocessing is given for a run.
    """
    if options.workdir and options.preprocessing:
        raise ConfigError(
            f"--preprocessing is for --weights; {options.workdir} has its own: leave it out."
        )
    return expanded(options.workdir or options.weights)


def run(main: Callable[[Sequence[str]], int | None]) -> None:
    """Runs a command's main function and turns its outcome into an exit code.

    A `UserError` becomes one sentence on standard error and exit code 1; Ctrl-C
    one line and 130, see `interruption`, and a closed pipe with 141, as shells do. Anything else is
    a defect of ours and keeps its traceback. The process is started over first where that gives
    it memory that computes faster, see `huge_pages`.
    """
    stop = interruption.Interruption(lambda: fail("interrupted."))
    _pass_over_closed_loops()
    try:
        huge_pages.restart_with()
        with stop:
            _import_networks()
            code = main(sys.argv[1:])
    except KeyboardInterrupt:
        stop.leave()
    except BaseException as error:
        if stop.noted:  # a library has made something else of it
            stop.leave()
        code = _told(error)
    if stop.noted:  # a library has passed over it
        stop.leave()
    stop.end()
    sys.exit(code or 0)


def _import_networks() -> None:
    """Imports the modules that register networks of the user's own."""
    named = [name for name in os.environ.get(_NETWORKS, "").split(",") if name]
    if named:
        sys.path.append("")  # a console script does not look where it was started
    for name in named:
        try:
            importlib.import_module(name.strip())
        # A module of somebody's may fail in any way.
        except Exception as error:
            raise ConfigError(
                f"{_NETWORKS} names the module {name.strip()!r}, which cannot be imported "
                f"({type(error).__name__}: {error}); correct it, or take the name out."
            ) from error


def _pass_over_closed_loops() -> None:
    """Keeps quiet what orbax' reads print that end after the read that failed has been told.

    Its library calls back into an asyncio loop which the failure has closed. The sentence on the
    damaged file is already on the terminal.
    """
    uncaught, lost = sys.excepthook, sys.unraisablehook

    def is_late(error: BaseException | None) -> bool:
        return isinstance(error, RuntimeError) and str(error) == "Event loop is closed"

    def tell(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if not is_late(error):
            uncaught(kind, error, trace)

    def tell_lost(unraisable: Any) -> None:
        if not is_late(unraisable.exc_value):
            lost(unraisable)

    sys.excepthook, sys.unraisablehook = tell, tell_lost


def _told(error: BaseException) -> int:
    """Tells what ended a command; returns its exit code, or raises what is a defect of ours."""
    if isinstance(error, UserError):
        fail(str(error))
        return 1
    if isinstance(error, BrokenPipeError):
        # Python would complain again when it flushes standard output at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _CLOSED_PIPE
    raise error
