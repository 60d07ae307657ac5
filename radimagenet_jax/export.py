"""Hands a network on as a file for other programs: `python -m radimagenet_jax.export`."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from radimagenet_jax import command, console
from radimagenet_jax.errors import ConfigError
from radimagenet_jax.files import check_output, expanded

if TYPE_CHECKING:
    import numpy as np

    from radimagenet_jax.exports.comparison import Agreement
    from radimagenet_jax.exports.source import Source

_DESCRIPTION = """\
Write a network as one file that programs without this package run: uint8 images
in, probabilities of the classes and pooled features out, the preprocessing
inside, any number of images at a time. The file is read back and compared with
the network before it is kept: one that differs by more than 1e-4 is removed.
"""

_EPILOG = """\
examples:
  python -m radimagenet_jax.export --workdir=runs/covid --to=onnx \\
      --output=covid.onnx
      the best network of a finished run, for ONNX Runtime and its like
  python -m radimagenet_jax.export --workdir=runs/covid --to=stablehlo \\
      --output=covid.hlo
      for JAX alone, on CPU, NVIDIA GPU and TPU: jax.export.deserialize reads it
  python -m radimagenet_jax.export --workdir=runs/covid --to=keras \\
      --output=covid.keras
      a whole model for keras.saving.load_model; a name in '.h5' gives weights
      for a model of your own, as `convert --to=keras_h5` does
  python -m radimagenet_jax.export --weights=RadImageNet-ResNet50_notop.h5 \\
      --to=onnx --output=features.onnx --images=slices/
      features alone, since that file has no head; compared on your own images

The file takes images (N, S, S, 3), uint8, RGB, a grey image three times. S is
the run's image size, or --image_size; resize by nearest neighbour, as in
training. It computes in float32. With it travel the names of the classes, the
contract of the weights, and the notice that this is no medical device. How to
load each form: radimagenet_jax/exports/README.md.

--to=onnx needs the extra 'onnx', a '.keras' file the extra 'keras':
  pip install 'radimagenet-jax[onnx,keras]'
"""
_IMAGE_SIZE = 224
_LARGEST = 4096


def main(arguments: Sequence[str]) -> int:
    """Parses the command line, exports, and returns the exit code."""
    parser = command.Parser("export", _DESCRIPTION, _EPILOG)
    parser.add_network("a weight file or a converted folder")
    parser.add_argument(
        "--to", required=True, choices=("onnx", "stablehlo", "keras"), help="the form to write"
    )
    parser.add_argument("--output", required=True, metavar="PATH", help="the file to write")
    parser.add_argument(
        "--image_size",
        type=int,
        metavar="PIXELS",
        help=f"side of the square images; the run's own, or {_IMAGE_SIZE} with --weights",
    )
    parser.add_argument(
        "--images", metavar="DIR", help="compare on ten images from here, not on drawn ones"
    )
    options = parser.parse_args(arguments)
    given = command.network_of(options)
    output = expanded(options.output)
    if output.exists():
        raise ConfigError(f"--output={output} exists already; remove it, or give another name.")
    check_output(output.absolute().parent, "the folder of --output")

    from radimagenet_jax.exports import pictures
    from radimagenet_jax.models import ops
    from radimagenet_jax.weights import run

    ops.keep_compiled_programs()
    if options.workdir:
        run.check_finished(given)
    source = _source(given, options.image_size, options.preprocessing)
    images = (
        pictures.read(options.images, source.image_size)
        if options.images
        else pictures.drawn(source.image_size)
    )
    agreement = _write(options.to, output, source, images)
    megabytes = output.stat().st_size / 1e6
    console.console.print(f"written to {output}: {megabytes:.0f} MB")
    if agreement is not None:
        console.console.print(f"  {agreement}")
    return 0


def _source(path: Path, image_size: int | None, preprocessing: str | None) -> "Source":
    """Loads the network, and says what was found."""
    from radimagenet_jax import models
    from radimagenet_jax.exports.source import Source
    from radimagenet_jax.pretrained import load_pretrained

    network = load_pretrained(path, preprocessing=preprocessing)
    for line in network.report.lines():
        console.console.print(line)
    contract = network.contract
    if contract.labels is None:
        why = "it has no head"
        if network.num_classes:
            why = "nobody names the classes of its head, which `convert --labels=NAME,NAME` does"
        console.console.print(f"  only features are exported: {why}")
    size = network.image_size if image_size is None else image_size
    entry = models.architecture(contract.architecture)
    if not entry.min_image_size <= size <= _LARGEST:
        raise ConfigError(
            f"--image_size={size}: {entry.title} takes from {entry.min_image_size} to {_LARGEST} "
            "pixels here."
        )
    model = network.model.clone(dtype="float32")
    return Source(model, network.variables, contract, size, network.usage)


def _write(form: str, output: Path, source: "Source", images: "np.ndarray") -> "Agreement | None":
    if form == "onnx":
        from radimagenet_jax.exports import onnx

        return onnx.write(output, source, images)
    if form == "stablehlo":
        from radimagenet_jax.exports import stablehlo

        return stablehlo.write(output, source, images)
    from radimagenet_jax.exports import keras

    return keras.write(output, source, images)


if __name__ == "__main__":
    command.run(main)
