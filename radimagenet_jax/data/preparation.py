"""Building a data set on disk, once, without TensorFlow and without leaving debris."""

import os
import re
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn

from radimagenet_jax import locks
from radimagenet_jax.console import console
from radimagenet_jax.data.beam_reading import beam_failures, beam_pipeline_settings
from radimagenet_jax.data.registry import DEFAULT_DATA_DIR, UNFINISHED, builder, manual_dir
from radimagenet_jax.errors import ConfigError, DataError, telling
from radimagenet_jax.files import expanded
from radimagenet_jax.progress import Bar

if TYPE_CHECKING:
    import tensorflow_datasets as tfds

# A writer keeps a note of each record of its file: with files of 1 GiB, as TFDS has them by itself,
# that would be most of what memory grows by.
_SHARD_BYTES = 64 * 2**20

# What a run that failed has read is kept if it took so long; what is read sooner is debris.
KEEP_SECONDS = 60.0

# Called with the number of examples done and the number expected, None when unknown.
OnProgress = Callable[[int, int | None], None]


def prepare(
    name: str,
    data_dir: str | Path = DEFAULT_DATA_DIR,
    *,
    workers: int | None = None,
    on_progress: OnProgress | None = None,
    beam_runner: str | None = None,
    beam_options: Sequence[str] = (),
    skip_unreadable: bool = False,
) -> "tfds.core.GeneratorBasedBuilder":
    """Builds a data set as array_record files, if that has not been done.

    Terms of use are printed before the work begins. Nothing incomplete stays behind: TFDS writes
    into a folder of its own and renames it at the end, and what a killed run left is removed
    first. Only the records that a run had read when it was killed, or failed after more than
    `KEEP_SECONDS`, stay in a hidden folder, and the next run goes on with them. Processes
    that prepare the same data set on one machine wait for each other.

    Args:
      name: A name of `registry.names()`, or `<name>/<configuration>`.
      data_dir: The TFDS data directory; manual downloads are in
        `<data_dir>/downloads/manual/<dataset>/`.
      workers: Threads that read and verify; default one for each CPU.
      on_progress: Takes the place of the progress bar on the terminal.
      beam_runner: The Apache Beam runner to build with, such as DirectRunner, FlinkRunner,
        SparkRunner or DataflowRunner; None builds in threads of this process. The records are
        the same, though in other shards.
      beam_options: Flags of that runner, as on its command line: '--direct_num_workers=2'.
      skip_unreadable: Leave out images that cannot be read; the data set's notes, which every
        report has, say how many and which.

    Returns:
      The builder, ready for reading.

    Raises:
      DataError: If the source is missing (with what to get, from where, on which terms, and
        where to put it), incomplete or damaged, or the disk refuses.
      ConfigError: If Apache Beam is asked for and not installed, has no such runner, or shall
        skip what is unreadable.
    """
    if beam_runner and skip_unreadable:
        raise ConfigError(
            "--skip_unreadable needs all images seen by one process; leave out --beam_runner, or "
            "mend the images."
        )
    beam = beam_pipeline_settings(beam_runner, beam_options) if beam_runner else {}
    built = builder(name, data_dir)
    if Path(built.data_dir).is_dir():
        return built
    _check_source(built, data_dir)
    console.print(f"preparing {name} in {built.data_dir}")
    console.print(f"terms: {built.TERMS}")
    home = expanded(data_dir) / built.name
    remedy = "free some space, mend its rights, or choose another data_dir"
    with telling(f"{home} cannot be written", DataError, remedy), _sole_builder(home):
        # Another process may have finished while this one waited.
        if not Path(built.data_dir).is_dir():
            built.workers = workers or os.cpu_count() or 1
            built.beam = bool(beam)
            built.skip_unreadable = skip_unreadable
            with progress_bar("writing examples", on_progress) as report:
                _build(built, data_dir, report, beam)
    return builder(name, data_dir)


def _check_source(built: "tfds.core.GeneratorBasedBuilder", data_dir: str | Path) -> None:
    """Refuses, in one sentence, to build what has to be downloaded by hand and was not."""
    if not built.MANUAL_DOWNLOAD_INSTRUCTIONS:
        return
    folder = manual_dir(built.name, data_dir)
    with telling(f"{folder} cannot be read", DataError, "mend its rights"):
        missing = not folder.is_dir() or not any(folder.iterdir())
    if missing:
        raise DataError(
            f"the data set '{built.name}' is not in {folder}: "
            f"{built.MANUAL_DOWNLOAD_INSTRUCTIONS}. Terms: {built.TERMS}"
        )


def _build(
    built: "tfds.core.GeneratorBasedBuilder",
    data_dir: str | Path,
    report: OnProgress,
    beam: Mapping[str, Any],
) -> None:
    import tensorflow_datasets as tfds

    # One voice is enough: TFDS draws bars even where there is no terminal.
    tfds.disable_progress_bar()
    config_name = built.builder_config.name if built.builder_config else ""
    total = sum(built.EXPECTED.get(config_name, {}).values()) or None
    built.report = lambda done: report(done, total)
    config = tfds.download.DownloadConfig(
        manual_dir=str(manual_dir(built.name, data_dir)), max_shard_size=_SHARD_BYTES, **beam
    )
    try:
        with beam_failures() if beam else nullcontext():
            built.download_and_prepare(download_config=config, file_format="array_record")
    except RuntimeError as error:
        # This is how array_record's writer tells of a full disk; other kinds are defects.
        reason = re.search(r"write\(\) failed: ([^;]+)", str(error))
        if reason is None:
            raise
        raise OSError(reason.group(1)) from error
    finally:
        # TFDS makes a folder for what it would unpack.
        _remove_empty([manual_dir(built.name, data_dir).parents[1] / "extracted"])


@contextmanager
def progress_bar(doing: str, on_progress: OnProgress | None = None) -> Iterator[OnProgress]:
    """A bar on a terminal, with the time that is left; `on_progress` takes its place."""
    if on_progress is not None:
        yield on_progress
        return
    columns = (TextColumn(doing), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Bar(*columns) as bar:
        yield lambda done, total: bar.update(completed=done, total=total)


@contextmanager
def _sole_builder(home: Path) -> Iterator[None]:
    """Holds the only right to build below a data set's folder, and removes what a failure left.

    The lock is on the folder itself: no lock file stays behind, and the system releases it
    even when the process is killed.
    """
    handle, created = _lock_folder(home)
    began, had_records = time.monotonic(), (home / UNFINISHED).is_dir()
    try:
        # Whoever holds the lock is the only builder, so these are of runs that were killed.
        for stale in [*home.glob("incomplete.*"), *home.glob("*/incomplete.*")]:
            shutil.rmtree(stale)
        yield
    except BaseException:
        if not had_records and time.monotonic() - began < KEEP_SECONDS:
            shutil.rmtree(home / UNFINISHED, ignore_errors=True)
        if (home / UNFINISHED).is_dir():
            console.print(
                f"what was read so far is kept in {home / UNFINISHED}; the next run goes on there.",
            )
            _remove_empty(home.iterdir())
        elif any(home.rglob("dataset_info.json")):  # another configuration is prepared there
            _remove_empty(home.iterdir())
        else:
            shutil.rmtree(home)
            _remove_empty(created[1:] if home in created else [])
        raise
    finally:
        os.close(handle)


def _remove_empty(folders: Iterable[Path]) -> None:
    for folder in folders:
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()


def _lock_folder(home: Path) -> tuple[int, list[Path]]:
    """Returns an open, locked handle of a folder, and which folders were made for it."""
    while True:
        created = [path for path in (home, *home.parents) if not path.exists()]
        home.mkdir(parents=True, exist_ok=True)
        try:
            handle = os.open(home, os.O_RDONLY)
        except FileNotFoundError:  # removed by another process that failed
            continue
        locks.take(handle, home, wait=True)
        try:
            same = os.path.samestat(os.fstat(handle), home.stat())
        except FileNotFoundError:
            same = False
        if same:
            return handle, created
        os.close(handle)  # it was the lock of a folder that is gone
