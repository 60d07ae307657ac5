"""What the TFDS builders of images share: features, checks, reading ahead, a list of faults."""

import os
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import tensorflow_datasets as tfds
from array_record.python import array_record_module

from radimagenet_jax.data.ahead import mapped
from radimagenet_jax.data.beam_reading import reading_with_beam
from radimagenet_jax.data.images import check_image
from radimagenet_jax.data.local_builder import LocalBuilder
from radimagenet_jax.data.problems import Problems
from radimagenet_jax.data.source_files import FileState, SourceFile, dataset_folder, noting_files
from radimagenet_jax.data.splits import SPLITS
from radimagenet_jax.data.unfinished import KeptSpool, remove_unfinished, unfinished_folder
from radimagenet_jax.errors import DataError, escaped
from radimagenet_jax.wording import some

# One record a group, as TFDS writes them too, so that each can be read alone.
_RECORD_OPTIONS = "group_size:1,uncompressed"
# Names that a note has; all of them are in the file beside the records.
_NAMES_SHOWN = 20
UNREADABLE = "unreadable.txt"
_SKIP = "Or leave what cannot be read out, with --skip_unreadable of the command prepare."


@dataclass(frozen=True)
class Example:
    """An image of a source, before it is read.

    Attributes:
      key: Unique and stable: a relative path, never anything that names a person.
      label: The class name.
      read: Returns the features that take time, by name: `image` (an encoded, verified file) and
        whatever else the builder declares; nothing at all where the example shall be left out.
        It runs in a thread, and raises `DataError`.
      patient: A pseudonym, '' where the owners give none.
    """

    key: str
    label: str
    read: Callable[[], Mapping[str, Any]]
    patient: str = ""

    def named(self, features: Mapping[str, Any]) -> dict[str, Any]:
        """Returns the whole example as TFDS takes it, given what `read` returned."""
        return {"key": self.key, "label": self.label, "patient": self.patient, **features}


def verified(file: SourceFile) -> Callable[[], dict[str, bytes]]:
    """Returns an `Example.read` for an image that is kept byte for byte as its owners gave it."""

    def read() -> dict[str, bytes]:
        encoded = file.read()
        check_image(encoded, name=file.shown)
        return {"image": encoded}

    return read


class ImageRecordWriter(tfds.core.ExampleWriter):
    """TFDS's writer, but array_record files are not compressed: PNG and JPEG are already.

    Brotli, the files' default, takes a millisecond for a PNG of 224 x 224 pixels, most of what
    preparing it costs, and saves next to nothing.
    """

    def write(
        self, path: os.PathLike[str] | str, examples: Iterable[tuple[int, bytes]]
    ) -> list[Any] | None:
        """Writes one file; see `tfds.core.ExampleWriter`."""
        if self.file_format is not tfds.core.FileFormat.ARRAY_RECORD:
            return super().write(path, examples)
        records = array_record_module.ArrayRecordWriter(os.fspath(path), _RECORD_OPTIONS)
        try:
            for _, record in examples:
                records.write(record)
        finally:
            records.close()
        return None


class ImageBuilder(LocalBuilder):
    """A data set of labelled images in train, val and test.

    A subclass sets the class attributes, those of `LocalBuilder` too, and answers `class_names`
    and `find_examples`.

    Attributes:
      HOMEPAGE: The owners' page.
      left_out: Keys that a configuration leaves out, once `find_examples` has found them; given
        to Beam's workers, so that the search is done once.
      notes: Sentences for everybody who reads results on this data, such as that a stand-in
        split was used; `find_examples` adds to them, and they are kept with the data.
      skip_unreadable: Leave out examples that cannot be read, and say so in a note.
    """

    HOMEPAGE: ClassVar[str]
    skip_unreadable = False
    left_out: frozenset[str] | None = None

    @abstractmethod
    def class_names(self) -> Sequence[str]:
        """Returns the class names in the order of their indices."""

    @abstractmethod
    def find_examples(self, root: Path, problems: Problems) -> Mapping[str, Sequence[Example]]:
        """Finds the examples of each split, without keeping images.

        Examples come in the same order at every call. A large data set returns sequences that
        make an example when it is asked for, so that memory does not grow with their number.

        Args:
          root: The folder of the data set's manual downloads.
          problems: Takes what is wrong with single rows or files; they are left out of
            the result.

        Raises:
          DataError: If nothing can be found at all.
        """

    def extra_features(self) -> dict[str, Any]:
        """Returns TFDS features besides image, label, key and patient."""
        return {}

    def _info(self) -> tfds.core.DatasetInfo:
        self.notes: list[str] = []
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(doc="An encoded file, PNG or JPEG."),
                    "label": tfds.features.ClassLabel(names=list(self.class_names())),
                    "key": tfds.features.Text(doc="Unique and stable."),
                    "patient": tfds.features.Text(doc="The owners' pseudonym, or empty."),
                    **self.extra_features(),
                }
            ),
            supervised_keys=("image", "label"),
            homepage=self.HOMEPAGE,
            license=self.TERMS,
            metadata=tfds.core.MetadataDict(),
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        root = dataset_folder(Path(dl_manager.manual_dir), self.name)
        listing = self._problems_file()
        problems = Problems(root, listing)
        # Everything is found and cross-checked before the first byte is written.
        splits = self.find_examples(root, problems)
        problems.check()
        self._check_counts(root, splits)
        if self.beam:
            self.info.metadata["notes"] = self.notes
            return {
                name: reading_with_beam(self, root, name, len(examples))
                for name, examples in splits.items()
            }
        # Everything is read, too, before: what cannot be is told all at once.
        problems = Problems(problems.source, listing)
        folder = unfinished_folder(*self._unfinished_place())
        unread: dict[str, str] = {}
        for split, examples in splits.items():
            self.spools[split] = self._filled_spool(folder, split, examples, problems, unread)
        if unread and not self.skip_unreadable:
            problems.check(_SKIP)
        self._check_what_is_left(splits, unread)
        if unread:
            self._note_unread(unread, sum(map(len, splits.values())))
        self.info.metadata["notes"] = self.notes
        # TFDS finds all records in the spools.
        return {name: iter(()) for name in splits}

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Removes, too, what was kept for the case that the records do not become complete."""
        with super().writing():
            yield
        if not self.beam:
            remove_unfinished(unfinished_folder(*self._unfinished_place()))
        self._problems_file().unlink(missing_ok=True)

    def _problems_file(self) -> Path:
        config = f"-{self.builder_config.name}" if self.builder_config else ""
        return Path(self.data_dir_root) / f"{self.name}{config}-problems.txt"

    def _unfinished_place(self) -> tuple[Path, str, str]:
        config = self.builder_config
        description = [
            *(self.name, str(self.version), repr(self.info.features), *self.class_names()),
            repr(config),
        ]
        home = Path(self.data_dir_root) / self.name
        return home, config.name if config else self.name, "\0".join(description)

    def _filled_spool(
        self,
        folder: Path,
        split: str,
        examples: Sequence[Example],
        problems: Problems,
        unread: dict[str, str],
    ) -> KeptSpool:
        """Returns a split's records, those of an earlier run among them.

        Args:
          folder: Of the unfinished records.
          split: Its name.
          examples: Its examples.
          problems: Takes what cannot be read.
          unread: Takes the label of each example that cannot be read, by key.
        """
        features = self.info.features
        serializer = tfds.core.ExampleSerializer(features.get_serialized_info())
        spool = KeptSpool(folder, split)
        for _ in self.counted(range(spool.num_examples)):
            pass
        waiting = (one for one in examples if not spool.has(one.key, [one.label, one.patient]))
        readings = mapped(_read, waiting, workers=self.workers, ahead=4 * self.workers)
        for example, found, files in self.counted(readings):
            # A bad image does not hide the next: all of them are told at the end.
            if isinstance(found, DataError):
                problems.add(str(found))
                unread[f"{split}/{example.key}"] = example.label
            elif found:
                record = features.encode_example(example.named(found))
                serialized = serializer.serialize_example(record)
                spool.keep(example.key, serialized, [example.label, example.patient], files)
        return spool

    def _check_what_is_left(
        self, splits: Mapping[str, Sequence[Example]], unread: Mapping[str, str]
    ) -> None:
        """Refuses to leave out all images of a class of a split."""
        for split, examples in splits.items():
            lost = {label for key, label in unread.items() if key.startswith(f"{split}/")}
            left = (
                {one.label for one in examples if f"{split}/{one.key}" not in unread}
                if lost
                else lost
            )
            for label in sorted(lost - left):
                raise DataError(
                    f"no image of the class '{label}' in the split {split} can be read, so that "
                    "they cannot be left out; mend or replace them."
                )

    def _note_unread(self, unread: Mapping[str, str], total: int) -> None:
        """Notes what was left out, and writes all names beside the records."""
        names = [escaped(key.partition("/")[2]) for key in unread]
        Path(self.data_dir, UNREADABLE).write_text("\n".join([*names, ""]), encoding="utf-8")
        shown = some(names, _NAMES_SHOWN, further=f"more, all named in {UNREADABLE}")
        self.notes.append(
            f"{len(names):,} of {total:,} images cannot be read and are left out "
            f"(--skip_unreadable): {shown}."
        )

    def _example_writer(self) -> ImageRecordWriter:
        return ImageRecordWriter(self.info.file_format)

    def _check_counts(self, root: Path, splits: Mapping[str, Sequence[Example]]) -> None:
        config = self.builder_config.name if self.builder_config else ""
        found = {name: len(examples) for name, examples in splits.items()}
        expected = self.EXPECTED.get(config)
        if expected is not None and found != expected:
            raise DataError(
                f"{root} lists {_counts(found)} images (train / val / test) where the published "
                f"split has {_counts(expected)}; download its lists again."
            )
        for name, count in found.items():
            if not count:
                raise DataError(f"{root} has no image for the split '{name}'; complete it.")

    def _generate_examples(self, *arguments: Any) -> Iterator[tuple[str, dict[str, Any]]]:
        """TFDS asks for this method; the records are in the spools before it is called."""
        raise NotImplementedError


def _read(example: Example) -> tuple[Example, Mapping[str, Any] | DataError, list[FileState]]:
    with noting_files() as files:
        try:
            return example, example.read(), files
        except DataError as error:
            return example, error, files


def _counts(counts: Mapping[str, int]) -> str:
    return " / ".join(str(counts[split]) for split in SPLITS)
