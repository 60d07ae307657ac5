"""Turns a released weight file into the converted form: `python -m radimagenet_jax.convert`."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from radimagenet_jax import console
from radimagenet_jax.errors import ConfigError

_DESCRIPTION = """\
Read a weight file strictly, say what it is and what was found in it, and write it as a
folder with model.safetensors and contract.json, which loads faster and states its own
preprocessing. Nothing is written unless every tensor fits.
"""

_EPILOG = """\
examples:
  python -m radimagenet_jax.convert --weights=RadImageNet-ResNet50_notop.h5 --output=resnet50/
      converts; then config.init=resnet50/ or load_pretrained('resnet50/') uses it
  python -m radimagenet_jax.convert --weights=model.h5 --preprocessing=torch --output=mine/
      states the input of a file whose origin is another than its form suggests
  python -m radimagenet_jax.convert --weights=resnet50/ --verify
      prints a fingerprint of the features of a fixed picture, to compare with a colleague's

preprocessings (of RGB in 0..255):
  caffe_div255  (BGR - ImageNet mean) / 255, as the published scripts feed every network
  caffe         BGR - ImageNet mean, Keras' ImageNet ResNet50
  torch         (RGB / 255 - mean) / SD of ImageNet, Keras' ImageNet DenseNet121, torchvision
  tf            RGB / 127.5 - 1, Keras' ImageNet Inception networks

Without --preprocessing, the file's contract or checksum decides; else a Keras 2 file is taken
as RadImageNet's (caffe_div255), and one that Keras 3 wrote, or that has the name of
Keras Applications' own files, as ImageNet's; the command says which.
"""


def main(arguments: Sequence[str]) -> int:
    """Parses the command line, converts, and returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m radimagenet_jax.convert",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--weights", required=True, metavar="FILE", help="the weight file or converted folder"
    )
    parser.add_argument("--output", metavar="DIR", help="where the converted folder goes")
    parser.add_argument(
        "--arch",
        metavar="NAME",
        help="what the network must be, e.g. resnet50 or resnet50:v1; recognised by default",
    )
    parser.add_argument(
        "--preprocessing", metavar="NAME", help="the input that the weights expect (see below)"
    )
    parser.add_argument(
        "--verify",
        action="store_true",
        help="print the fingerprint, of the written folder if there is one",
    )
    options = parser.parse_args(arguments)
    if not options.output and not options.verify:
        raise ConfigError("nothing to do: add --output=DIR to convert, or --verify to compare.")

    from radimagenet_jax.weights import native, reading
    from radimagenet_jax.weights.fingerprint import fingerprint

    weights = reading.read(
        options.weights, architecture=options.arch, preprocessing=options.preprocessing
    )
    for line in weights.report.lines():
        console.console.print(line, markup=False)
    contract = weights.contract
    console.console.print(
        f"  input: {contract.preprocessing}, {contract.channel_order}; origin: {contract.origin}; "
        f"sha256 {contract.sha256}",
        markup=False,
    )
    if options.output:
        folder = Path(options.output)
        native.write(folder, weights.variables, contract)
        console.console.print(f"written to {folder}", markup=False)
        if options.verify:
            weights = reading.read(folder)
    if options.verify:
        print(f"fingerprint: {fingerprint(weights.variables, weights.contract)}")
    return 0


if __name__ == "__main__":
    console.run(main)
