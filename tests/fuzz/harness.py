"""Tries inputs one after the other in a worker process, and says how each ended.

The product's promise is that every input is either taken and right, or refused in one clear
sentence: no traceback, no crash of the process, no hang, no memory far beyond the input's own size,
nothing left behind. Each is looked at from outside, so that a worker which dies takes nobody along.
"""

import contextlib
import functools
import importlib
import io
import multiprocessing
import os
import pkgutil
import resource
import shutil
import tempfile
import traceback
import unicodedata
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from radimagenet_jax.errors import UserError
from tests.fuzz import surfaces

SECONDS = 30.0
SPARE_BYTES = 500 * 2**20
TIMES_SIZE = 3
# A sentence that a terminal shows in a few lines.
LONGEST = 1500
GOOD = ("accepted", "refused")


@dataclass(frozen=True)
class Surface:
    """A way into the product.

    Attributes:
      name: What `--surface` calls it.
      make: (generator, empty folder) -> input: writes files there if need be, and returns what
        `attempt` takes; to be pickled, and to depend on the generator alone.
      attempt: input -> result, by public functions of the product, in the worker. It raises
        `UserError` where the input is refused.
      judge: (input, result) -> a sentence on what is wrong with having taken it, or None; in the
        worker.
      outputs: Names below the folder that `attempt` may leave there.
      warm: Called once in each worker, so that no first import counts as an input's memory or time.
    """

    name: str
    make: Callable[[np.random.Generator, Path], Any]
    attempt: Callable[[Any], Any]
    judge: Callable[[Any, Any], str | None] = lambda made, result: None
    outputs: frozenset[str] = frozenset()
    warm: Callable[[], None] = lambda: None


@dataclass
class Outcome:
    """How an input ended.

    Attributes:
      number: Of the input.
      verdict: 'accepted', 'refused', 'trace', 'crash', 'hang', 'memory', 'wrong', 'left behind' or
        'unclear' (a refusal that is not one clear sentence).
      detail: The sentence, or the traceback.
      seconds: It took.
      bytes: By which the worker's memory grew at most.
    """

    number: int
    verdict: str
    detail: str = ""
    seconds: float = 0.0
    bytes: int = 0


@dataclass
class Tally:
    """The outcomes of a surface."""

    surface: str
    outcomes: list[Outcome] = field(default_factory=list)

    @property
    def bad(self) -> list[Outcome]:
        """Those that break the promise."""
        return [one for one in self.outcomes if one.verdict not in GOOD]

    def count(self, verdict: str) -> int:
        """How many ended so."""
        return sum(one.verdict == verdict for one in self.outcomes)


@functools.cache
def known() -> dict[str, Surface]:
    """All surfaces by name."""
    found = [
        surface
        for module in pkgutil.iter_modules(surfaces.__path__)
        for surface in importlib.import_module(f"{surfaces.__name__}.{module.name}").SURFACES
    ]
    return {surface.name: surface for surface in sorted(found, key=lambda one: one.name)}


def run(surface: Surface, inputs: int, seed: int, *, first: int = 0) -> Tally:
    """Tries inputs `first` to before `first + inputs` of a seed."""
    tally = Tally(surface.name)
    worker: _Worker | None = None
    try:
        for number in range(first, first + inputs):
            if worker is not None and not worker.is_alive:
                worker.stop()
                worker = None
            worker = worker or _Worker(surface)
            with tempfile.TemporaryDirectory(prefix="fuzz") as folder:
                tally.outcomes.append(_try(worker, surface, Path(folder), number, seed))
    finally:
        if worker is not None:
            worker.stop()
    return tally


def _try(worker: "_Worker", surface: Surface, folder: Path, number: int, seed: int) -> Outcome:
    # The name is part of the seed: surfaces do not share their draws.
    name = int.from_bytes(surface.name.encode()[:8], "big")
    made = surface.make(np.random.default_rng([seed, number, name]), folder)
    before, before_beside = _listing(folder), _listing(worker.folder)
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    outcome = worker.attempt(number, made)
    if outcome.verdict in GOOD:
        if outcome.bytes > TIMES_SIZE * size + SPARE_BYTES:
            outcome.verdict = "memory"
            outcome.detail = f"{outcome.bytes:,} bytes for an input of {size:,}"
        left = {
            name
            for name in _listing(folder) ^ before
            if not any(name == out or name.startswith(f"{out}/") for out in surface.outputs)
        }
        left |= _listing(worker.folder) ^ before_beside
        if left:
            outcome.verdict, outcome.detail = (
                "left behind",
                f"changed: {', '.join(sorted(left)[:5])}",
            )
    return outcome


def _listing(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}


def is_clear(sentence: str) -> bool:
    """Whether a refusal can be shown: of sensible length, without control characters or escapes."""
    return 0 < len(sentence) <= LONGEST and not any(
        unicodedata.category(letter) in ("Cc", "Cs") and letter != "\n" for letter in sentence
    )


class _Worker:
    """A process that tries inputs until one of them ends it.

    Attributes:
      folder: Its folder for temporary files, which goes when it does.
    """

    def __init__(self, surface: Surface):
        # A process of its own from the start: JAX's threads do not survive a fork.
        context = multiprocessing.get_context("spawn")
        self._parent, child = context.Pipe()
        named = surface.name if surface.name in known() else surface
        # What it makes for itself would stay when it is killed.
        self.folder = Path(tempfile.mkdtemp(prefix="fuzz"))
        arguments = (named, child, str(self.folder))
        self._process = context.Process(target=_serve, args=arguments, daemon=True)
        self._process.start()
        child.close()
        self._parent.recv()  # it is warm

    @property
    def is_alive(self) -> bool:
        return self._process.is_alive()

    def attempt(self, number: int, made: Any) -> Outcome:
        self._parent.send(made)
        try:
            if not self._parent.poll(SECONDS):
                self.stop()
                return Outcome(number, "hang", f"longer than {SECONDS:g} s", SECONDS)
            verdict, detail, seconds, grown = self._parent.recv()
            return Outcome(number, verdict, detail, seconds, grown)
        except (EOFError, ConnectionResetError):
            self._process.join()
            return Outcome(number, "crash", f"the worker ended with {self._process.exitcode}")

    def stop(self) -> None:
        self._process.kill()
        self._process.join()
        shutil.rmtree(self.folder, ignore_errors=True)


def _serve(named: str | Surface, pipe: Connection, folder: str) -> None:
    os.environ["TMPDIR"] = tempfile.tempdir = folder
    surface = known()[named] if isinstance(named, str) else named
    # The parent's terminal stays free for the table, and quiet libraries for its reader.
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)
    os.dup2(silence, 2)
    # Far beyond what is promised: a bomb ends itself and not the machine.
    resource.setrlimit(resource.RLIMIT_AS, (64 * 2**30, 64 * 2**30))
    surface.warm()
    pipe.send("warm")
    while True:
        try:
            made = pipe.recv()
        except EOFError:
            return
        pipe.send(_verdict(surface, made))


def _verdict(surface: Surface, made: Any) -> tuple[str, str, float, int]:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    began = usage.ru_utime + usage.ru_stime
    with _peak() as grown, warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        try:
            result = surface.attempt(made)
            wrong = surface.judge(made, result)
            verdict, detail = ("accepted", "") if wrong is None else ("wrong", wrong)
        except UserError as error:
            detail = str(error)
            verdict = "refused" if is_clear(detail) else "unclear"
        except BaseException:
            verdict, detail = "trace", traceback.format_exc()
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return verdict, detail, usage.ru_utime + usage.ru_stime - began, grown[0]


@contextlib.contextmanager
def _peak() -> Iterator[list[int]]:
    """By how many bytes this process' resident memory grew within the block, at its peak."""
    grown = [0]
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    before = _resident("VmRSS")
    yield grown
    grown[0] = max(0, _resident("VmHWM") - before)


def _resident(which: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{which}:"):
            return int(line.split()[1]) * 1024
    return 0


def mutated(rng: np.random.Generator, content: bytes) -> bytes:
    """Flips, cuts, inserts or repeats bytes of a file, once to a few times."""
    data = bytearray(content)
    for _ in range(int(rng.integers(1, 5))):
        if not data:
            break
        at = int(rng.integers(len(data)))
        span = int(min(len(data) - at, 2 ** rng.integers(0, 9)))
        kind = rng.integers(5)
        if kind == 0:
            data[at] ^= 1 << int(rng.integers(8))
        elif kind == 1:
            data[at : at + span] = rng.bytes(span)
        elif kind == 2:
            del data[at : at + span]
        elif kind == 3:
            data[at:at] = rng.bytes(span)
        else:
            del data[at:]
    return bytes(data)


def mutated_text(rng: np.random.Generator, text: str) -> str:
    """Puts in the place of a piece of a text what programs stumble over."""
    strange = (
        *("", "nan", "inf", "-1", "0", "1e309", "9" * 400, "null", "true", "{}", "[]", "[" * 500),
        *("\x00", "\x1b]0;title\x07", "\u202e", "\u200b", "é", "e\u0301", "\ud7ff", "💀", "=1+1"),
        *("../../etc/passwd", "a" * 5000, '"', ",", "\n", "\r\n", ";", "\t", "%s", "{0}", "$(x)"),
    )
    at, end = sorted(int(place) for place in rng.integers(0, len(text) + 1, 2))
    end = min(end, at + int(rng.integers(0, 20)))
    return text[:at] + str(rng.choice(strange)) + text[end:]


def copied(source: Path, folder: Path) -> Path:
    """A copy of a file or folder that was made once, in an input's folder."""
    target = folder / source.name
    if source.is_dir():
        shutil.copytree(source, target)
    else:
        shutil.copyfile(source, target)
    return target
