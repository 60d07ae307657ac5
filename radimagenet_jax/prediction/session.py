"""One network on one set of images, from the first file to the last line on the terminal."""

import contextlib
import functools
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn

from radimagenet_jax.console import console
from radimagenet_jax.data import inputs
from radimagenet_jax.errors import DataError, UserError, telling
from radimagenet_jax.models import ops
from radimagenet_jax.prediction import evaluation, flow, sinks
from radimagenet_jax.prediction.journal import Journal
from radimagenet_jax.prediction.maps import FOLDER as MAPS
from radimagenet_jax.prediction.maps import Maps, Wanted
from radimagenet_jax.prediction.predictor import Predictor
from radimagenet_jax.progress import Bar, duration
from radimagenet_jax.reports import maps_page, provenance, report
from radimagenet_jax.statistics import operating_points

# A CPU is busy with few images; other devices need more to be.
_ON_CPU, _ELSEWHERE = 16, 128
# The exit code of a command that has scored what it could.
SOME_FAILED = 3


@dataclass(frozen=True)
class Session:
    """What a command is to do.

    Attributes:
      network: What is applied.
      found: The images.
      command: The command line, for the page.
      images: Where the images are, as it was given.
      split: Which rows of a table are taken, '' for all.
      features: Write features, not scores.
      strict: End with the first image that cannot be read, and leave nothing.
      maps: Which maps are made; None for none.
    """

    network: Predictor
    found: inputs.Found
    command: Sequence[str]
    images: str = ""
    split: str = ""
    features: bool = False
    strict: bool = False
    maps: Wanted | None = None

    def run(self, output: Path) -> int:
        """Scores the images, and says what came of them.

        Args:
          output: The folder of the results, which is made where it is missing.

        Returns:
          The exit code: 0, or `SOME_FAILED`.

        Raises:
          DataError: If the labels of a table are none of the network's classes, or, where the
            session is strict, anything cannot be read.
          ConfigError: If another command has left its unfinished rows in the output.
          UserError: If the results cannot be written.
        """
        is_labelled = "label" in self.found.columns and not self.features
        if is_labelled:
            evaluation.check_labels(self.found, self.network.class_names)
        if self.strict and self.found.failures:
            raise _strict(self.found.failures[0])
        journal = Journal(output, self._fingerprint())
        room = "make room, and the same command goes on"
        with (
            contextlib.closing(journal),
            telling(f"{output} cannot be written to", UserError, room),
        ):
            errors, takers = sinks.Errors(journal), self._sinks(journal)
            self._stream(journal, errors, takers)
            result = None
            if is_labelled and journal.counts.scored:
                result = self._evaluate(output, journal)
            if result is None and not self.features:
                evaluation.remove(output)
            for taker in takers:
                taker.finish(output)
            errors.finish(output, journal.counts.failed)
            journal.remove()
        self._tell(output, journal, result)
        return SOME_FAILED if journal.counts.failed else 0

    def _sinks(self, journal: Journal) -> list[sinks.Sink]:
        """What takes each batch of images and outputs."""
        if self.features:
            return [sinks.Features(journal)]
        scores = sinks.Scores(journal, self.network.class_names, self.found.columns)
        if self.maps is None:
            return [scores]
        return [Maps(journal, self.maps, self._provenance), scores]

    def _fingerprint(self) -> dict[str, str]:
        """What the rows depend on."""
        kind = "features" if self.features else "scores"
        return {
            "network": f"{self.network.digest} {self.network.contract.to_json()}",
            "set of images": self.found.digest(),
            "--image_size": str(self.network.image_size),
            "--window": repr(self.network.reading),
            "choice of --features": f"{kind} {','.join(self.found.columns)}",
            "choice of --maps": "" if self.maps is None else self.maps.of,
        }

    def _stream(self, journal: Journal, errors: sinks.Errors, takers: Sequence[sinks.Sink]) -> None:
        """Applies the network to what is left; every sink takes each batch."""
        found, counts, position = self.found, journal.counts, journal.position
        if errors.is_new:
            errors.add(found.failures)
            counts.failed += len(found.failures)
        if position.entries or position.frames:
            console.print(f"going on behind {counts.scored:,} images that were scored before")
        results = flow.results(
            found.entries,
            functools.partial(
                inputs.read, image_size=self.network.image_size, reading=self.network.reading
            ),
            self.network.apply,
            batch_size=batch_size(),
            start=position,
        )
        with _Progress(position.entries, len(found.entries)) as progress:
            for result in results:
                if result.failures and self.strict:
                    journal.remove()
                    raise _strict(result.failures[0])
                errors.add(result.failures)
                counts.failed += len(result.failures)
                scored = 0
                if result.batch is not None:
                    for taker in takers:
                        taker.add(result.batch)
                    scored = len(result.batch.keys)
                counts.scored += scored
                position = result.position
                journal.note(position)
                progress.advance(position.entries, scored)
        journal.note(position, now=True)

    def _evaluate(self, output: Path, journal: Journal) -> Mapping[str, Any] | None:
        return evaluation.write(
            output,
            journal.folder / sinks.SCORES,
            self.network,
            self.found,
            journal.counts.failed,
            images=self._images,
            provenance=self._provenance,
        )

    @functools.cached_property
    def _provenance(self) -> provenance.Provenance:
        """What the pages say of themselves."""
        found, network = self.found, self.network
        return {
            **provenance.stamp(self.command, provenance.devices()),
            **network.described,
            "weights": json.loads(network.contract.to_json()),
            "dataset": {
                "name": self.images,
                "terms": "",
                "split": self.split or "none: all images",
                "fingerprint": found.digest(),
                "fingerprint_of": "of the files’ paths, sizes and dates, their labels and patients",
            },
        }

    def _images(self, entries: Sequence[inputs.Entry]) -> dict[str, Any]:
        """The images of entries, by key; those that cannot be read any more are left out."""
        parts = [
            inputs.read(entry, self.network.image_size, self.network.reading) for entry in entries
        ]
        return {
            key: image
            for part in parts
            for key, image in part.images.items()
            if not isinstance(image, DataError)
        }

    def _tell(self, output: Path, journal: Journal, result: Mapping[str, Any] | None) -> None:
        """Prints the figures, and one line on every file that was found."""
        if result is not None:
            for line in _figures(result):
                console.print(line)
            console.print(f"report: {output / report.REPORT}")
        if self.maps is not None:
            console.print(f"maps: {output / MAPS / maps_page.PAGE}")
        name = sinks.FEATURES if self.features else sinks.SCORES
        line = f"{journal.counts.scored:,} images: {output / name}"
        if journal.counts.failed:
            line += f"; {journal.counts.failed:,} failed: {output / sinks.ERRORS}"
        if self.found.others:
            line += f"; no images: {inputs.described(self.found.others)}"
        console.print(line)


class _Progress(Bar):
    """Counts files, images a second and the time left; use as a context manager."""

    def __init__(self, done: int, total: int):
        """Begins; `done`: files, or rows of a table, that an earlier process has done."""
        self._total, self._first, self._images = total, done, 0
        self._began = time.monotonic()
        super().__init__(
            TextColumn("files"),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
            TextColumn("left"),
            total=total,
            completed=done,
            rate="",
        )

    def advance(self, done: int, images: int) -> None:
        """Notes that so many files are done in all, and so many images since the last time."""
        passed = time.monotonic() - self._began
        self._images += images
        rate = f"{self._images / max(passed, 1e-9):.1f} images/s"
        self.update(completed=done, rate=rate)
        if done > self._first and self.is_line_due():
            left = duration(passed / (done - self._first) * (self._total - done))
            console.print(f"{done:,} of {self._total:,} files, {rate}, about {left} left")


def batch_size() -> int:
    """How many images the network is given at a time."""
    return _ON_CPU if ops.computes_on_host() else _ELSEWHERE


def _strict(failure: inputs.Failure) -> DataError:
    return DataError(f"{failure.problem} With --strict nothing is written.")


def _figures(result: Mapping[str, Any]) -> list[str]:
    """What a person wants to know first of an evaluation."""
    test = result["test"]

    def interval(bounds: Sequence[float] | None) -> str:
        return "" if bounds is None else f" ({bounds[0]:.3f} to {bounds[1]:.3f})"

    area = "none" if test["auroc"] is None else f"{test['auroc']:.3f}"
    # Of many classes, it is the mean of each against the rest.
    of = f" of {result['positive']}" if "sensitivity" in test else ""
    lines = [
        f"AUROC{of} {area}{interval(test['auroc_ci95'])}, accuracy {test['accuracy']:.3f}, "
        f"of {test['n']:,} labelled images"
    ]
    for point in test.get("operating_points", ()):
        # One half is what the accuracy is of; of the others the page says more.
        if point["name"] != operating_points.YOUDEN or point["threshold"] is None:
            continue
        shares = [
            f"{name} {point[name]:.3f}{interval(point[f'{name}_ci95'])}"
            for name in ("sensitivity", "specificity")
            if point[name] is not None
        ]
        lines.append(
            f"{result['positive']} from a score of {point['threshold']:.4f} on, as fixed on "
            f"validation: {', '.join(shares)}"
        )
    return [*lines, *(f"note: {note}" for note in test["notes"])]
