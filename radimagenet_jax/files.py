"""Files that appear whole or not at all."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from radimagenet_jax.errors import DataError


@contextlib.contextmanager
def replacing(
    path: Path | str, *, errors: str = "strict", newline: str | None = "\n"
) -> Iterator[IO[str]]:
    """Opens a UTF-8 text file for writing that takes its place only when it is complete.

    The text goes to a temporary file in the same folder, is forced to the disk, and is renamed.
    After a crash, or an error inside the `with` block, the old file is untouched. One process
    at a time may write a path.

    Args:
      path: The file; its folder exists.
      errors: How characters that UTF-8 cannot hold are treated, as for `open`.
      newline: How line ends are written, as for `open`.

    Yields:
      The open file.

    Raises:
      DataError: If the file cannot be written (disk full, no permission, no such folder).
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with open(temporary, "w", encoding="utf-8", errors=errors, newline=newline) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        if isinstance(error, OSError):
            raise DataError(
                f"{path} cannot be written: {error.strerror or error}; "
                "make room, or choose a folder that can be written to."
            ) from error
        raise
