"""Weights by their address on the Hugging Face Hub: `hf://OWNER/NAME[@REVISION][/FILE]`.

Files come through huggingface_hub into its own cache, at one commit, and are then read as any file
of a stranger is: by our readers alone. What the Hub says of names is trusted as little as a file.
"""

import contextlib
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from radimagenet_jax.errors import WeightsError, cut
from radimagenet_jax.weights import native
from radimagenet_jax.wording import some

# A path that was made of an address has lost one of its slashes.
_PREFIX = re.compile(r"hf:/{1,2}(?=[^/])")
_NAME = r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9_])?"
_ADDRESS = re.compile(
    rf"hf:/{{1,2}}(?P<repository>{_NAME}/{_NAME})(?:@(?P<revision>{_NAME}))?(?:/(?P<file>.+))?"
)
_COMMIT = re.compile(r"[0-9a-f]{40}")
_FORM = "hf://OWNER/NAME[@REVISION][/FILE], such as hf://lab/resnet50@v1/model.safetensors"
_SUFFIXES = (".h5", ".hdf5", ".keras", ".pt", ".pth", ".bin", ".ckpt", ".safetensors")
_CARD = "README.md"
_LISTED = 12
_TIMEOUT = 10.0  # seconds, for what is not a file


@dataclass(frozen=True)
class Fetched:
    """Weights that are in the Hub's cache now.

    Attributes:
      path: The file, or the folder of a repository in our own layout.
      address: With the commit, so that it means the same weights for ever.
      licence: What the model card states, '' where it states none.
      notes: What a person should be told, a sentence each.
    """

    path: Path
    address: str
    licence: str
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _Place:
    """An address in its parts; `revision` and `file` are '' where it has none."""

    repository: str
    revision: str
    file: str

    def __str__(self) -> str:
        revision = f"@{self.revision}" if self.revision else ""
        return f"hf://{self.repository}{revision}" + (f"/{self.file}" if self.file else "")


def is_address(path: str | os.PathLike[str]) -> bool:
    """Tells whether a path is an address on the Hub; one that a `Path` was made of is too."""
    return bool(_PREFIX.match(os.fspath(path)))


def is_pinned(path: str | os.PathLike[str]) -> bool:
    """Tells whether an address names a commit, and so the same weights for ever."""
    found = _ADDRESS.fullmatch(os.fspath(path))
    return bool(found and _COMMIT.fullmatch(found["revision"] or ""))


def fetch(path: str | os.PathLike[str]) -> Fetched:
    """Brings weights from the Hub, or from its cache where that has them.

    Args:
      path: 'hf://OWNER/NAME', with a revision (a branch, a tag or a commit) and a file as needed.
        Without a file, a repository in our own layout is taken whole, or its only weight file. A
        file may also be a folder in our layout.

    Returns:
      Where they are, at which commit, and under which licence.

    Raises:
      WeightsError: In one sentence, if the address is none, huggingface_hub is not installed, or
        the repository, revision or file is not there, not open to this user or not in reach.
    """
    place = _parsed(os.fspath(path))
    try:
        import huggingface_hub
    except ImportError as error:
        raise WeightsError(
            f"{place} is on the Hugging Face Hub, whose client is not installed; install it with "
            "pip install 'radimagenet-jax[hub]'."
        ) from error
    api = huggingface_hub.HfApi()
    with _explained(place):
        found = api.resolve_revision(place.repository, revision=place.revision or None)
        commit = str(found.resolved)
        if not _COMMIT.fullmatch(commit):
            raise WeightsError(f"{place}: the Hub names no commit for it ({cut(commit)!r}).")
        names, are_all = _names(api, place, commit)
        folder, wanted = _chosen(place, names, are_all)
        # The weights first: of a repository that is not open, they say so.
        files = [
            Path(api.hf_hub_download(place.repository, name, revision=commit)) for name in wanted
        ]
        licence, notes = "", list[str]()
        if _CARD in names:
            card = api.hf_hub_download(place.repository, _CARD, revision=commit)
            licence, notes = _licence(Path(card))
    within = str(PurePosixPath(wanted[0]).parent) if folder else wanted[0]
    address = str(_Place(place.repository, commit, "" if within == "." else within))
    if place.revision != commit:
        notes.insert(0, f"{place} is pinned at {commit}; give {address} to repeat it.")
    stated = f"its model card states the licence {licence!r}" if licence else "no licence is stated"
    notes.append(f"On the Hub, {stated}; the terms of whoever trained the weights apply as well.")
    return Fetched(files[0].parent if folder else files[0], address, licence, tuple(notes))


def _parsed(text: str) -> _Place:
    found = _ADDRESS.fullmatch(text)
    file = found["file"] or "" if found else ""
    # Two names in one that the library gives a meaning of their own.
    if not found or ".." in found["repository"] or "--" in found["repository"]:
        raise WeightsError(f"{cut(text)!r} is no address on the Hugging Face Hub; write {_FORM}.")
    file = file.rstrip("/")
    if file and not _is_safe(file):
        raise WeightsError(f"{cut(text)!r} names no file of a repository; write {_FORM}.")
    return _Place(found["repository"], found["revision"] or "", file)


def _is_safe(name: str) -> bool:
    """Whether a file's name stays within its repository, on every system."""
    parts = name.split("/")
    return (
        name.isprintable()
        and len(name) <= 500
        and not set(name) & set('\\:*?"<>|')
        and not any(part in ("", ".", "..") for part in parts)
    )


def _names(api: Any, place: _Place, commit: str) -> tuple[list[str], bool]:
    """The files of a commit, and True; those in the cache and False where it cannot be asked."""
    from huggingface_hub import errors

    names, are_all = [], True
    try:
        info = api.model_info(place.repository, revision=commit, timeout=_TIMEOUT)
        names = [sibling.rfilename for sibling in info.siblings or ()]
    except errors.HfHubHTTPError as error:
        if error.response.status_code < 500:
            raise
        are_all = False
    except (errors.HTTPError, ConnectionError, TimeoutError):
        are_all = False
    if not are_all:
        names = _cached(place, commit)
    return [name for name in names if _is_safe(name)], are_all


def _cached(place: _Place, commit: str) -> list[str]:
    """The files of a commit in the library's cache, whose layout it documents."""
    from huggingface_hub import constants

    repository = f"models--{place.repository.replace('/', '--')}"
    snapshot = Path(constants.HF_HUB_CACHE, repository, "snapshots", commit)
    files = (each for each in snapshot.rglob("*") if each.is_file())
    found = [each.relative_to(snapshot).as_posix() for each in files]
    if not found:
        raise _out_of_reach(place)
    return found


def _chosen(place: _Place, names: Sequence[str], are_all: bool) -> tuple[bool, list[str]]:
    """Whether it is a folder in our layout, and the names of the files to bring."""
    folder = f"{place.file}/" if place.file else ""
    ours = [f"{folder}{native.TENSORS}", f"{folder}{native.CONTRACT}"]
    if set(ours) <= set(names):
        usage = f"{folder}{native.USAGE}"
        return True, [*ours, *([usage] if usage in names else [])]
    if place.file in names:
        return False, [place.file]
    files = sorted(name for name in names if name.endswith(_SUFFIXES))
    if not place.file and len(files) == 1:
        return False, files
    if not are_all and (place.file or not files):
        raise _out_of_reach(place)
    listed = some(files, _LISTED, cut)
    if place.file:
        raise WeightsError(
            f"{place}: the repository has no file {place.file!r}; "
            + (f"its weight files are {listed}." if files else "it has no weight file at all.")
        )
    if not files:
        raise WeightsError(
            f"{place} has no weight file ({', '.join(_SUFFIXES)}); give another repository."
        )
    raise WeightsError(f"{place} has several weight files; name one of them: {listed}.")


def _licence(card: Path) -> tuple[str, list[str]]:
    """The licence that a model card states, and what is to be said of the card."""
    from huggingface_hub import metadata_load

    try:
        stated = metadata_load(card) or {}
    # YAML of anybody's making fails in many ways.
    except Exception as error:
        return "", [f"Its model card cannot be read ({cut(str(error))})."]
    licence = stated.get("license")
    if licence == "other":
        licence = stated.get("license_name") or licence
    if isinstance(licence, list):
        licence = ", ".join(map(str, licence))
    return cut(licence, 80) if isinstance(licence, str) else "", []


@contextlib.contextmanager
def _explained(place: _Place) -> Iterator[None]:
    """Says what the library's errors mean, without their texts: addresses and headers are there."""
    from huggingface_hub import errors

    repository = f"hf://{place.repository}"
    try:
        yield
    except errors.GatedRepoError as error:
        raise WeightsError(
            f"{repository} is gated: ask for access on its page on the Hub, then log in with "
            "`hf auth login` or set HF_TOKEN."
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise WeightsError(
            f"{repository} is not on the Hub, or is private; correct the name, or log in with "
            "`hf auth login` or set HF_TOKEN."
        ) from error
    except errors.RevisionNotFoundError as error:
        raise WeightsError(
            f"{repository} has no revision {place.revision or 'main'!r}; give a branch, a tag or "
            "the 40 digits of a commit that it has."
        ) from error
    except errors.RemoteEntryNotFoundError as error:
        raise WeightsError(f"{place}: the repository has no such file any more.") from error
    except (errors.RevisionResolutionError, errors.LocalEntryNotFoundError) as error:
        raise _out_of_reach(place) from error
    except errors.HfHubHTTPError as error:
        raise WeightsError(
            f"{place}: the Hub answered {error.response.status_code}; try again later, or see "
            "whether your token may read it."
        ) from error
    except (errors.HTTPError, ConnectionError, TimeoutError) as error:
        raise _out_of_reach(place) from error
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise WeightsError(
            f"{place} cannot be kept in the Hub's cache ({reason}); "
            "make room, or set HF_HOME to a folder that can be written to."
        ) from error


def _out_of_reach(place: _Place) -> WeightsError:
    return WeightsError(
        f"{place} cannot be had: the Hub is out of reach (or HF_HUB_OFFLINE is set), and the cache "
        "does not have it; connect, or bring the file here and give its path."
    )
