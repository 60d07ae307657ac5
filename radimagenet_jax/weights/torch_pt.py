"""Reads PyTorch state dicts ('.pt', '.pth') as named tensors, without PyTorch.

`torch.save` writes a zip archive: `<name>/data.pkl` describes the tensors and
`<name>/data/<key>` holds their numbers. The description is interpreted by
`torch_pickle`, which runs nothing; the numbers are read as plain arrays.
"""

import contextlib
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

import jax.numpy as jnp
import numpy as np

from radimagenet_jax.errors import WeightsError, cut
from radimagenet_jax.weights import archives, torch_pickle
from radimagenet_jax.weights.opened import Opened, StoredTensor

_LONGEST_ORDER = 16

# What training scripts call the state dict among the other things that they save.
_NESTED = ("state_dict", "model_state_dict", "model")

# Every network here has some, and no optimiser has.
_STATISTIC = "running_var"


def recognises(path: Path, start: bytes) -> bool:
    """Tells whether a file is a PyTorch archive, by its first bytes and its members' names."""
    return any(name.endswith("/data.pkl") for name in archives.members(path, start))


@contextlib.contextmanager
def opened(path: Path) -> Iterator[Opened]:
    """Opens a PyTorch file and describes its tensors.

    Args:
      path: A zip archive with a member '<name>/data.pkl'.

    Yields:
      The description; tensors can be read until the context ends.

    Raises:
      WeightsError: If the file is damaged, or its pickle asks for anything but tensors.
    """
    with archives.open_archive(path) as archive:
        pickles = [name for name in archive.namelist() if name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise WeightsError(f"{path} holds no PyTorch state dict; give one from torch.save.")
        folder = pickles[0].removesuffix("data.pkl")
        try:
            described = torch_pickle.interpret(
                archives.content(archive, pickles[0], torch_pickle.MOST_BYTES)
            )
        except torch_pickle.PickleError as error:
            raise WeightsError(
                f"{path} is not a plain PyTorch state dict: {error}; nothing was run, so save it "
                "again with torch.save(model.state_dict(), ...)."
            ) from error
        order = _byte_order(archive, folder, path)
        key, views, others = _state_dict(described, path)
        numbers = _numbers(archive, folder, views.values())
        tensors = {name: _stored(numbers, name, view, order) for name, view in views.items()}
        notes: tuple[str, ...] = ()
        if others:
            left = ", ".join(map(repr, others))
            notes = (f"The state dict {cut(key)!r} was taken, and {cut(left)} left aside.",)
        yield Opened(path, "PyTorch state dict", tensors, scheme="torch", notes=notes)


def _state_dict(
    described: Any, path: Path
) -> tuple[str, dict[str, torch_pickle.TensorView], tuple[str, ...]]:
    """Finds the network's state dict among what was saved.

    Args:
      described: What the pickle describes.
      path: The file, for messages.

    Returns:
      The key under which it is, '' at the top; its tensors; and the keys of other state dicts.

    Raises:
      WeightsError: If there is none, or several of which none has a usual name.
    """
    networks: dict[str, dict[str, torch_pickle.TensorView]] = {}
    others: dict[str, dict[str, torch_pickle.TensorView]] = {}
    pending: list[tuple[str, Any]] = [("", described)]
    seen: set[int] = set()
    while pending:
        where, node = pending.pop()
        if not isinstance(node, dict | list | tuple) or id(node) in seen:
            continue
        seen.add(id(node))
        items = list(node.items()) if isinstance(node, dict) else list(enumerate(node))
        tensors = {
            name: value
            for name, value in items
            if isinstance(name, str) and isinstance(value, torch_pickle.TensorView)
        }
        if any(name.endswith(_STATISTIC) for name in tensors):
            networks[where] = tensors
        elif tensors and len(tensors) == len(items):
            others[where] = tensors
        # Sorted backwards, so that the walk is in the file's order.
        pending += [(f"{where}.{name}".lstrip("."), value) for name, value in reversed(items)]
    candidates = networks or others
    usual = [key for key in ("", *_NESTED) if key in candidates]
    if len(candidates) > 1 and not usual:
        raise WeightsError(
            f"{path} holds {len(candidates)} state dicts ({', '.join(map(repr, candidates))}), and "
            "which is meant cannot be told; save the one alone with torch.save."
        )
    if not candidates:
        raise WeightsError(
            f"{path} holds no state dict, that is tensors by name, at its top or under any key; "
            "save it with torch.save(model.state_dict(), ...)."
        )
    key = usual[0] if usual else next(iter(candidates))
    return key, candidates[key], tuple(each for each in candidates if each != key)


def _byte_order(archive: zipfile.ZipFile, folder: str, path: Path) -> Literal["<", ">"]:
    """Returns numpy's sign of the byte order; files before 2.1 do not state it."""
    name = f"{folder}byteorder"
    if name not in archive.namelist():
        return "<"
    stated = archives.content(archive, name, _LONGEST_ORDER)
    if stated == b"little":
        return "<"
    if stated != b"big":
        raise WeightsError(f"{path} states the unknown byte order {stated!r}; get it again.")
    return ">"


# (key of a storage, its bytes, the tensor's name) -> the storage's numbers.
_Numbers = Callable[[str, int, str], bytes]


def _numbers(
    archive: zipfile.ZipFile, folder: str, views: Iterable[torch_pickle.TensorView]
) -> _Numbers:
    """Returns what reads a storage: once, also if it is that of many tensors."""
    uses = Counter(view.storage.key for view in views)
    kept: dict[str, bytes] = {}

    def read(key: str, size: int, name: str) -> bytes:
        if key in kept:
            content = kept[key]
        else:
            member = f"{folder}data/{key}"
            if member not in archive.NameToInfo:
                raise WeightsError(
                    f"{archive.filename} lacks the numbers of {cut(name)}; get an intact file."
                )
            content = archives.content(archive, member, size)
            if uses[key] > 1:
                kept[key] = content
        if len(content) != size:
            raise WeightsError(
                f"{archive.filename} has {len(content)} bytes for {cut(name)} instead of "
                f"{size}; get an intact file."
            )
        return content

    return read


def _stored(
    numbers: _Numbers,
    name: str,
    view: torch_pickle.TensorView,
    order: Literal["<", ">"],
) -> StoredTensor:
    if view.storage.dtype == "bfloat16":
        dtype: np.dtype[Any] = jnp.dtype(jnp.bfloat16)
    else:
        dtype = np.dtype(view.storage.dtype).newbyteorder(order)

    def read() -> np.ndarray:
        content = numbers(view.storage.key, view.storage.elements * dtype.itemsize, name)
        values = np.frombuffer(content, dtype, offset=view.offset * dtype.itemsize)
        # The interpreter has checked that the window ends within its storage.
        return np.lib.stride_tricks.as_strided(
            values,
            view.shape,
            [step * dtype.itemsize for step in view.strides],
            writeable=False,
        )

    return StoredTensor(name, view.shape, dtype, read)
