"""What `predict --maps` leaves: each image with its activation map, the raw maps, and a page."""

import json
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from radimagenet_jax.errors import ConfigError, DataError
from radimagenet_jax.prediction.flow import Batch
from radimagenet_jax.prediction.journal import Journal
from radimagenet_jax.reports import maps_page, overlays
from radimagenet_jax.reports.provenance import Provenance

FOLDER = "maps"
RAW = "maps.npz"
# Of a key, in the name of a picture.
_PLAIN = re.compile(r"[^A-Za-z0-9._-]+")
_LONGEST = 80


@dataclass(frozen=True)
class Wanted:
    """Which maps are made.

    Attributes:
      index: Of the class that they are for.
      class_names: Of the network.
      facts: For the page, name to text; 'title' heads it.
    """

    index: int
    class_names: Sequence[str]
    facts: Mapping[str, str]

    @property
    def of(self) -> str:
        """Name of the class."""
        return self.class_names[self.index]


def check(output: Path) -> None:
    """Refuses to replace a folder that no earlier prediction has left.

    Raises:
      ConfigError: If there is one.
    """
    folder = output / FOLDER
    if folder.exists() and not (folder / maps_page.PAGE).is_file():
        raise ConfigError(
            f"{folder} is not of an earlier prediction, and the maps would replace it; give "
            "another --output."
        )


class Maps:
    """maps/: the pictures with and without their maps, maps.npz, and maps.html.

    The colours of all images have one scale, so the overlays are drawn when every map is known.
    """

    def __init__(self, journal: Journal, wanted: Wanted, record: Provenance):
        """Opens the rows and the numbers, which grow side by side."""
        self._wanted, self._record = wanted, record
        self._rows, _ = journal.open("maps.jsonl")
        self._raw, _ = journal.open("maps.f32", text=False)
        self._paths = journal.folder / "maps.jsonl", journal.folder / "maps.f32"
        self._folder = journal.folder / FOLDER
        self._folder.mkdir(exist_ok=True)
        with self._paths[0].open(encoding="utf-8") as file:
            self._count = sum(1 for _ in file)

    def add(self, batch: Batch) -> None:
        """Keeps the images and their maps."""
        called = batch.outputs["scores"].argmax(axis=-1).tolist()
        for place, key in enumerate(batch.keys):
            self._count += 1
            name = f"{self._count:06}-{_PLAIN.sub('_', key)[-_LONGEST:]}"
            _write_png(self._folder / f"{name}.png", batch.images[place])
            row = {
                "key": key,
                "name": name,
                "score": float(batch.outputs["scores"][place, self._wanted.index]),
                "called": self._wanted.class_names[called[place]],
                "label": batch.entries[place].label,
                "shape": batch.outputs["maps"].shape[1:],
            }
            self._rows.write(json.dumps(row) + "\n")
        self._raw.write(np.ascontiguousarray(batch.outputs["maps"], "<f4").tobytes())

    def finish(self, output: Path) -> None:
        """Draws the overlays, and leaves the folder whole."""
        self._rows.close()
        self._raw.close()
        with self._paths[0].open(encoding="utf-8") as file:
            rows = [json.loads(line) for line in file]
        shape = (len(rows), *rows[0]["shape"]) if rows else (0, 1, 1)
        raw = np.fromfile(self._paths[1], "<f4").reshape(shape)
        limit = overlays.common_limit(raw)
        cards = []
        for row, own in zip(rows, raw, strict=True):
            picture, overlay = f"{row['name']}.png", f"{row['name']}-map.png"
            image = _read_png(self._folder / picture)
            _write_png(self._folder / overlay, overlays.overlay(image, own, limit))
            said = {name: row[name] for name in ("key", "score", "called", "label")}
            cards.append(maps_page.Card(**said, image=picture, overlay=overlay))
        with (self._folder / RAW).open("wb") as file:
            keys = np.array([row["key"] for row in rows], np.str_)
            np.savez(file, keys=keys, maps=raw, of=np.array(self._wanted.of))
        wanted = self._wanted
        shown = maps_page.Shown(wanted.of, limit, wanted.facts, self._record)
        maps_page.write(self._folder, cards, shown)
        shutil.rmtree(output / FOLDER, ignore_errors=True)
        self._folder.rename(output / FOLDER)


def _read_png(path: Path) -> np.ndarray:
    """Reads (H, W, 3) RGB uint8 that `_write_png` wrote, perhaps in an earlier process."""
    image = cv2.imread(str(path), cv2.IMREAD_COLOR_RGB) if path.is_file() else None
    if image is None:
        raise DataError(
            f"{path} is damaged or gone; remove {path.parents[1]} and give the command again."
        )
    return np.asarray(image, np.uint8)


def _write_png(path: Path, image: np.ndarray) -> None:
    """Writes (H, W, 3) RGB uint8; OSError if the disk refuses."""
    ordered = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    path.write_bytes(cv2.imencode(".png", ordered)[1].tobytes())
