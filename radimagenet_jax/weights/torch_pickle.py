"""Interprets the pickle of a PyTorch state dict without running anything in it.

A pickle is a program: `GLOBAL` imports any function and `REDUCE` calls it. Here the
opcodes are only read (`pickletools.genops` parses and does not execute), and
a small stack machine builds descriptions of tensors. The few names that a
state dict needs are symbols with a fixed meaning; nothing is ever imported, and any
other name refuses the file.
"""

import pickletools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from radimagenet_jax.errors import cut

# The storage classes by which PyTorch states dtypes, as numpy knows them.
STORAGES = {
    "FloatStorage": "float32",
    "DoubleStorage": "float64",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
}

# The published files have about 1,000 tensors and 20 opcodes for each.
_MOST_OPCODES = 1_000_000
_MOST_ITEMS = 200_000

# Of the longest published program about a hundredth.
MOST_BYTES = 32_000_000

# A training checkpoint has about six levels.
_DEEPEST = 32

# What everything in it comes to where it is written out, since references cost next to nothing.
_LARGEST = 2_000_000

# Kernels of convolutions over volumes have five.
_MOST_AXES = 8

# 1e30 elements are no tensor, and numbers of a thousand digits are slow to say.
_LARGEST_NUMBER = 2**62

_KEYS = (str, int, float, bool, bytes, type(None))


class PickleError(ValueError):
    """A pickle that is damaged, or asks for more than a state dict needs."""


@dataclass(frozen=True)
class Storage:
    """A block of numbers in the archive: `data/<key>`."""

    key: str
    dtype: str
    elements: int


@dataclass(frozen=True)
class TensorView:
    """A tensor: a strided window on a storage, in elements."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


@dataclass(frozen=True)
class _Symbol:
    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


class Opaque:
    """A value that has no part in the weights, and that is neither made nor looked into."""


_MARK = object()

# What a call may do, by the full name of the function.
_ORDERED_DICT = "collections.OrderedDict"
_REBUILD_TENSOR = "torch._utils._rebuild_tensor_v2"
_REBUILD_PARAMETER = "torch._utils._rebuild_parameter"
_CALLS = {_ORDERED_DICT, _REBUILD_TENSOR, _REBUILD_PARAMETER}
_NAMES = _CALLS | {f"torch.{name}" for name in STORAGES}

# What whole training checkpoints hold beside tensors: scores, paths, settings. None of it is made;
# each is passed over as an `Opaque`.
_PASSED_OVER = {
    *("numpy.dtype", "numpy.ndarray", "_codecs.encode", "copy_reg._reconstructor"),
    *("copyreg._reconstructor", "argparse.Namespace", "types.SimpleNamespace"),
    *(
        f"{module}.{name}"
        for module in ("numpy.core.multiarray", "numpy._core.multiarray")
        for name in ("scalar", "_reconstruct")
    ),
    *(f"collections.{name}" for name in ("defaultdict", "Counter", "deque")),
    *(
        f"{module}.{name}"
        for module in ("builtins", "__builtin__")
        for name in (
            *("set", "frozenset", "complex", "bytearray", "slice", "range", "object"),
            *("list", "dict", "tuple", "int", "float", "str", "bool", "bytes"),
        )
    ),
    # Python 3.13 names another module.
    *(
        f"{module}.{name}"
        for module in ("pathlib", "pathlib._local")
        for name in ("Path", "PosixPath", "PurePosixPath", "PureWindowsPath", "WindowsPath")
    ),
    *(f"datetime.{name}" for name in ("datetime", "date", "time", "timedelta", "timezone")),
    *(f"torch.{name}" for name in ("Size", "device", "dtype", "float32", "float16", "bfloat16")),
    *(f"torch.{name}" for name in ("float64", "int64", "int32", "uint8", "bool")),
    "torch.torch_version.TorchVersion",
    *(
        f"{module}.utilities.{name}"
        for module in ("pytorch_lightning", "lightning.pytorch", "lightning.fabric")
        for name in ("parsing.AttributeDict", "data.AttributeDict")
    ),
    "lightning_fabric.utilities.data.AttributeDict",
}


def interpret(program: bytes) -> Any:
    """Returns what a state dict's pickle describes.

    Args:
      program: The pickle, of any protocol that PyTorch has used (2 and later).

    Returns:
      Nested dicts, lists and tuples of numbers, texts, `TensorView`s, and `Opaque` for all else.

    Raises:
      PickleError: If it is damaged, or names anything but tensors, dicts and `_PASSED_OVER`.
    """
    machine = _Machine()
    try:
        for count, (opcode, argument, _) in enumerate(pickletools.genops(program)):
            if count > _MOST_OPCODES:
                raise PickleError("it is longer than any state dict's")
            if opcode.name == "STOP":
                described = machine.pop()
                _require_modest(described)
                return described
            step = _STEPS.get(opcode.name)
            if step is None:
                raise PickleError(f"it uses the opcode {opcode.name}, which no state dict needs")
            step(machine, argument)
    except PickleError:
        raise
    except (ValueError, IndexError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise PickleError(f"it is damaged ({cut(str(error), 200)})") from error
    raise PickleError("it ends before its end")


class _Machine:
    """The stack and the memo of the interpreter."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    @property
    def top(self) -> Any:
        if not self.stack or self.stack[-1] is _MARK:
            raise PickleError("it is damaged (nothing to take)")
        return self.stack[-1]

    def push(self, value: Any) -> None:
        if len(self.stack) > _MOST_ITEMS:
            raise PickleError("it holds more objects than any state dict")
        self.stack.append(value)

    def pop(self) -> Any:
        if not self.stack or self.stack[-1] is _MARK:
            raise PickleError("it is damaged (nothing to take)")
        return self.stack.pop()

    def pop_marked(self) -> list[Any]:
        items: list[Any] = []
        while self.stack:
            item = self.stack.pop()
            if item is _MARK:
                return items[::-1]
            items.append(item)
        raise PickleError("it is damaged (no mark)")

    def name(self, module: Any, name: Any) -> None:
        symbol = _Symbol(str(module), str(name))
        if str(symbol) not in _NAMES | _PASSED_OVER:
            raise PickleError(f"it asks for {cut(str(symbol))}, which is code and not a tensor")
        self.push(symbol)

    def call(self) -> None:
        arguments, function = self.pop(), self.pop()
        if not isinstance(function, _Symbol) or not isinstance(arguments, tuple):
            raise PickleError("it calls something that is no function")
        called = str(function)
        if called in _PASSED_OVER:
            self.push(Opaque())
        elif called == _ORDERED_DICT and arguments in ((), ([],)):
            self.push({})
        elif called == _REBUILD_TENSOR and len(arguments) in (6, 7):
            self.push(_view(*arguments[:4]))
        elif called == _REBUILD_PARAMETER and isinstance(arguments[0], TensorView):
            self.push(arguments[0])
        else:
            raise PickleError(f"it calls {called} in an unknown way")

    def pass_over(self, value: Any) -> None:
        del value
        self.push(Opaque())

    def persistent(self) -> None:
        # ('storage', torch.FloatStorage, key, device, number of elements)
        what, kind, key, _device, elements = self.pop()
        if (
            what != "storage"
            or not isinstance(kind, _Symbol)
            or kind.name not in STORAGES
            or not isinstance(key, str)
            or not _is_count(elements)
        ):
            raise PickleError("it refers to something that is no storage")
        self.push(Storage(key, STORAGES[kind.name], elements))

    def set_items(self, pairs: list[Any]) -> None:
        target = self.top
        if isinstance(target, Opaque):
            return
        if not isinstance(target, dict) or len(pairs) % 2:
            raise PickleError("it fills something that is no dict")
        # A tuple is hashed through and through, at any depth and in the C stack.
        if not all(isinstance(key, _KEYS) for key in pairs[::2]):
            raise PickleError("it has a key that is neither a text nor a number")
        target.update(zip(pairs[::2], pairs[1::2], strict=True))

    def extend(self, items: list[Any]) -> None:
        if isinstance(self.top, Opaque):
            return
        if not isinstance(self.top, list):
            raise PickleError("it fills something that is no list")
        self.top.extend(items)

    def build(self) -> None:
        # Only an OrderedDict's attributes, PyTorch's `_metadata` of module versions, which
        # say nothing of the tensors.
        state = self.pop()
        if isinstance(self.top, Opaque):
            return
        if not isinstance(self.top, dict) or not isinstance(state, dict):
            raise PickleError("it sets the state of something that is no dict")


def _view(storage: Any, offset: Any, shape: Any, strides: Any) -> TensorView:
    if (
        not isinstance(storage, Storage)
        or not isinstance(shape, tuple)
        or not isinstance(strides, tuple)
        or len(shape) != len(strides)
        or len(shape) > _MOST_AXES
        or not all(_is_count(number) for number in (offset, *shape, *strides))
    ):
        raise PickleError("it describes a tensor wrongly")
    last = offset + sum((n - 1) * step for n, step in zip(shape, strides, strict=True))
    if 0 not in shape and last >= storage.elements:
        raise PickleError(
            f"it describes a tensor beyond the end of its storage {cut(storage.key)!r}"
        )
    return TensorView(storage, offset, tuple(shape), tuple(strides))


def _is_count(number: Any) -> bool:
    return isinstance(number, int) and 0 <= number <= _LARGEST_NUMBER


def _require_modest(described: Any) -> None:
    """Refuses what is nested deeper, or larger when written out, than any training checkpoint.

    References make it possible to describe 2**40 objects by 40, and a list that holds itself: who
    walks, compares or prints such a thing does not end. Whatever passes here can be walked.
    """
    # Depth and size of each container that was seen to its end; None of one that is being seen.
    known: dict[int, tuple[int, int] | None] = {}
    pending = [described]
    while pending:
        item = pending[-1]
        if known.get(id(item)) is not None:
            pending.pop()
            continue
        parts = item.values() if isinstance(item, dict) else item if _holds(item) else ()
        if id(item) not in known:
            known[id(item)] = None
            pending += [part for part in parts if _holds(part) and id(part) not in known]
            if len(pending) > _LARGEST:
                raise PickleError("it describes more objects than any checkpoint has")
            continue
        within = [known[id(part)] if _holds(part) else (0, 1) for part in parts]
        if None in within:
            raise PickleError("it holds something that holds itself")
        depth = 1 + max((each[0] for each in within if each), default=0)
        size = 1 + sum(each[1] for each in within if each)
        if depth > _DEEPEST or size > _LARGEST:
            raise PickleError("it nests its objects deeper, or has more, than any checkpoint")
        known[id(item)] = (depth, size)
        pending.pop()


def _holds(item: Any) -> bool:
    """Whether an object is a container with something in it."""
    return isinstance(item, dict | list | tuple) and bool(item)


def _push_argument(machine: _Machine, argument: Any) -> None:
    machine.push(argument)


def _nothing(machine: _Machine, argument: Any) -> None:
    del machine, argument


def _take(count: int) -> Callable[[_Machine, Any], None]:
    def step(machine: _Machine, argument: Any) -> None:
        del argument
        machine.push(tuple([machine.pop() for _ in range(count)][::-1]))

    return step


def _put(machine: _Machine, argument: Any) -> None:
    machine.memo[int(argument)] = machine.top


def _global(machine: _Machine, argument: Any) -> None:
    module, _, name = str(argument).partition(" ")
    machine.name(module, name)


def _stack_global(machine: _Machine, argument: Any) -> None:
    del argument
    name, module = machine.pop(), machine.pop()
    machine.name(module, name)


def _set_item(machine: _Machine, argument: Any) -> None:
    del argument
    value, key = machine.pop(), machine.pop()
    machine.set_items([key, value])


_Step = Callable[[_Machine, Any], None]

_STEPS: dict[str, _Step] = {
    **dict.fromkeys(
        [
            *("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT"),
            *("BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "SHORT_BINSTRING", "BINSTRING"),
            *("SHORT_BINBYTES", "BINBYTES", "BINBYTES8", "BYTEARRAY8", "LONG4"),
        ],
        _push_argument,
    ),
    **dict.fromkeys(["PROTO", "FRAME"], _nothing),
    **dict.fromkeys(["BINPUT", "LONG_BINPUT", "PUT"], _put),
    **dict.fromkeys(
        ["BINGET", "LONG_BINGET", "GET"],
        lambda machine, argument: machine.push(machine.memo[int(argument)]),
    ),
    "MEMOIZE": lambda machine, _: _put(machine, len(machine.memo)),
    "NONE": lambda machine, _: machine.push(None),
    "NEWTRUE": lambda machine, _: machine.push(True),
    "NEWFALSE": lambda machine, _: machine.push(False),
    "MARK": lambda machine, _: machine.push(_MARK),
    "EMPTY_DICT": lambda machine, _: machine.push({}),
    "EMPTY_LIST": lambda machine, _: machine.push([]),
    "EMPTY_SET": lambda machine, _: machine.push(Opaque()),
    "ADDITEMS": lambda machine, _: machine.extend(machine.pop_marked()),
    "FROZENSET": lambda machine, _: machine.pass_over(machine.pop_marked()),
    "NEWOBJ": lambda machine, _: machine.call(),
    "EMPTY_TUPLE": lambda machine, _: machine.push(()),
    "TUPLE": lambda machine, _: machine.push(tuple(machine.pop_marked())),
    "TUPLE1": _take(1),
    "TUPLE2": _take(2),
    "TUPLE3": _take(3),
    "SETITEM": _set_item,
    "SETITEMS": lambda machine, _: machine.set_items(machine.pop_marked()),
    "APPEND": lambda machine, _: machine.extend([machine.pop()]),
    "APPENDS": lambda machine, _: machine.extend(machine.pop_marked()),
    "GLOBAL": _global,
    "STACK_GLOBAL": _stack_global,
    "REDUCE": lambda machine, _: machine.call(),
    "BINPERSID": lambda machine, _: machine.persistent(),
    "BUILD": lambda machine, _: machine.build(),
}
