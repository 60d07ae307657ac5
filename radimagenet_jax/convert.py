"""Turns weights from one form into another: `python -m radimagenet_jax.convert`."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from radimagenet_jax import command, console
from radimagenet_jax.errors import ConfigError
from radimagenet_jax.files import check_output, expanded

if TYPE_CHECKING:
    from radimagenet_jax.weights.contract import Contract
    from radimagenet_jax.weights.loaded import Weights

_DESCRIPTION = """\
Read a weight file strictly, say what it is and what was found in it, and write it as a
folder with model.safetensors and contract.json, which states its own preprocessing, or as
a file for Keras. Nothing is written unless every tensor fits.

Read are Keras files ('.h5', '.weights.h5', '.keras'), PyTorch state dicts ('.pt', '.pth'),
safetensors, converted folders, and the working directories of runs of ours. They are told
apart by their content; no code in them is ever run.
"""

_EPILOG = """\
examples:
  python -m radimagenet_jax.convert --weights=RadImageNet-ResNet50_notop.h5 --output=resnet50/
      converts; then config.init=resnet50/ or load_pretrained('resnet50/') uses it
  python -m radimagenet_jax.convert --weights=model.h5 --preprocessing=torch --output=mine/
      states the input of a file whose origin is another than its form suggests
  python -m radimagenet_jax.convert --weights=m.h5 --preprocessing=tf --labels=no,yes --output=m/
      keeps the head of a user's network, whose classes no file of Keras or PyTorch names
  python -m radimagenet_jax.convert --weights=runs/covid --to=keras_h5 --output=covid.h5
      a fine-tuned network for Keras: build the base, Dropout and Dense, then load_weights
  python -m radimagenet_jax.convert --weights=resnet50/ --verify
      prints a fingerprint of the features of a fixed picture, to compare with a colleague's

preprocessings (of RGB in 0..255):
  caffe_div255  (BGR - ImageNet mean) / 255, as the published scripts feed every network
  caffe         BGR - ImageNet mean, Keras' ImageNet ResNet50
  torch         (RGB / 255 - mean) / SD of ImageNet, Keras' ImageNet DenseNet121, torchvision
  tf            RGB / 127.5 - 1, Keras' ImageNet Inception networks

Without --preprocessing, the file's contract, its checksum, or signs that only RadImageNet's files
have decide, and the command says which. Of any other file the input has to be said.
"""


def main(arguments: Sequence[str]) -> int:
    """Parses the command line, converts, and returns the exit code."""
    parser = command.Parser(
        "convert",
        _DESCRIPTION,
        _EPILOG,
    )
    parser.add_argument(
        "--weights",
        required=True,
        metavar="FILE",
        help="the weight file, converted folder, working directory of a run, or hf://OWNER/NAME",
    )
    parser.add_argument(
        "--output", metavar="DIR", help="where the converted folder, or the Keras file, goes"
    )
    parser.add_argument(
        "--to",
        choices=("native", "keras_h5"),
        default="native",
        help="the form to write: our folder (the default) or a file for Keras",
    )
    parser.add_argument(
        "--arch",
        metavar="NAME",
        help="what the network must be, e.g. resnet50 or resnet50:v1; recognised by default",
    )
    parser.add_argument(
        "--preprocessing", metavar="NAME", help="the input that the weights expect (see below)"
    )
    parser.add_argument(
        "--labels",
        metavar="NAME,NAME",
        help="the classes of the file's head, in its order, where the file does not name them",
    )
    parser.add_argument(
        "--verify",
        action="store_true",
        help="print the fingerprint, of the written folder if there is one",
    )
    options = parser.parse_args(arguments)
    if not options.output and not options.verify:
        raise ConfigError("nothing to do: add --output=DIR to convert, or --verify to compare.")
    if options.output:
        check_output(expanded(options.output).absolute().parent, "the folder of --output")

    from radimagenet_jax.weights import keras_export, native, reading
    from radimagenet_jax.weights.fingerprint import fingerprint

    weights = reading.read(
        options.weights, architecture=options.arch, preprocessing=options.preprocessing
    )
    variables, contract = _headed(weights, options.labels)
    first, *further = weights.report.lines()
    if weights.config is not None:
        classes = ", ".join(contract.labels or ())
        first = f"{options.weights}: a run's best {contract.architecture}, classes {classes}"
    for line in (first, *further):
        console.console.print(line)
    console.console.print(
        f"  input: {contract.preprocessing}, {contract.channel_order}; origin: {contract.origin}; "
        f"sha256 {contract.sha256}",
    )
    if weights.num_classes and contract.labels is None and options.output:
        console.console.print(
            "  the head is left out of what is written, since nobody names its classes; say them "
            "with --labels=NAME,NAME",
        )
    if options.output:
        output = expanded(options.output)
        writer = {"native": native, "keras_h5": keras_export}[options.to]
        writer.write(output, variables, contract)
        console.console.print(f"written to {output}")
        if options.verify:
            variables = reading.read(output).variables
    if options.verify:
        print(f"fingerprint: {fingerprint(variables, contract, **weights.options)}")
    return 0


def _headed(weights: "Weights", labels: str | None) -> tuple[Mapping[str, Any], "Contract"]:
    """The variables and the contract to write: with a head only if somebody names its classes.

    Raises:
      ConfigError: If the classes are named already, or are others than the head's in number.
    """
    contract = weights.contract
    if labels is not None:
        names = tuple(name.strip() for name in labels.split(","))
        if contract.labels is not None or weights.num_classes is None:
            has = "names its classes itself" if contract.labels else "has no head"
            raise ConfigError(f"{weights.report.file} {has}; leave --labels out.")
        if len(names) != weights.num_classes:
            raise ConfigError(
                f"--labels names {len(names)} classes, but the head of {weights.report.file} has "
                f"{weights.num_classes}; name each, in the order of its outputs."
            )
        contract = replace(contract, labels=names)
    if contract.labels is not None:
        return weights.variables, contract
    params = {name: leaf for name, leaf in weights.variables["params"].items() if name != "head"}
    return {**weights.variables, "params": params}, contract


if __name__ == "__main__":
    command.run(main)
