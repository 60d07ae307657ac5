"""What a localisation leaves in its folder: tables, figures, a page, and nothing half-written."""

import csv
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from radimagenet_jax import own_files
from radimagenet_jax.errors import ConfigError, telling
from radimagenet_jax.files import make_private, replacing, write_json
from radimagenet_jax.localisation.measure import AGAINST, DISC, MAP, Measured
from radimagenet_jax.localisation.runs import SPLITS, Run
from radimagenet_jax.reports import localisation_page, provenance
from radimagenet_jax.reports.localisation_page import Compared, Tested, in_words
from radimagenet_jax.reports.provenance import Provenance
from radimagenet_jax.statistics import localisation
from radimagenet_jax.statistics.localisation import THRESHOLDS

PAGE, RESULT, SWEEP, IMAGES = "localisation.html", "localisation.json", "sweep.csv", "images.csv"
_FIGURES = ("region", "dice", "iou")


def compared(measured: Measured) -> Compared:
    """The figures, as the page and the terminal take them."""
    against = AGAINST if AGAINST in measured.judged else ""
    return Compared(measured.judged, measured.differences, DISC, against)


def write(
    folder: Path, run: Run, other: Run | None, measured: Measured, command: Sequence[str]
) -> Path:
    """Writes all files; localisation.json, the last, says that they are there.

    Args:
      folder: Where to; it is made.
      run: The run.
      other: The one that it was compared with.
      measured: What was found.
      command: The command line.

    Returns:
      The page.

    Raises:
      ConfigError: If the folder cannot be made.
      DataError: If a file cannot be written.
    """
    with telling(f"--output={folder} cannot be made", ConfigError, "give another folder"):
        make_private(folder)
    (folder / RESULT).unlink(missing_ok=True)
    _write_table(folder / SWEEP, _sweep_rows(measured))
    _write_table(folder / IMAGES, _image_rows(run, measured))
    made_of = _provenance(run, command)
    page = _write_page(folder / PAGE, run, other, measured, made_of)
    record = _record(run, other, measured) | {"provenance": made_of}
    write_json(folder / RESULT, record)
    return page


def _write_table(path: Path, rows: Iterable[Sequence[object]]) -> None:
    with replacing(path, errors="surrogateescape") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerows([own_files.guarded(cell) for cell in row] for row in rows)


def _sweep_rows(measured: Measured) -> Iterable[Sequence[object]]:
    """Mean figures of every kind of map at every threshold of each family."""
    yield ("map", "family", "threshold", "split", "images", "region_share", "dice", "iou", "chosen")
    for kind, one in measured.judged.items():
        for at in range(one.val.dice.shape[1]):
            threshold = THRESHOLDS[at] if one.threshold is not None else None
            named = ("", "") if threshold is None else (threshold.family, threshold.value)
            for split in SPLITS:
                found = getattr(one, split)
                means = [float(getattr(found, name)[:, at].mean()) for name in _FIGURES]
                yield (kind, *named, split, len(found.points), *means, int(at == one.at))


def _image_rows(run: Run, measured: Measured) -> Iterable[Sequence[object]]:
    """Figures of every image with a lesion, of every kind of map at its chosen threshold."""
    names = [f"{name}_{kind}" for kind in measured.judged for name in (*_FIGURES, "points")]
    yield ("key", "patient", "label", "split", "lesion", *names)
    classes = run.dataset.class_names
    for split in SPLITS:
        lesions = run.lesions[split]
        columns: list[Sequence[Any]] = []
        for one in measured.judged.values():
            columns += [one.column(split, name).tolist() for name in _FIGURES]
            columns.append(getattr(one, split).points.astype(int).tolist())
        labels = [classes[label] for label in lesions.labels]
        shares = lesions.shares.tolist()
        for key, patient, label, share, *values in zip(
            lesions.keys, lesions.patients, labels, shares, *columns, strict=True
        ):
            yield (key, patient, label, split, share, *values)


def _record(run: Run, other: Run | None, measured: Measured) -> dict[str, Any]:
    patients = run.lesions["test"].patients
    units = localisation.units(patients)
    maps = {}
    for (kind, one), row in zip(
        measured.judged.items(), localisation_page.rows(compared(measured), patients), strict=True
    ):
        threshold = one.threshold
        maps[kind] = {
            "title": one.title,
            "threshold": None
            if threshold is None
            else {"family": threshold.family, "value": threshold.value},
            "val": {"dice": float(one.column("val", "dice").mean())},
            "test": {name: row[name].to_json() for name in ("dice", "iou", "points")},
            "map_minus_this": None if row["difference"] is None else row["difference"].to_json(),
        }
    return {
        "run": str(run.folder),
        "against": None if other is None else str(other.folder),
        "of": run.of,
        "dataset": {"name": run.dataset.name, "fingerprint": run.dataset.fingerprint},
        "images": {
            split: {"lesions": len(one), "without": one.left_out}
            for split, one in run.lesions.items()
        },
        "intervals_over": {"unit": units.kind, "count": units.count},
        "grid": list(measured.maps.shape[1:]),
        "disc_share": measured.disc_share,
        "maps": maps,
    }


def _provenance(run: Run, command: Sequence[str]) -> Provenance:
    net, dataset = run.net, run.dataset
    contract = net.contract
    return {
        **provenance.stamp(command, provenance.devices()),
        **provenance.of_network(net.model, contract.architecture, net.image_size),
        **provenance.of_run(run.folder),
        "weights": json.loads(contract.to_json()),
        "dataset": {
            "name": dataset.name,
            "fingerprint": dataset.fingerprint,
            "terms": dataset.terms,
            "sizes": {name: len(getattr(dataset, name)) for name in ("train", "val", "test")},
        },
    }


def _write_page(
    path: Path, run: Run, other: Run | None, measured: Measured, record: Provenance
) -> Path:
    lesions, dataset = run.lesions["test"], run.dataset
    tested = Tested(
        lesions.keys,
        lesions.patients,
        [dataset.class_names[label] for label in lesions.labels],
        measured.maps,
        lesions.read,
    )
    further = [("Run", str(run.folder.absolute()))]
    if other is not None:
        further.append(("Compared with", str(other.folder.absolute())))
    facts = {
        "dataset": dataset.name,
        "of": run.of,
        "run": str(run.folder),
        "against": None if other is None else str(other.folder),
        "image_size": run.net.image_size,
        "counts": {split: (len(one), one.left_out) for split, one in run.lesions.items()},
        "disc_share": measured.disc_share,
        "notes": notes(run, measured),
        "further": further,
    }
    return localisation_page.write(path, compared(measured), tested, facts, record)


def notes(run: Run, measured: Measured) -> list[str]:
    """What has to be read with the figures, a sentence each."""
    found = [
        f"{one.left_out:,} of {len(one.split):,} {words} images have no lesion in a mask and are "
        "left out."
        for words, one in (("test", run.lesions["test"]), ("validation", run.lesions["val"]))
        if one.left_out
    ]
    silent = int((measured.maps.max(axis=(1, 2)) == 0).sum())
    if silent:
        found.append(
            f"In {silent:,} of {len(measured.maps):,} test images no place speaks for “{run.of}”; "
            "their region is empty and their Dice 0."
        )
    found.append(
        f"The threshold was chosen on {len(run.lesions['val']):,} validation images; the interval "
        "holds for that threshold."
    )
    threshold = measured.judged[MAP].threshold
    if threshold is not None and threshold.value in (THRESHOLDS[0].value, THRESHOLDS[-1].value):
        found.append(
            f"The chosen threshold is at the end of those tried ({in_words(threshold)}): a region "
            "that takes in nearly all, or nearly nothing, was the best."
        )
    disc = measured.judged[DISC].column("test", "dice").mean()
    if measured.judged[MAP].column("test", "dice").mean() < disc:
        found.append(
            "A map that overlaps the lesion less than a disc in the middle does not show that the "
            "network looks at the lesion."
        )
    return [*found, *run.dataset.notes]
