"""Scores or features of images: `python -m radimagenet_jax.predict`."""

import argparse
import re
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from radimagenet_jax import command, console
from radimagenet_jax.data import inputs
from radimagenet_jax.data.features_file import read as read_features
from radimagenet_jax.errors import ConfigError, DataError
from radimagenet_jax.files import check_output, expanded

if TYPE_CHECKING:
    from radimagenet_jax.data.dicom import Window
    from radimagenet_jax.network import Network
    from radimagenet_jax.prediction.predictor import Predictor
    from radimagenet_jax.reports.provenance import Provenance
    from radimagenet_jax.statistics import operating_points

__all__ = ["main", "read_features"]

_EPILOG = """\
examples:
  python -m radimagenet_jax.predict --workdir=runs/covid \\
      --inputs=slices/ --output=scores/
      scores of a finished run's best epoch: scores/predictions.csv
  python -m radimagenet_jax.predict --workdir=runs/covid \\
      --inputs=new/labels.csv --output=scores/
      the images that a table names; with labels in it also evaluation.json
      and report.html, as of a test split
  python -m radimagenet_jax.predict --workdir=runs/covid \\
      --inputs=slices/ --output=scores/ --maps
      where the score comes from: scores/maps/maps.html, pictures and raw maps
  python -m radimagenet_jax.predict --weights=RadImageNet-ResNet50_notop.h5 \\
      --inputs='ct/*.dcm' --output=features/ --features
      features/features.npz: keys (N,), pooled (N, C), and their digest, sha256
  python -m radimagenet_jax.predict --weights=runs/covid/weights \\
      --inputs=slices/ --output=scores/
      a weight file or folder whose contract names the classes of its head

Images are PNG, JPEG, BMP, TIFF and DICOM, told by their content: a folder is
searched with its subfolders and zips, and each frame of a file with several is
an image (key: path#frame). A table is a CSV with a column filename and, where
you have them, label, patient, split, frame, window_center and window_width, as
for the data set image_csv. Images are read and shown as in training.

What cannot be scored is in errors.csv with the reason, and the exit code is
then 3. A command that was stopped goes on when it is given again.
"""
_IMAGE_SIZE = 224
_WINDOW = re.compile(r"(-?\d+(?:\.\d+)?),(\d+(?:\.\d+)?)")


def main(arguments: Sequence[str]) -> int:
    """Parses the command line and predicts; returns the exit code."""
    parser = _parser()
    options = parser.parse_args(arguments)
    given = command.network_of(options)
    if options.maps and options.features:
        raise ConfigError("--maps goes with scores, not with --features; give two commands.")
    output = expanded(options.output)
    _check_output(output)
    with console.console.status("looking for images ..."):
        found = inputs.find(
            options.inputs,
            split=options.split or "",
            leave_out=_own(options),
            flag="--inputs",
        )

    from radimagenet_jax.models import ops
    from radimagenet_jax.prediction import maps
    from radimagenet_jax.prediction.session import Session

    ops.keep_compiled_programs()
    if options.maps:
        maps.check(output)
    network, maps_of = _predictor(options, given)
    if options.window:
        network = replace(network, reading=inputs.Reading(_windows(options.window)))
    if network.reading.note:
        console.console.print(network.reading.note)
    facts = {"title": Path(options.inputs).name or options.inputs, "network": network.name}
    session = Session(
        network,
        found,
        command=parser.line(arguments),
        images=options.inputs,
        split=options.split or "",
        features=options.features,
        strict=options.strict,
        maps=None if maps_of is None else maps.Wanted(maps_of, network.class_names, facts),
    )
    return session.run(output)


def _parser() -> command.Parser:
    parser = command.Parser(
        "predict",
        "Score images with a trained run, or take a weight file's features of them.",
        _EPILOG,
    )
    parser.add_network(
        "a weight file or a converted folder; without classes of its own, for --features"
    )
    parser.add_argument(
        "--inputs",
        required=True,
        metavar="IMAGES",
        help="a folder, a file, a quoted pattern, or a table such as labels.csv",
    )
    parser.add_argument(
        "--split",
        choices=("train", "val", "test"),
        help="take only the rows of this split of a table",
    )
    parser.add_argument("--output", required=True, metavar="DIR", help="where the result goes")
    parser.add_argument(
        "--features", action="store_true", help="write pooled features instead of scores"
    )
    parser.add_argument(
        "--maps",
        metavar="CLASS",
        nargs="?",
        const="positive",
        help="write activation maps too, of the positive class or of the one that is named: where "
        "its score comes from, an overlay an image, and a page to leaf through",
    )
    parser.add_argument(
        "--image_size",
        type=int,
        metavar="PIXELS",
        help=f"side of the square input; the run's own, or {_IMAGE_SIZE} with --weights",
    )
    parser.add_argument(
        "--window",
        action="append",
        metavar="CENTER,WIDTH",
        help="grey values that DICOM images show, such as 40,80; given three times, the three "
        "channels; the training's own, or each file's, by default",
    )
    parser.add_argument(
        "--strict", action="store_true", help="score all images or, if one cannot be, none"
    )
    return parser


def _check_output(output: Path) -> None:
    check_output(output, "--output")
    for name in ("config.json", "study.csv"):
        if (output / name).is_file():
            raise ConfigError(
                f"--output={output} holds a run or a study ({name}), whose report would be "
                "overwritten; give another folder."
            )


def _own(options: argparse.Namespace) -> Path:
    """The folder in which images are none of the inputs: the results' own."""
    from radimagenet_jax.prediction.journal import FOLDER

    output, place = expanded(options.output), expanded(options.inputs)
    return output / FOLDER if output.resolve() == place.resolve() else output


def _windows(given: Sequence[str]) -> tuple["Window", ...]:
    from radimagenet_jax.data.dicom import Window

    matches = [_WINDOW.fullmatch(text.replace(" ", "")) for text in given]
    try:
        windows = tuple(Window(float(m[1]), float(m[2])) for m in matches if m)
    except DataError as error:
        raise ConfigError(f"--window={given[-1]}: {error}") from error
    if len(windows) < len(given) or len(windows) not in (1, 3):
        raise ConfigError(
            f"--window={' --window='.join(given)}: give one window, or three for the channels of "
            "a colour image, each as center,width such as 40,80."
        )
    return windows


def _no_classes(given: Path) -> ConfigError:
    return ConfigError(
        f"{given} has no classes to score, or does not state their names; add --features, or give "
        "a run with --workdir, or weights that state them, as `convert --labels=...` writes them."
    )


def _checked_size(size: int, model: str) -> int:
    """The side of the input, if the network can take it."""
    from radimagenet_jax import models
    from radimagenet_jax.training import fields

    entry = models.architecture(model)
    if size < entry.min_image_size:
        raise ConfigError(
            f"--image_size={size}: {entry.title} takes {entry.min_image_size} pixels at least."
        )
    problem = fields.FIELDS["image_size"].problem("image_size", size)
    if problem:
        raise ConfigError(f"{problem.replace('config.', '--', 1)}.")
    return size


def _predictor(options: argparse.Namespace, given: Path) -> tuple["Predictor", int | None]:
    """The network to apply, and the index of the class whose maps are asked for."""
    from radimagenet_jax.data.dicom import Window
    from radimagenet_jax.prediction.predictor import Predictor
    from radimagenet_jax.pretrained import load_pretrained
    from radimagenet_jax.training import state
    from radimagenet_jax.weights import run

    if options.workdir:
        run.check_finished(given)
    net = load_pretrained(given, preprocessing=options.preprocessing)
    if not options.workdir:
        for line in net.report.lines():
            console.console.print(line)
    contract, variables = net.contract, net.variables
    if contract.labels is None and not options.features:
        raise _no_classes(given)
    maps_of = net.class_index(options.maps) if options.maps else None
    size = net.image_size if options.image_size is None else options.image_size
    shown = inputs.Reading(tuple(Window(*window) for window in net.usage.windows), net.usage.unwrap)
    predictor = Predictor(
        str(given),
        partial(net.apply, maps_of=maps_of),
        _checked_size(size, contract.architecture),
        contract,
        state.digest(variables["params"], variables["batch_stats"]),
        _described(net, size, given if options.workdir else None),
        -1 if contract.labels is None else net.class_index("positive"),
        _points(options, given, net),
        _reading_of_run(given) if options.workdir else shown,
    )
    return predictor, maps_of


def _described(net: "Network", size: int, run: Path | None) -> "Provenance":
    """What the pages say of the network: its size, what is odd of its weights, of which run."""
    from radimagenet_jax.reports import provenance

    of_network = provenance.of_network(net.model, net.contract.architecture, size)
    of_run = {} if run is None else provenance.of_run(run)
    return {**of_network, **of_run, "weights_remarks": [*net.report.notes, *net.report.findings]}


def _points(
    options: argparse.Namespace, given: Path, net: "Network"
) -> "list[operating_points.OperatingPoint]":
    """The operating points that were fixed before: by a run's validation scores, or as stated."""
    from radimagenet_jax.prediction import evaluation
    from radimagenet_jax.statistics import operating_points

    names, threshold = net.contract.labels, net.usage.threshold
    if names is None:
        return []
    if options.workdir:
        return evaluation.fixed_points(given, names, net.class_index("positive"))
    points = [operating_points.OperatingPoint(operating_points.HALF, 0.5)]
    if threshold is not None:
        points.append(operating_points.OperatingPoint(operating_points.YOUDEN, threshold))
    return points


def _reading_of_run(folder: Path) -> inputs.Reading:
    """How a run's data set shows DICOM files, and what is to be said of it."""
    from radimagenet_jax import own_files
    from radimagenet_jax.data import registry

    form = {"dataset": {"name": str, "fold": int, "data_dir": str}}
    remedy = "give a run's --workdir"
    dataset = own_files.read_json(folder / "config.json", form, remedy, ConfigError)["dataset"]
    name = registry.with_fold(dataset["name"], dataset["fold"])
    return registry.reading(name, dataset["data_dir"])


if __name__ == "__main__":
    command.run(main)
