"""What the TFDS builders of images share: features, checks, reading ahead, a list of faults."""

import os
from abc import abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import tensorflow_datasets as tfds
from array_record.python import array_record_module
from tensorflow_datasets.core import file_adapters, writer

from radimagenet_jax.data.beam_reading import reading_with_beam
from radimagenet_jax.data.images import check_image
from radimagenet_jax.data.local_builder import LocalBuilder
from radimagenet_jax.data.problems import Problems
from radimagenet_jax.data.source_files import SourceFile, dataset_folder
from radimagenet_jax.data.splits import SPLITS
from radimagenet_jax.errors import DataError

# One record a group, as TFDS writes them too, so that each can be read alone.
_RECORD_OPTIONS = "group_size:1,uncompressed"


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


class ImageRecordWriter(writer.ExampleWriter):
    """TFDS's writer, but array_record files are not compressed: PNG and JPEG are already.

    Brotli, the files' default, takes a millisecond for a PNG of 224 x 224 pixels, most of what
    preparing it costs, and saves next to nothing.
    """

    def write(
        self, path: os.PathLike[str] | str, examples: Iterable[tuple[int, bytes]]
    ) -> file_adapters.ExamplePositions | None:
        """Writes one file; see `tensorflow_datasets.core.writer.ExampleWriter`."""
        if self.file_format is not file_adapters.FileFormat.ARRAY_RECORD:
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
    """

    HOMEPAGE: ClassVar[str]
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
        problems = Problems(root)
        # Everything is found and cross-checked before the first byte is written.
        splits = self.find_examples(root, problems)
        problems.check()
        self._check_counts(root, splits)
        self.info.metadata["notes"] = self.notes
        if self.beam:
            return {
                name: reading_with_beam(self, root, name, len(examples))
                for name, examples in splits.items()
            }
        last = list(splits)[-1]
        return {
            name: self.counted(self._generate_examples(examples, problems, is_last=name == last))
            for name, examples in splits.items()
        }

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

    def _generate_examples(
        self, examples: Sequence[Example], problems: Problems, *, is_last: bool
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        done = 0
        for example, reading in _read_ahead(examples, self.workers):
            features: Mapping[str, Any] = {}
            # A bad image does not hide the next: all of them are told at the end.
            with problems.collecting():
                features = reading.result()
            if features:
                done += 1
                yield example.key, example.named(features)
        if is_last or not done:
            problems.check()


def _read_ahead(
    examples: Sequence[Example], workers: int
) -> Iterator[tuple[Example, "Future[Mapping[str, Any]]"]]:
    """Reads in threads, in order; a few examples per thread are ahead, never all."""
    with ThreadPoolExecutor(workers) as pool:
        ahead: deque[tuple[Example, Future[Mapping[str, Any]]]] = deque()
        try:
            for example in examples:
                ahead.append((example, pool.submit(example.read)))
                if len(ahead) >= 4 * workers:
                    yield ahead.popleft()
            while ahead:
                yield ahead.popleft()
        finally:
            for _, future in ahead:
                future.cancel()


def _counts(counts: Mapping[str, int]) -> str:
    return " / ".join(str(counts[split]) for split in SPLITS)
