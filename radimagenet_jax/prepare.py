"""Builds a data set: `python -m radimagenet_jax.prepare --dataset=covid_ct`."""

import argparse
from collections.abc import Sequence

from radimagenet_jax import command, console
from radimagenet_jax.data import datasets, preparation, registry
from radimagenet_jax.errors import ConfigError

_EPILOG = """\
data sets:
{datasets}

What has to be downloaded by hand belongs into <data_dir>/downloads/manual/<data set>/; where it is
missing, the command says what to get, from where and on which terms. Zips are read in place, and
every image is decoded once to verify it before anything is written; a run that was stopped goes on
where it was. The result is a standard TensorFlow Datasets folder
(array_record), although TensorFlow is not needed; training reads it, and builds it by
itself on first use.

examples:
  python -m radimagenet_jax.prepare --dataset=phantom
  python -m radimagenet_jax.prepare --dataset=covid_ct --data_dir=/data/tfds
  python -m radimagenet_jax.prepare --dataset=covid_ct/covid19_csv --workers=8
  python -m radimagenet_jax.prepare --dataset=radimagenet --beam_runner=DirectRunner
  python -m radimagenet_jax.prepare --dataset=radimagenet --decoded=224
"""

_CLASSES_SHOWN = 20
_LARGEST_IMAGE = 8192  # of config.image_size


def main(arguments: Sequence[str]) -> int:
    """Parses the command line and prepares the data set; returns the exit code."""
    options = _parser().parse_args(arguments)
    if options.workers is not None and options.workers < 1:
        raise ConfigError(f"--workers is {options.workers}; give 1 or more threads.")
    if options.decoded is not None and not 1 <= options.decoded <= _LARGEST_IMAGE:
        raise ConfigError(
            f"--decoded is {options.decoded}; give a run's config.image_size, such as 224."
        )
    already = registry.is_prepared(options.dataset, options.data_dir)
    if options.beam_options and not options.beam_runner:
        raise ConfigError("--beam_options are of no use without --beam_runner; give it too.")
    built = preparation.prepare(
        options.dataset,
        options.data_dir,
        workers=options.workers,
        beam_runner=options.beam_runner,
        beam_options=[f"--{option}" for option in options.beam_options],
        skip_unreadable=options.skip_unreadable,
    )
    say = console.console.print
    if already:
        say(f"{options.dataset} is prepared already.")
        say(f"terms: {built.TERMS}")
    classes = built.info.features["label"].names
    for split, info in built.info.splits.items():
        say(f"{split:>6}: {info.num_examples:,} images")
    shown = ", ".join(classes[:_CLASSES_SHOWN])
    more = f" ... ({len(classes)} in all)" if len(classes) > _CLASSES_SHOWN else ""
    say(f"classes: {shown}{more}")
    for note in built.info.metadata.get("notes", []) if built.info.metadata else []:
        say(f"note: {note}")
    if options.decoded is not None:
        datasets.load(options.dataset, options.data_dir, options.decoded, streaming="decoded")
        say(f"decoded: {options.decoded} x {options.decoded} pixels, every split")
    # The folder is the result, so it alone goes to standard output.
    print(built.data_dir)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = command.Parser(
        "prepare",
        "Verify a data set's source files and write them in the form that is read.",
        _EPILOG.format(datasets=registry.listing()),
    )
    parser.add_argument(
        "--dataset",
        required=True,
        metavar="NAME[/CONFIG]",
        help="a data set of the list below, with a configuration where it has several",
    )
    parser.add_data_dir()
    parser.add_argument(
        "--workers",
        type=int,
        metavar="N",
        help="threads that read and verify images (default: one for each CPU)",
    )
    parser.add_argument(
        "--decoded",
        type=int,
        metavar="SIZE",
        help="also keep the pixels of all images, as a run with this config.image_size takes them: "
        "SIZE x SIZE bytes for each grey image (1.35 million of 224 pixels: 68 GB), three times as "
        "many where there is colour. Reading is then a copy, for chips that train faster than CPUs "
        "decode; the folder is decoded_SIZE beside the records, and may be deleted",
    )
    parser.add_argument(
        "--skip_unreadable",
        action="store_true",
        help="leave out images that cannot be read; the data set's notes, and so every report, "
        "say how many and which",
    )
    parser.add_argument(
        "--beam_runner",
        metavar="NAME",
        help="build with Apache Beam (the extra 'beam') on this runner: DirectRunner, FlinkRunner, "
        "SparkRunner, DataflowRunner",
    )
    parser.add_argument(
        "--beam_options",
        nargs="+",
        default=[],
        metavar="KEY=V",
        help="the runner's own flags without their dashes, such as direct_num_workers=2 "
        "direct_running_mode=multi_processing",
    )
    return parser


if __name__ == "__main__":
    command.run(main)
