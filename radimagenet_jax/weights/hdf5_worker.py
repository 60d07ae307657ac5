"""Reads one HDF5 file in a process of its own, which a damaged file may end.

The HDF5 library can crash or loop for ever on damaged metadata and filters. So it is never called
in the process that loads weights: `hdf5` runs this file by its path, with h5py and numpy and
nothing of ours, and asks for what it needs.

    python hdf5_worker.py SOURCE BYTES SECONDS

Requests are lines of JSON on the standard input. Each answer is its head's length in 8 bytes, the
head as JSON, and as many raw bytes as the head's 'bytes' says. The first answer comes unasked and
describes the file:

    {"groups": [path, ...], "datasets": [[path, shape, dtype, offset or null], ...], "bytes": 0}

`offset` is where a tensor's plain numbers begin in the file. The requests are
{"attributes": path of a group} and {"read": number of a dataset}. An answer may instead be
{"refused": a clause} for a file that is not read, or {"damaged": the library's words}.
"""

import contextlib
import json
import os
import resource
import sys
from collections.abc import Iterator
from typing import Any, BinaryIO

import h5py
import numpy as np

# The deepest files in use, nested models in a full save, have about ten levels; a hard link to a
# parent would never end.
_DEEPEST = 16

# InceptionResNetV2 saved with its optimiser has about 5,000 objects.
_MOST_OBJECTS = 30_000

_LONGEST_NAME = 1024

# The description of InceptionResNetV2 as JSON has half a MiB.
_LARGEST_ATTRIBUTE = 8 * 2**20
_MOST_ATTRIBUTES = 1000

# Keras never asks for chunks; who compresses gets chunks of at most the tensor.
_CHUNK_TIMES = 4
_SMALL = 2**20

# Filters built into HDF5 and h5py. Any other is a plug-in loaded from this machine.
_FILTERS = {h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_FLETCHER32}
_FILTERS |= {h5py.h5z.FILTER_SZIP, h5py.h5z.FILTER_LZF, h5py.h5z.FILTER_SCALEOFFSET}


class RefusalError(Exception):
    """A file that is not read: what follows its name in the sentence that says so."""


def main(source: str, limit: int, seconds: int) -> None:
    """Answers requests about a file until the standard input ends.

    Args:
      source: The file.
      limit: By how many bytes this process may grow.
      seconds: How long it may compute.
    """
    answers = os.fdopen(os.dup(1), "wb")
    # What a library prints must not come between the answers.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    _bound(limit, seconds)
    try:
        size = os.stat(source).st_size
        with _opened(source) as file:
            walked = list(_walk(file, size))
            described, datasets = _described(walked)
            _answer(answers, described)
            for line in sys.stdin.buffer:
                request = json.loads(line)
                if "attributes" in request:
                    group = file[request["attributes"]] if request["attributes"] else file
                    _answer(answers, {"attributes": _attributes(group, request["attributes"])})
                else:
                    values = _read(*datasets[request["read"]])
                    _answer(answers, {"bytes": values.nbytes}, values)
    except RefusalError as refused:
        _answer(answers, {"refused": str(refused)})
    except (OSError, RuntimeError, KeyError, ValueError, TypeError, MemoryError) as error:
        # What the HDF5 library raises depends on the byte that is wrong.
        _answer(answers, {"damaged": str(error) or type(error).__name__})


def _opened(source: str) -> h5py.File:
    if os.path.exists(os.path.realpath(source)):
        return h5py.File(source, "r", locking=False)
    # The library insists on a name, which an unpacked archive member does not have.
    return h5py.File(open(source, "rb"), "r", locking=False)


def _bound(limit: int, seconds: int) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    # Only Linux says how much there is already, and only Linux keeps to such a limit.
    with contextlib.suppress(OSError):
        with open("/proc/self/statm", encoding="ascii") as page:
            used = int(page.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + limit, used + limit))


def _answer(pipe: BinaryIO, head: dict[str, Any], values: np.ndarray | None = None) -> None:
    encoded = json.dumps(head).encode()
    pipe.write(len(encoded).to_bytes(8, "little"))
    pipe.write(encoded)
    if values is not None:
        pipe.write(values.reshape(-1).view(np.uint8).data)
    pipe.flush()


def _walk(file: h5py.File, size: int) -> Iterator[tuple[str, h5py.Dataset | None, list[Any]]]:
    """Walks every link of the file itself; refuses what leads out of it."""
    pending: list[tuple[str, h5py.Group]] = [("", file)]
    seen = 0
    while pending:
        prefix, group = pending.pop()
        for key in group:
            path = f"{prefix}{key}"
            seen += 1
            if seen > _MOST_OBJECTS or path.count("/") > _DEEPEST or len(key) > _LONGEST_NAME:
                raise RefusalError(
                    "nests its groups deeper or has more objects or longer names than any Keras "
                    f"file (at {path[:80]!r}); get the original file"
                )
            link = group.get(key, getlink=True)
            if not isinstance(link, h5py.HardLink):
                kind = "an external link" if isinstance(link, h5py.ExternalLink) else "a soft link"
                raise RefusalError(
                    f"has {kind} at {path[:200]!r}, which can lead to other files, so it is not "
                    "read; get the original file"
                )
            item = group[key]
            if isinstance(item, h5py.Group):
                pending.append((f"{path}/", item))
                yield path, None, []
            elif isinstance(item, h5py.Dataset):
                yield path, item, _checked(item, path, size)
            else:
                raise RefusalError(
                    f"has a named type at {path[:200]!r}, which no Keras file has; get the "
                    "original file"
                )


def _described(
    walked: list[tuple[str, h5py.Dataset | None, list[Any]]],
) -> tuple[dict[str, Any], list[tuple[h5py.Dataset, str]]]:
    head = {
        "groups": [path for path, dataset, _ in walked if dataset is None],
        "datasets": [[path, *facts] for path, dataset, facts in walked if dataset is not None],
    }
    return head, [(dataset, path) for path, dataset, _ in walked if dataset is not None]


def _checked(dataset: h5py.Dataset, path: str, size: int) -> list[Any]:
    """Refuses foreign storage; returns shape, dtype and the offset of plain numbers."""
    creation = dataset.id.get_create_plist()
    layout = creation.get_layout()
    if layout == h5py.h5d.VIRTUAL or creation.get_external_count():
        kind = "a virtual dataset" if layout == h5py.h5d.VIRTUAL else "external storage"
        raise RefusalError(
            f"has {kind} at {path[:200]!r}, whose numbers lie in other files, so it is not read; "
            "get the original file"
        )
    for index in range(creation.get_nfilters()):
        code = creation.get_filter(index)[0]
        if code not in _FILTERS:
            raise RefusalError(
                f"compresses {path[:200]!r} with the plug-in filter {code}, which is not loaded; "
                "write the file again without compression"
            )
    shape = list(dataset.shape or ())
    dtype = _dtype(dataset)
    if dtype is None:
        return [shape, "V", None]
    declared = dtype.itemsize * int(np.prod(shape, dtype=object))
    stored = dataset.id.get_storage_size()
    offset = None
    if layout == h5py.h5d.CONTIGUOUS and stored:
        offset = dataset.id.get_offset()
        if stored != declared or offset is None or offset + stored > size:
            raise RefusalError(
                f"is damaged: {path[:200]!r} declares {declared:,} bytes and stores {stored:,}; "
                "get it again"
            )
    elif stored > size:
        raise RefusalError(
            f"is damaged: {path[:200]!r} stores more than the file holds; get it again"
        )
    elif layout == h5py.h5d.CHUNKED:
        chunk = dtype.itemsize * int(np.prod(creation.get_chunk(), dtype=object))
        if chunk > _CHUNK_TIMES * declared + _SMALL:
            raise RefusalError(
                f"stores {path[:200]!r} of {declared:,} bytes in chunks of {chunk:,}, as no "
                "program does; write the file again without compression"
            )
    return [shape, dtype.str, offset]


def _dtype(dataset: h5py.Dataset) -> np.dtype[Any] | None:
    """The type of plain numbers; None of texts, records and what numpy has no like of."""
    try:
        dtype = dataset.dtype
        plain = dtype.kind in "fiu" and dataset.id.get_type().equal(h5py.h5t.py_create(dtype))
    except (TypeError, ValueError):
        return None
    return dtype if plain else None


def _read(dataset: h5py.Dataset, path: str) -> np.ndarray:
    if _dtype(dataset) is None:
        raise RefusalError(f"holds no plain numbers at {path[:200]!r}; get the original file")
    values = np.empty(dataset.shape or (), dataset.dtype)
    if values.size:
        dataset.read_direct(values)
    return values


def _attributes(group: h5py.Group, path: str) -> dict[str, Any]:
    """A group's attributes that are texts or lists of texts."""
    names = list(group.attrs)
    if len(names) > _MOST_ATTRIBUTES:
        raise RefusalError(
            f"has {len(names):,} attributes at {path[:200]!r}; get the original file"
        )
    return {name: _texts(group, name, path) for name in names}


def _texts(group: h5py.Group, name: str, path: str) -> str | list[str] | None:
    attribute = group.attrs.get_id(name)
    size = attribute.dtype.itemsize * int(np.prod(attribute.shape or (), dtype=object))
    value = group.attrs[name] if size <= _LARGEST_ATTRIBUTE else None
    if isinstance(value, bytes | str):
        texts: str | list[str] = _text(value)
        length = len(texts)
    elif isinstance(value, np.ndarray) and value.dtype.kind in "SOU":
        texts = [_text(entry) for entry in value.ravel() if isinstance(entry, bytes | str)]
        length = sum(map(len, texts))
    else:
        texts, length = [], 0
    if value is None or length > _LARGEST_ATTRIBUTE:
        raise RefusalError(
            f"has an attribute {name[:80]!r} at {path[:200]!r} that is longer than the "
            "description of any network; get the original file"
        )
    return texts or None


def _text(value: bytes | str) -> str:
    return value.decode("utf-8", errors="replace") if isinstance(value, bytes) else str(value)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
