"""Runs a study, many trainings in one: `python -m radimagenet_jax.study`."""

from collections.abc import Sequence

from radimagenet_jax import command

_EPILOG = """\
A study trains every network from every initialisation, with every structure and learning rate, in
every fold and for every seed that its config page names: by default the published 24 settings. Runs
that share frozen weights are computed together. It writes into DIR:
  study.csv       a row a run; predictions/ has the scores of each, histories/ its epochs
  groups/         what each group of runs took, and what is to be known of its data
  report.html     the tables, figures and tests

examples:
  python -m radimagenet_jax.study --config=configs/study_breast.py:smoke --workdir=studies/smoke
      minutes: two shallow networks on small images
  python -m radimagenet_jax.study --config=configs/study_breast.py --workdir=studies/breast \\
      --config.study.inits="('rin=RadImageNet-{released}_notop.h5','scratch')"
      every network needs its own weight file: {released} is ResNet50, DenseNet121, InceptionV3
      or IRV2, {model} the name in configs
  python -m radimagenet_jax.study --config=configs/study_breast.py --workdir=studies/breast \\
      --config.study.features="('medsiglip=embeddings.npz',)"
      heads on any other model's embeddings of the same images beside them: keys (N,) and
      pooled (N, C), as predict --features writes them
  python -m radimagenet_jax.study --config=configs/study_all.py --workdir=/shared/all --shard=2/8
      the third of eight parts, as a Slurm array or several machines on a shared folder start it;
      --merge on the same folder then makes the one table and report
  python -m radimagenet_jax.study --config=configs/study_breast.py --workdir=DIR --dry_run
      lists runs, groups and memory, and trains nothing

The same command on the same --workdir goes on where it was stopped or killed: only the group that
ran is computed again. A run or a group that fails is written down with its reason, and the others
go on; the exit code is then 1.
"""


def main(arguments: Sequence[str]) -> int:
    """Parses the command line and runs the study; returns the exit code."""
    parser = command.Parser(
        "study",
        "Compare initialisations over networks, structures, learning rates and folds.",
        _EPILOG,
    )
    parser.add_config(
        "a study's page: study_breast, study_breast:smoke, or the path of one", required=False
    )
    parser.add_argument(
        "--workdir", required=True, metavar="DIR", help="where the study is kept, and resumed from"
    )
    parser.add_argument(
        "--shard", default="", metavar="i/n", help="compute part i of n only, i from 0"
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument(
        "--merge", action="store_true", help="compute nothing: join what the shards have computed"
    )
    what.add_argument(
        "--dry_run", action="store_true", help="list runs, groups, memory and time; train nothing"
    )
    what.add_argument(
        "--report_only", action="store_true", help="rebuild the report from the files in DIR"
    )
    parser.add_fields("--config.epochs=10 (any number of times)")
    options, rest = parser.split_fields(arguments)
    if options.config is None and not options.report_only:
        parser.error("--config is needed, except with --report_only")

    # Imported late, so that --help and a mistyped flag answer at once.
    from radimagenet_jax.studies import plan, session, unread
    from radimagenet_jax.training import config as config_pages
    from radimagenet_jax.training import determinism

    if options.report_only:
        return session.report(options.workdir)
    config = config_pages.load(options.config, rest)
    plan.validate(config)
    unread.check(config, rest)
    if options.dry_run:
        return session.preview(config, options.workdir, options.shard)
    if options.merge:
        return session.merge(config, options.workdir)
    # Before JAX looks at the devices: afterwards XLA hears nothing.
    determinism.ask(config.deterministic, options.workdir)
    return session.run(config, options.workdir, options.shard, parser.line(arguments))


if __name__ == "__main__":
    command.run(main)
