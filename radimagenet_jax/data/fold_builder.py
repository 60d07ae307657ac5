"""The base of builders whose split is published in tables, or made by patient in their place.

Such a builder states how its owners name things. The rest is here: the tables are found, read row
for row and counted; where they are not there, what it finds is divided by `splits.stand_in`, and
a note says so.
"""

from abc import abstractmethod
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Generic, Self, TypeVar

import tensorflow_datasets as tfds

from radimagenet_jax.data.image_builder import Example, ImageBuilder
from radimagenet_jax.data.problems import Problems
from radimagenet_jax.data.source_files import SourceFile, list_files
from radimagenet_jax.data.splits import (
    FOLDS,
    SPLITS,
    Listed,
    check_counts,
    find_tables,
    fold_of,
    read_tables,
    stand_in,
)
from radimagenet_jax.errors import DataError

S = TypeVar("S")

# The shares of `splits.stand_in`, and how far a split may be from them before it is said.
STAND_IN_SHARES = {"train": 0.72, "val": 0.08, "test": 0.2}
_TOLERANCE = 0.1


@dataclass(kw_only=True)
class FoldConfig(tfds.core.BuilderConfig):
    """A fold from 1; 0 is the published split, which fold 1 stands in for."""

    fold: int = 0

    @classmethod
    def folds(cls, description: str, *, prefix: str = "", **fields: Any) -> list[Self]:
        """Returns a configuration for each fold, `<prefix>fold1` to `<prefix>fold5`.

        Args:
          description: Of each, with '{fold}' for its number.
          prefix: What the names begin with.
          **fields: Further fields of the configurations.
        """
        return [
            cls(name=f"{prefix}fold{i}", fold=i, description=description.format(fold=i), **fields)
            for i in range(1, FOLDS + 1)
        ]

    @classmethod
    def published_and_folds(cls) -> list[Self]:
        """Returns the configurations of a data set with one published split."""
        description = "The published split, or fold 1 in its place."
        published = cls(name="published", description=description)
        return [published, *cls.folds("Fold {fold} of five, by patient.")]


@dataclass(frozen=True)
class Downloads:
    """What lies in the folder of a data set's manual downloads.

    Attributes:
      root: The folder.
      files: All files in it, those in zips included.
      problems: Takes what is wrong with single rows or files.
      instructions: What to download, for messages.
    """

    root: Path
    files: Sequence[SourceFile]
    problems: Problems
    instructions: str

    def missing(self, what: str) -> DataError:
        """Returns the error for downloads that lack what nothing can be done without."""
        return DataError(f"{self.root} has no {what}; {self.instructions}.")


@dataclass(frozen=True)
class Tables:
    """The published tables of one configuration.

    Attributes:
      name: Their file name, with '{split}' for train, val or test.
      rows: How many rows the published ones have, for the splits for which that is known.
      labels: The labels of their rows; default the class names.
      folder: Name of a folder that they must be in; '' for any.
    """

    name: str
    rows: Mapping[str, int]
    labels: Sequence[str] = ()
    folder: str = ""

    def names(self) -> dict[str, str]:
        """Returns each split's file name."""
        return {split: self.name.format(split=split) for split in SPLITS}

    def find(self, downloads: Downloads) -> dict[str, SourceFile] | None:
        """Returns each split's table, None where there are none; see `splits.find_tables`."""
        files = [
            file for file in downloads.files if not self.folder or self.folder in file.path.parts
        ]
        return find_tables(downloads.root, files, self.names())


@dataclass(frozen=True)
class Undivided:
    """Examples of which no table says the split.

    Attributes:
      examples: In any order.
      groups: What must stay together, by key; default the example's patient, or where that is
        unknown the example alone.
      note: The note about them, with '{split}' for how they were divided.
    """

    examples: Sequence[Example]
    groups: Mapping[str, str] | None = None
    note: str = "{split}."


class FoldBuilder(ImageBuilder, Generic[S]):
    """A data set with published tables of splits, or folds of our own; S is what it finds.

    A subclass answers `published_tables`, `find_source`, `published_example` and `undivided`;
    its configurations have a `fold` (see `FoldConfig`).

    Attributes:
      UNIT: What the stand-in split keeps together, as a note calls it.
    """

    UNIT: ClassVar[str] = "patient"

    def published_tables(self) -> Tables | None:
        """Returns the tables of this configuration, None where no table is published for it."""
        return None

    @abstractmethod
    def find_source(self, downloads: Downloads) -> S:
        """Finds what both the tables' rows and the stand-in split are made of.

        Raises:
          DataError: If nothing can be found at all.
        """

    def published_example(self, row: Listed, source: S, downloads: Downloads) -> Example | None:
        """Returns the example of a table's row, None to leave it out.

        Raises:
          DataError: If there is none, or the row contradicts what is known otherwise.
        """
        raise NotImplementedError

    @abstractmethod
    def undivided(self, source: S, downloads: Downloads) -> Undivided:
        """Returns all examples, for the stand-in split."""

    def remarks(self, source: S, splits: Mapping[str, Sequence[Example]]) -> Sequence[str]:
        """Returns further notes, once the splits are known."""
        del source, splits
        return ()

    def find_examples(self, root: Path, problems: Problems) -> dict[str, list[Example]]:
        """See `ImageBuilder`."""
        instructions = self.MANUAL_DOWNLOAD_INSTRUCTIONS
        downloads = Downloads(root, list_files(root), problems, instructions)
        source = self.find_source(downloads)
        tables = self.published_tables()
        if tables and (found := tables.find(downloads)):
            listed = read_tables(found, tables.labels or self.class_names(), problems)
            check_counts(listed, tables.rows, problems)
            splits = examples_of_rows(
                listed, lambda row: self.published_example(row, source, downloads), problems
            )
        else:
            undivided = self.undivided(source, downloads)
            # The rest would only repeat what follows from what was left out.
            problems.check()
            fold = self.builder_config.fold
            how = fold_of(fold or 1, self.UNIT)
            if tables or not fold:
                how = f"the published split tables are not there: {how}, stands in for them"
            self.notes.append(undivided.note.format(split=how))
            splits = stand_in_examples(undivided.examples, fold or 1, groups=undivided.groups)
            self.notes += lopsided(splits, undivided.groups)
        self.notes += self.remarks(source, splits)
        return splits


def examples_of_rows(
    listed: Mapping[str, Sequence[Listed]],
    make: Callable[[Listed], Example | None],
    problems: Problems,
) -> dict[str, list[Example]]:
    """Makes the examples of split tables.

    Args:
      listed: What `splits.read_tables` returned.
      make: Returns a row's example, or None to leave the row out; raises `DataError`.
      problems: Takes the rows of which none can be made.
    """
    splits: dict[str, list[Example]] = {split: [] for split in listed}
    for split, rows in listed.items():
        for row in rows:
            with problems.collecting():
                if (example := make(row)) is not None:
                    splits[split].append(example)
    return splits


def stand_in_examples(
    examples: Sequence[Example], fold: int, *, groups: Mapping[str, str] | None = None
) -> dict[str, list[Example]]:
    """Divides examples by `splits.stand_in`, sorted by key; see `Undivided` for the groups.

    Raises:
      DataError: As `splits.stand_in` does.
    """
    ordered = sorted(examples, key=lambda example: example.key)
    together = [(groups[one.key] if groups else one.patient) or one.key for one in ordered]
    indices = stand_in([one.label for one in ordered], together, fold)
    return {split: [ordered[i] for i in chosen] for split, chosen in indices.items()}


def lopsided(
    splits: Mapping[str, Sequence[Example]], groups: Mapping[str, str] | None = None
) -> list[str]:
    """Returns a note where a stand-in split is far from the shares that it aims at.

    Args:
      splits: What `stand_in_examples` returned.
      groups: What it was given.
    """
    counts = {split: len(splits[split]) for split in SPLITS}
    total = sum(counts.values())
    if all(
        abs(counts[split] - share * total) <= max(_TOLERANCE * total, 2)
        for split, share in STAND_IN_SHARES.items()
    ):
        return []
    sizes = Counter(
        (groups[one.key] if groups else one.patient) or one.key
        for split in SPLITS
        for one in splits[split]
    )
    largest = max(sizes.values())
    shares = " / ".join(f"{100 * counts[split] / total:.0f}" for split in SPLITS)
    aims = " / ".join(f"{100 * share:.0f}" for share in STAND_IN_SHARES.values())
    return [
        f"the split is lopsided: train / val / test have {shares} % of the images instead of "
        f"{aims} %, since one group that stays together, such as a patient, has {largest:,} of "
        f"{total:,}."
    ]
