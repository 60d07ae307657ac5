"""Reading what XLA made of a program: its largest arrays and its collectives."""

import dataclasses
import math
import re
from collections import Counter

from rich.table import Table

_BYTES = {"pred": 1, "s8": 1, "u8": 1, "s16": 2, "u16": 2, "f16": 2, "bf16": 2, "s32": 4}
_BYTES |= {"u32": 4, "f32": 4, "s64": 8, "u64": 8, "f64": 8}
_COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
_SHAPE = re.compile(r"\b(pred|bf16|[suf]\d+)\[([\d,]*)\]")
_LINE = re.compile(r"^\s*(?:ROOT )?%?([\w.-]+) = (.+?) ([a-z][a-z0-9-]*)\(", re.MULTILINE)
_SOURCE = re.compile(r'op_name="([^"]*)"')
_SHOWN = 12


@dataclasses.dataclass(frozen=True)
class _Instruction:
    """One line of the program: its result's bytes, its kind, and what it was made from."""

    bytes: int
    shape: str
    kind: str
    source: str


def collective_bytes(text: str) -> int:
    """Bytes that one device sends and receives in a step, in all collectives.

    An all-reduce counts twice its array, since a ring sends it once to reduce and once to spread
    it (Patarasuk and Yuan 2009, in the limit of many devices); the others count their result once.

    Args:
      text: An optimised HLO module.
    """
    return sum(
        (2 if found.kind == "all-reduce" else 1) * found.bytes for found in _collectives(text)
    )


def collectives(text: str) -> Table:
    """The collectives of a program by kind."""
    table = Table(title="collectives of a step, a device", title_justify="left")
    for column in ("kind", "number", "MiB"):
        table.add_column(column, justify="left" if column == "kind" else "right")
    number: Counter[str] = Counter()
    size: Counter[str] = Counter()
    for found in _collectives(text):
        number[found.kind] += 1
        size[found.kind] += found.bytes
    for kind in sorted(number):
        table.add_row(kind, str(number[kind]), f"{size[kind] / 2**20:,.2f}")
    if not number:
        table.add_row("none", "0", "0")
    return table


def buffers(text: str) -> Table:
    """The largest arrays that a program computes, outside fused loops."""
    table = Table(title="largest arrays, a device", title_justify="left")
    for column in ("MiB", "array", "made by"):
        table.add_column(column, justify="right" if column == "MiB" else "left")
    entry = text[text.index("ENTRY ") :] if "ENTRY " in text else text
    found = sorted(_instructions(entry), key=lambda one: -one.bytes)
    for one in [one for one in found if one.kind not in ("tuple", "parameter")][:_SHOWN]:
        table.add_row(f"{one.bytes / 2**20:,.1f}", one.shape, one.source or one.kind)
    return table


def _collectives(text: str) -> list[_Instruction]:
    # An asynchronous one is two lines, of which the second has the result alone.
    return [
        dataclasses.replace(one, kind=one.kind.removesuffix("-done"))
        for one in _instructions(text)
        if one.kind.removesuffix("-done") in _COLLECTIVES
    ]


def _instructions(text: str) -> list[_Instruction]:
    found = []
    for match in _LINE.finditer(text):
        line = text[match.start() : text.find("\n", match.end())]
        source = _SOURCE.search(line)
        shapes = _SHAPE.findall(match[2])
        size = sum(
            _BYTES.get(kind, 4) * math.prod(int(side) for side in sides.split(",") if side)
            for kind, sides in shapes
        )
        shown = ", ".join(f"{kind}[{sides}]" for kind, sides in shapes)
        if match[2].startswith("("):
            shown = f"({shown})"
        found.append(_Instruction(size, shown, match[3], source[1] if source else ""))
    return found
