"""Files that appear when they are right, or not at all."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from radimagenet_jax.errors import ExportError


@contextlib.contextmanager
def kept_if_right(path: Path) -> Iterator[Path]:
    """Lends a name beside a file, which becomes the file when the `with` block ends well.

    Args:
      path: The file; it must not exist.

    Yields:
      A path in the same folder, with the same suffix, to write and to check.

    Raises:
      ExportError: If the file exists, or nothing can be written there.
    """
    if path.exists():
        raise ExportError(f"{path} exists already; remove it, or choose another name.")
    temporary = path.with_name(f".{path.stem}.tmp{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.unlink(missing_ok=True)  # of a process that was killed
        yield temporary
        temporary.rename(path)
    except OSError as error:
        raise ExportError(
            f"{path} cannot be written ({error.strerror or error}); make room or choose another "
            "place."
        ) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
