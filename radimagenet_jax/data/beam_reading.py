"""Reading a data set's images with Apache Beam: on one machine, Flink, Spark or Dataflow.

The pipeline's graph stays small whatever the number of images: its elements are ranges of
examples, and each worker finds the examples for itself, in the same order. So the source must be
on a file system that all workers see.
"""

import functools
import importlib.util
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from radimagenet_jax.data.problems import Problems
from radimagenet_jax.data.registry import builder
from radimagenet_jax.errors import ConfigError, DataError

# Some seconds of work: enough to balance workers by, and few elements for millions of images.
_RANGE = 500

_RUNNERS = ("DirectRunner", "FlinkRunner", "SparkRunner", "DataflowRunner", "PrismRunner")


def beam_pipeline_settings(runner: str, options: Sequence[str]) -> dict[str, Any]:
    """Returns the fields of TFDS's DownloadConfig that build with Beam.

    Args:
      runner: Name of the runner.
      options: Its flags.

    Raises:
      ConfigError: If Beam is not installed, or has no such runner or flag.
    """
    if importlib.util.find_spec("apache_beam") is None:
        raise ConfigError(
            "Apache Beam is not installed; pip install 'radimagenet-jax[beam]', or leave "
            "--beam_runner out to build in threads of this machine."
        )
    if runner not in _RUNNERS:
        raise ConfigError(f"there is no Beam runner {runner!r}; use {', '.join(_RUNNERS)}.")
    from apache_beam.options.pipeline_options import PipelineOptions

    parsed = PipelineOptions([f"--runner={runner}", *options])
    known = parsed.get_all_options()
    for option in options:
        name = option.removeprefix("--").partition("=")[0]
        if name not in known:
            raise ConfigError(f"Beam's {runner} has no option {name!r}; see its documentation.")
    return {"beam_runner": runner, "beam_options": parsed}


def reading_with_beam(built: Any, root: Path, split: str, count: int) -> Any:
    """Returns a PTransform whose collection holds the (key, example) of a split.

    Args:
      built: An `ImageBuilder` that has found its examples once.
      root: The folder of its manual downloads.
      split: One of its splits.
      count: Examples in it.
    """
    import apache_beam as beam

    ranges = [(start, min(start + _RANGE, count)) for start in range(0, count, _RANGE)]
    reader = _RangeReader(_name(built), root, split, built.left_out)
    # Each runner of a range would stay where the range was made without the reshuffle.
    return (
        f"{split}_ranges" >> beam.Create(ranges)
        | f"{split}_spread" >> beam.Reshuffle()
        | f"{split}_read" >> beam.FlatMap(reader)
    )


class _RangeReader:
    """Reads a range of a split's examples, on whichever machine it finds itself."""

    def __init__(self, name: str, root: Path, split: str, left_out: frozenset[str] | None):
        self._name, self._root, self._split, self._left_out = name, root, split, left_out

    def __call__(self, limits: tuple[int, int]) -> Iterator[tuple[str, dict[str, Any]]]:
        found = _found(self._name, str(self._root), self._left_out)
        examples = found[self._split]
        problems = Problems(self._root)
        for place in range(*limits):
            example = examples[place]
            features: Mapping[str, Any] = {}
            with problems.collecting():
                features = example.read()
            if features:
                yield example.key, example.named(features)
        problems.check()


def _name(built: Any) -> str:
    """The name by which the registry finds a builder."""
    config = built.builder_config
    return f"{built.name}/{config.name}" if config else built.name


@functools.lru_cache(maxsize=2)
def _found(name: str, root: str, left_out: frozenset[str] | None) -> Mapping[str, Sequence[Any]]:
    """Finds a data set's examples, once in each process."""
    found_by = builder(name)
    found_by.left_out = left_out
    problems = Problems(root)
    found = found_by.find_examples(Path(root), problems)
    problems.check()
    return found


@contextmanager
def beam_failures() -> Iterator[None]:
    """Turns what a runner makes of a worker's `DataError` back into one.

    A runner sends a worker's error as text, behind a traceback and before what was being run.
    """
    logger = logging.getLogger("apache_beam")
    level = logger.level
    logger.setLevel(logging.CRITICAL)  # it logs the traceback of what is told in a sentence here
    try:
        yield
    except Exception as error:
        text = str(error)
        if isinstance(error, DataError) or f"{DataError.__name__}: " in text:
            sentence = text.rpartition(f"{DataError.__name__}: ")[2].partition(" [while running")[0]
            raise DataError(sentence.strip()) from error
        raise
    finally:
        logger.setLevel(level)
