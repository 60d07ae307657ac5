"""Trains a network on a data set: `python -m radimagenet_jax.main --config=configs/covid.py`."""

from collections.abc import Sequence

from radimagenet_jax import command

_EPILOG = """\
examples:
  python -m radimagenet_jax.main --config=configs/quickstart.py --workdir=runs/quickstart
      phantoms, nothing to download: minutes on a laptop
  python -m radimagenet_jax.main --config=configs/covid.py:smoke --workdir=runs/smoke
      the config's smoke argument shrinks it to seconds
  python -m radimagenet_jax.main --config=configs/covid.py --workdir=runs/covid \\
      --config.init=RadImageNet-ResNet50_notop.h5 --config.structure=unfreezetop10 \\
      --config.optimizer.learning_rate=1e-3
      every field of the config can be set; configs/base.py explains each

The same command on the same --workdir resumes a run that was stopped or killed, and leaves a
finished one alone. SIGTERM saves a checkpoint and exits with code 143.
"""


def main(arguments: Sequence[str]) -> int:
    """Parses the command line and runs the training; returns the exit code."""
    parser = command.Parser(
        "main",
        "Fine-tune a network on a radiology data set and report its AUROC.",
        _EPILOG,
    )
    parser.add_config(
        "a config page: covid, covid:smoke, or the path of one, such as configs/covid.py"
    )
    parser.add_argument(
        "--workdir", required=True, metavar="DIR", help="where the run is kept, and resumed from"
    )
    parser.add_fields("--config.seed=1 (any number of times)")
    together = parser.add_argument_group(
        "several processes", "found by themselves on TPU pods, Slurm and Open MPI"
    )
    together.add_argument("--coordinator", metavar="HOST:PORT", help="where process 0 listens")
    together.add_argument("--processes", type=int, metavar="N", help="how many there are")
    together.add_argument("--process_id", type=int, metavar="I", help="which one this is, from 0")
    options, rest = parser.split_fields(arguments)

    # Imported late, so that --help and a mistyped flag answer at once.
    from radimagenet_jax import train
    from radimagenet_jax.training import beginning, determinism, distributed
    from radimagenet_jax.training import config as config_pages

    config = config_pages.load(options.config, rest)
    # Before JAX looks at the devices: afterwards XLA hears nothing and nobody can join.
    determinism.ask(bool(config.get("deterministic", True)), options.workdir)
    distributed.start(options.coordinator, options.processes, options.process_id)
    beginning.settle(config, rest, options.workdir)
    config_pages.validate(config)
    return train.train(config, options.workdir, command=parser.line(arguments))


if __name__ == "__main__":
    command.run(main)
