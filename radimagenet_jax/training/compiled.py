"""Reading what XLA made of a program: its largest arrays, its collectives and its traffic."""

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
# What names arrays and moves none.
_FREE = {"parameter", "get-tuple-element", "tuple", "bitcast", "constant", "after-all"}
# What makes an element of the result of those in the same place, or of one of them.
_NUMBER_BY_NUMBER = {"concatenate", "tuple"}
_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.-]+) \(.*\{$", re.MULTILINE)
_CALLED = re.compile(r"(?:body|to_apply|calls)=%?([\w.-]+)")
_REPEATED = re.compile(r'"known_trip_count":\{"n":"(\d+)"')
_NAME = re.compile(r"%([\w.-]+)")


@dataclasses.dataclass(frozen=True)
class _Instruction:
    """One line of the program.

    Attributes:
      name: Of its result.
      bytes: Of its result.
      elements: Of its result.
      shape: Of its result.
      kind: The operation.
      source: What it was made from.
      operands: Their names.
      rest: The text from the operands on.
    """

    name: str
    bytes: int
    elements: int
    shape: str
    kind: str
    source: str
    operands: tuple[str, ...]
    rest: str


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


def traffic(text: str) -> int:
    """Bytes of memory that a device reads and writes in a step.

    Counted are, each once, the operands and the result of each instruction that is a kernel of its
    own; of an operand that it cuts only what it keeps. What loops do counts as often as they run.

    Args:
      text: An optimised HLO module.
    """
    heads = list(_COMPUTATION.finditer(text))
    ends = [head.start() for head in heads[1:]] + [len(text)]
    bodies = {
        head[2]: _instructions(text[head.end() : end])
        for head, end in zip(heads, ends, strict=True)
    }

    def of(body: list[_Instruction]) -> int:
        sizes: dict[str, int] = {}
        total = 0
        for one in body:
            sizes[one.name] = one.bytes
            called = _CALLED.search(one.rest)
            if one.kind in ("while", "call") and called:
                repeated = _REPEATED.search(one.rest)
                total += of(bodies[called[1]]) * (int(repeated[1]) if repeated else 1)
            elif one.kind not in _FREE:
                if one.kind == "fusion" and called:
                    read = _read(bodies[called[1]])
                else:
                    read = sum(sizes.get(name, 0) for name in one.operands)
                total += one.bytes + read
        return total

    return of(next(bodies[head[2]] for head in heads if head[1]))


def _read(fused: list[_Instruction]) -> int:
    """Bytes that a fused computation reads of its parameters.

    From the last instruction back: of an array that is cut only what is left is wanted, and so of
    what it was made from, number by number.
    """
    wanted = {fused[-1].name: 1.0}  # shares
    sizes = {one.name: one.elements for one in fused}
    total = 0.0
    for one in reversed(fused):
        share = wanted.get(one.name, 0.0)
        if one.kind == "parameter":
            total += share * one.bytes
        for name in one.operands:
            before = wanted.get(name, 0.0)
            if one.kind == "slice":
                # Another part of it than other slices take.
                wanted[name] = min(1.0, before + share * one.elements / sizes[name])
            elif one.kind in _NUMBER_BY_NUMBER or one.elements == sizes.get(name):
                wanted[name] = max(before, share)
            else:
                wanted[name] = 1.0
    return round(total)


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
    for one in [one for one in found if one.kind not in _FREE][:_SHOWN]:
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
        numbers = [math.prod(int(side) for side in sides.split(",") if side) for _, sides in shapes]
        size = sum(
            _BYTES.get(kind, 4) * number for (kind, _), number in zip(shapes, numbers, strict=True)
        )
        shown = ", ".join(f"{kind}[{sides}]" for kind, sides in shapes)
        if match[2].startswith("("):
            shown = f"({shown})"
        rest = line[match.end() - match.start() :]
        operands = tuple(_NAME.findall(rest[: rest.find(")")]))
        made_from = source[1] if source else ""
        found.append(
            _Instruction(match[1], size, sum(numbers), shown, match[3], made_from, operands, rest)
        )
    return found
