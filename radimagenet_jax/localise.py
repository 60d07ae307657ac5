"""Whether a run's network looks at the lesion: `python -m radimagenet_jax.localise`."""

from collections.abc import Sequence

from radimagenet_jax import command
from radimagenet_jax.files import check_output, expanded

_EPILOG = """\
The data set that the run was trained on needs masks of lesions: busi, ddti, or
image_csv with a column mask. Activation maps of the run's best network are
thresholded and compared with the lesions: Dice, IoU, and whether the highest
place lies in the lesion. The threshold is chosen on the validation images
alone. A disc in the middle and random maps go through the same steps: a Dice
says nothing without them. How it is measured is on the page.

It writes into DIR: localisation.html, localisation.json, sweep.csv (every
threshold) and images.csv (every image). They show patients' images, so a new
folder gets a .gitignore that keeps it out of repositories.

examples:
  python -m radimagenet_jax.localise --workdir=runs/breast
  python -m radimagenet_jax.localise --workdir=runs/radimagenet \\
      --against=runs/imagenet --output=localisation/breast
      two runs of one data set and fold, compared image by image
"""


def main(arguments: Sequence[str]) -> int:
    """Parses the command line and localises; returns the exit code."""
    parser = command.Parser(
        "localise",
        "Measure whether a trained network looks at the lesion.",
        _EPILOG,
    )
    parser.add_argument(
        "--workdir", required=True, metavar="RUN", help="working directory of a finished run"
    )
    parser.add_argument(
        "--against", metavar="RUN", help="another run on the same data, compared image by image"
    )
    parser.add_argument(
        "--of",
        default="",
        metavar="CLASS",
        help="class whose maps are judged (default: the run's positive class)",
    )
    parser.add_argument(
        "--data_dir",
        default="",
        metavar="DIR",
        help="where prepared data sets live (default: where the run had them)",
    )
    parser.add_argument(
        "--output", metavar="DIR", help="where the result goes (default: RUN/localisation)"
    )
    options = parser.parse_args(arguments)
    workdir = expanded(options.workdir)
    output = expanded(options.output) if options.output else workdir / "localisation"
    check_output(output, "--output")

    from radimagenet_jax.localisation.localising import localise

    page = localise(
        workdir,
        expanded(options.against) if options.against else None,
        options.of,
        options.data_dir,
        output,
        parser.line(arguments),
    )
    # The page is the result, so it alone goes to standard output.
    print(page)
    return 0


if __name__ == "__main__":
    command.run(main)
