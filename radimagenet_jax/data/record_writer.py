"""Writing records of encoded images, which a second compression would only slow down."""

import os
from collections.abc import Iterable

from array_record.python import array_record_module
from tensorflow_datasets.core import file_adapters, writer

# One record a group, as TFDS writes them too, so that each can be read alone.
_OPTIONS = "group_size:1,uncompressed"


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
        records = array_record_module.ArrayRecordWriter(os.fspath(path), _OPTIONS)
        try:
            for _, record in examples:
                records.write(record)
        finally:
            records.close()
        return None
