"""Looks for what is wrong with a set of images: `python -m radimagenet_jax.audit`."""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table

from radimagenet_jax import command, console
from radimagenet_jax.data import registry
from radimagenet_jax.errors import ConfigError, DataError, telling
from radimagenet_jax.files import check_output, expanded, make_private

if TYPE_CHECKING:
    import numpy as np

    from radimagenet_jax.data.source_files import SourceFile

_EPILOG = """\
It compares what the images show, not the files' bytes, and finds exact and near copies within
and across splits, copies with different labels, empty images, images that cannot be read,
patients in several splits, and files whose suffix names another format; it counts classes, sizes
and modes. In a folder, an image's class is the folder that it lies in; zips are read in place;
masks (`*_mask*`, and folders `masks`) are left out.

It writes audit.json (every finding) and audit.html (with pictures) and changes nothing else.
The exit code is 0 whatever is found.

data sets:
{datasets}

examples:
  python -m radimagenet_jax.audit --dataset=covid_ct
  python -m radimagenet_jax.audit --dataset=busi/fold1 --data_dir=/data/tfds --output=audits/busi
  python -m radimagenet_jax.audit --folder=Dataset_BUSI_with_GT
"""
# What tells DICOM from anything else: the preamble, the mark and a few elements.
_BEGINNING = 1024
_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".dcm", ".dicom"}


@dataclass(frozen=True)
class _Item:
    """An image to examine."""

    key: str
    split: str
    label: str
    patient: str
    read: Callable[[], bytes]


@dataclass(frozen=True)
class _Audited:
    """What is audited, for the page.

    Attributes:
      title: Its name.
      where: The folder that it lies in.
      terms: What it may be used for, '' where not known.
      command: The command line.
    """

    title: str
    where: str
    terms: str
    command: Sequence[str]


def main(arguments: Sequence[str]) -> int:
    """Parses the command line and audits; returns the exit code."""
    parser = command.Parser(
        "audit",
        "Find copies, leaks, contradictions and empty images in a set of images.",
        _EPILOG.format(datasets=registry.listing()),
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--dataset", metavar="NAME[/CONFIG]", help="a data set; it is prepared first if need be"
    )
    source.add_argument("--folder", metavar="DIR", help="a folder of images, or of zips")
    parser.add_data_dir()
    parser.add_argument(
        "--output", metavar="DIR", help="where the result goes (default: audit/<name>)"
    )
    options = parser.parse_args(arguments)
    terms = ""
    if options.dataset:
        title = options.dataset
        items, terms = _of_dataset(title, options.data_dir)
    else:
        folder = expanded(options.folder)
        title, items = folder.resolve().name, _of_folder(folder)
    output = expanded(options.output or Path("audit", *title.split("/")))
    audited = expanded(options.folder or options.data_dir)
    if output.resolve().is_relative_to(audited.resolve()):
        raise ConfigError(f"--output={output} is inside {audited}, which is audited; name another.")
    check_output(output, "--output")
    _audit(
        _Audited(
            title,
            str(options.data_dir if options.dataset else options.folder),
            terms,
            parser.line(arguments),
        ),
        items,
        output,
    )
    return 0


def _audit(of: _Audited, items: Sequence[_Item], output: Path) -> None:
    from radimagenet_jax.data import inspection
    from radimagenet_jax.data.preparation import progress_bar
    from radimagenet_jax.files import replacing
    from radimagenet_jax.reports import audit_page, provenance

    def examine(item: _Item) -> tuple[inspection.Picture, bytes]:
        named = (item.key, item.split, item.label, item.patient)
        try:
            encoded = item.read()
        except DataError as error:
            return inspection.Picture(*named, problem=str(error)), b""
        return inspection.examine(encoded, *named), hashlib.sha256(encoded).digest()

    pictures, fingerprint = [], hashlib.sha256()
    with progress_bar("reading images") as progress, ThreadPoolExecutor() as pool:
        for picture, content in pool.map(examine, items):
            pictures.append(picture)
            named = (picture.split, picture.key, picture.label, picture.patient)
            fingerprint.update(repr(named).encode(errors="surrogateescape") + content)
            progress(len(pictures), len(items))
    findings = inspection.find(pictures)
    by_name = {(item.split, item.key): item for item in items}

    def pixels(picture: inspection.Picture) -> "np.ndarray":
        return inspection.pixels_of(by_name[picture.split, picture.key].read(), picture.key)

    table = Table(title=f"audit of {of.title}", title_justify="left")
    table.add_column("found")
    table.add_column("number", justify="right")
    for name, number, is_fault in audit_page.headline(findings):
        table.add_row(name, f"{number:,}", style="bold yellow" if is_fault else None)
    console.console.print(table)
    sizes = Counter(picture.split for picture in pictures)
    record: provenance.Provenance = {
        **provenance.stamp(of.command),
        "dataset": {
            "name": f"{of.title}, in {of.where}",
            "terms": of.terms,
            "fingerprint": fingerprint.hexdigest(),
            "fingerprint_of": "of every image’s split, name, class, patient and bytes",
            "sizes": {split or "images": count for split, count in sizes.items()},
            "split": "the data set's own" if any(sizes) else "none: a folder",
        },
    }
    with telling(f"{output} cannot be written", DataError, "name another --output"):
        make_private(output)
        with replacing(output / "audit.json") as file:
            found = findings.to_json() | {"provenance": record}
            json.dump(found, file, indent=1, allow_nan=False)
        facts = {"title": of.title, "in": of.where}
        page = audit_page.write(output / "audit.html", findings, pixels, facts, record)
    # The page is the result, so it alone goes to standard output.
    print(page)


def _of_dataset(name: str, data_dir: str) -> tuple[list[_Item], str]:
    """The stored images of a prepared data set, in the order of its splits, and its terms."""
    from radimagenet_jax.data.preparation import prepare
    from radimagenet_jax.data.streaming import RecordSource

    built = prepare(name, data_dir)
    labels = built.info.features["label"].names
    items = []
    for split in built.info.splits:
        source = RecordSource(built, split)
        for place in range(source.count):
            record = source.read([place])[0]
            key, patient = record["key"].decode(), record["patient"].decode()

            def read(source: RecordSource = source, place: int = place) -> bytes:
                return source.read([place])[0]["image"]

            items.append(_Item(key, split, labels[record["label"]], patient, read))
    return items, built.TERMS


def _of_folder(folder: Path) -> list[_Item]:
    """The images below a folder, with their own folders as classes."""
    from radimagenet_jax.data.source_files import list_files

    if not folder.is_dir():
        raise DataError(f"--folder={folder} is no folder; give one that holds images.")
    items = [
        _Item(str(file.path), "", "" if len(file.path.parts) < 2 else file.path.parent.name, "",
              file.read)
        for file in list_files(folder)
        if (file.path.suffix.lower() in _SUFFIXES or _begins_as_dicom(file))
        and "_mask" not in file.name
        and "masks" not in file.path.parts
    ]  # fmt: skip
    if not items:
        raise DataError(
            f"--folder={folder} has no image; give a folder with "
            f"{', '.join(sorted(_SUFFIXES))} files, or with zips of them."
        )
    return items


def _begins_as_dicom(file: "SourceFile") -> bool:
    """Tells by its content: scanners give files no suffix, or the end of a number."""
    from radimagenet_jax.data.dicom import is_dicom

    with file.open() as stream:
        return is_dicom(stream.read(_BEGINNING))


if __name__ == "__main__":
    command.run(main)
