"""Reading back what we wrote: JSON of a stated form, folders by their digests, cells of a table.

What lies in a working directory was written by us, and since then a disk, a copy or a person may
have changed it. So whatever is read back is checked here for its form, and each refusal names the
file, what is wrong with it and the remedy.
"""

import hashlib
import json
import math
import re
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import NoneType
from typing import Any

from radimagenet_jax.errors import DataError, UserError, cut, telling

# What a field must be: a type, several, what a list holds and perhaps how many of it, or the fields
# of an object, or null or one of these. A field whose name ends in a question mark may be missing.
Form = type | tuple[Any, ...] | list[Any] | Mapping[str, Any]

NUMBER = (int, float)
NUMBER_OR_NONE = (int, float, NoneType)
INTERVAL_OR_NONE = (NoneType, [NUMBER, 2])
DIGESTS = "digests.json"

# Far beyond any that we write: a config has 2 KB, the epochs of a long run some hundred.
_MOST_BYTES = 64 * 2**20
# Beyond these, arithmetic on what was read overflows.
_LARGEST = 2**63
_NAMES = {str: "a text", int: "a whole number", float: "a number", bool: "true or false"}
_NAMES |= {dict: "an object", list: "a list", NoneType: "null"}
# Cells that a spreadsheet would take for a formula, and those that look like what we make of them.
_FORMULA = re.compile(r"'*[=+\-@\t\r\n＝＋－＠]")


def read_json(
    path: Path,
    fields: Mapping[str, Form],
    remedy: str,
    error: type[UserError] = DataError,
) -> dict[str, Any]:
    """Reads a JSON object and checks its form.

    Args:
      path: The file.
      fields: What the object must have; it may have more.
      remedy: What to do if it is damaged, as the end of a sentence.
      error: What to raise.

    Returns:
      The object: its numbers are finite and fit into 64 bits.

    Raises:
      UserError: Of the kind `error`, if the file is missing, unreadable or not of that form.
    """
    with telling(f"{path} cannot be read", error, remedy):
        if path.stat().st_size > _MOST_BYTES:
            raise error(f"{path} is damaged (it has {path.stat().st_size:,} bytes); {remedy}.")
        content = path.read_bytes()
    try:
        return parse_json(content, fields)
    except ValueError as wrong:
        raise error(
            f"{path} is damaged and cannot be read ({cut(str(wrong))}); {remedy}."
        ) from wrong


def parse_json(content: bytes, fields: Mapping[str, Form]) -> dict[str, Any]:
    """The JSON object in a file's bytes; the arguments are those of `read_json`.

    Raises:
      ValueError: If it is not of the form.
    """
    try:
        record = json.loads(
            content.decode(), parse_constant=_refused, parse_float=_finite, parse_int=_bounded
        )
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    problem = next(_problems(record, fields, ""), None)
    if problem:
        raise ValueError(problem)
    return record


def check(record: Any, fields: Form) -> None:
    """Checks the form of what was parsed already.

    Raises:
      ValueError: If it is not of the form.
    """
    problem = next(_problems(record, fields, ""), None)
    if problem:
        raise ValueError(problem)


def _refused(text: str) -> float:
    raise ValueError(f"{text} is no number of JSON")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{cut(text)} is too large a number")
    return value


def _bounded(text: str) -> int:
    value = int(text) if len(text) < 25 else _LARGEST
    if not -_LARGEST <= value < _LARGEST:
        raise ValueError(f"{cut(text)} is too large a number")
    return value


def _problems(value: Any, form: Form, place: str) -> Iterator[str]:
    """What is wrong with a value, in words."""
    named = f"{place!r}" if place else "it"
    if isinstance(form, tuple) and not all(isinstance(kind, type) for kind in form):
        nothing, inner = form
        if value is not None or nothing is not NoneType:
            yield from _problems(value, inner, place)
    elif isinstance(form, Mapping):
        if not isinstance(value, dict):
            yield f"{named} is not an object"
            return
        for written, inner in form.items():
            name = written.removesuffix("?")
            below = f"{place}.{name}" if place else name
            if name not in value:
                if name == written:
                    yield f"{below!r} is missing"
            else:
                yield from _problems(value[name], inner, below)
    elif isinstance(form, list):
        if not isinstance(value, list):
            yield f"{named} is not a list"
            return
        if len(form) > 1 and len(value) != form[1]:
            yield f"{named} has not {form[1]} parts"
        for number, each in enumerate(value, start=1):
            yield from _problems(each, form[0], f"{place}[{number}]")
    else:
        kinds = form if isinstance(form, tuple) else (form,)
        # In Python true is a number; in our files it never is one.
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            wanted = " or ".join(dict.fromkeys(_NAMES[kind] for kind in kinds if kind is not int))
            yield f"{named} is not {wanted or _NAMES[int]}"


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of each file below a folder by its path there.

    Raises:
      OSError: If one cannot be read.
    """
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    with ThreadPoolExecutor(4) as pool:
        found = pool.map(_digest, paths)
        return {
            path.relative_to(folder).as_posix(): digest
            for path, digest in zip(paths, found, strict=True)
        }


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_digests(folder: Path) -> None:
    """Writes the digests of what lies in a folder's folders beside them.

    Files that lie directly in it are left out: who gives a folder its name may still write some.

    Raises:
      OSError: If the disk refuses.
    """
    found = {
        f"{part.name}/{name}": digest
        for part in sorted(folder.iterdir())
        if part.is_dir()
        for name, digest in digests(part).items()
    }
    (folder / DIGESTS).write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def damage(folder: Path, *parts: str) -> str | None:
    """Tells what has become of a folder since its digests were written.

    Args:
      folder: The folder.
      *parts: Folders in it to look at; all by default.

    Returns:
      A part of a sentence; None if all files are what they were, or if the folder has no digests,
      as earlier versions left it.
    """
    try:
        content = (folder / DIGESTS).read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        return f"{DIGESTS} cannot be read: {error.strerror}"
    try:
        kept = parse_json(content, {})
        check(list(kept.values()), [str])
    except ValueError as error:
        return f"{DIGESTS}: {cut(str(error))}"
    wanted = {
        name: digest
        for name, digest in kept.items()
        if not parts or name.partition("/")[0] in parts
    }
    places = {name.partition("/")[0] for name in wanted}
    if not wanted or places & {"", ".", ".."}:
        return f"{DIGESTS} names no file of it"
    found: dict[str, str] = {}
    try:
        for part in places:
            inside = digests(folder / part)
            found |= {f"{part}/{name}": digest for name, digest in inside.items()}
    except OSError as error:
        return f"{error.filename} cannot be read: {error.strerror}"
    for name, digest in wanted.items():
        if name not in found:
            return f"{cut(name)} is missing"
        if found[name] != digest:
            return f"{cut(name)} is not what was written"
    return None


def guarded(value: object) -> object:
    """A cell of a CSV file that no spreadsheet runs; `unguarded` gives a text back.

    A text that begins as a formula does gets an apostrophe in front, which spreadsheets take for
    "this is text". Numbers stay numbers.
    """
    if isinstance(value, str) and _FORMULA.match(value) and not _is_number(value):
        return f"'{value}"
    return value


def unguarded(text: str) -> str:
    """The text of which `guarded` made a cell."""
    return text[1:] if text.startswith("'") and _FORMULA.match(text) else text


def _is_number(text: str) -> bool:
    return re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", text, re.ASCII | re.I) is not None
