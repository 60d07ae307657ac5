"""What there is to run: `python -m radimagenet_jax`, and the console scripts `radimagenet-...`."""

import importlib
import sys
from pathlib import Path

from radimagenet_jax import command

# Name of the command: its module, and what it does.
COMMANDS = {
    "train": ("main", "fine-tune a network on a data set"),
    "study": ("study", "compare networks, weights and structures over folds"),
    "predict": ("predict", "score images, take their features, or map what was looked at"),
    "localise": ("localise", "measure whether maps lie on the lesions"),
    "export": ("export", "hand a network on: ONNX, StableHLO, Keras"),
    "convert": ("convert", "bring a weight file into this package's form"),
    "prepare": ("prepare", "build a data set"),
    "audit": ("audit", "look for duplicates and leaks in a data set"),
    "aot": ("aot", "compile for a TPU that is not there, and see whether it fits"),
}


def main() -> None:
    """Runs a command by its name, or lists all."""
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    if name in COMMANDS:
        del sys.argv[1]
        _run(name)
    lines = (f"  {each:<9} {told}" for each, (_, told) in COMMANDS.items())
    text = "\n".join([
        "usage: python -m radimagenet_jax COMMAND [FLAGS]     (or: radimagenet-COMMAND)\n",
        *lines,
        "\nEach explains itself with --help. A first run, with nothing to download:",
        "  python -m radimagenet_jax train --config=configs/quickstart.py --workdir=runs/first",
    ])  # fmt: skip
    if name in ("", "-h", "--help"):
        print(text)
        sys.exit(0)
    print(f"There is no command {name!r}.\n\n{text}", file=sys.stderr)
    sys.exit(2)


def script() -> None:
    """Runs the command that a console script is called after, such as `radimagenet-predict`."""
    _run(Path(sys.argv[0]).stem.removeprefix("radimagenet-"))


def _run(name: str) -> None:
    module, _ = COMMANDS[name]
    command.run(importlib.import_module(f"radimagenet_jax.{module}").main)


if __name__ == "__main__":
    main()
