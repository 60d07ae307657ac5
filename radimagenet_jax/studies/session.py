"""What the study command does: compute, merge, preview, report."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from ml_collections import ConfigDict
from rich.table import Table

from radimagenet_jax.console import console, warn
from radimagenet_jax.errors import ConfigError
from radimagenet_jax.files import expanded
from radimagenet_jax.studies import embeddings, engine, plan
from radimagenet_jax.studies.ledger import Ledger
from radimagenet_jax.wording import counted


def run(config: ConfigDict, workdir: str, shard: str, command: Sequence[str] = ()) -> int:
    """Computes a study, or a shard of it, and writes its table and report.

    Args:
      config: The study's, checked.
      workdir: Its folder.
      shard: 'i/n', or '' for all of it.
      command: The command line, for the page.

    Returns:
      The exit code: 0 when all runs of the study (or the shard) are there and none has failed.
    """
    groups = plan.groups(config)
    own = plan.shard(groups, shard)
    plan.check_structures(config)
    plan.check_weights(config)
    embeddings.check(config)
    ledger = Ledger(workdir, config)
    console.print(
        f"{sum(len(g.runs) for g in own)} runs in {len(own)} groups"
        + (f", shard {shard} of {len(groups)} groups" if shard else "")
    )
    engine.compute(config, ledger, own, command)
    if shard:
        ledger.write_table(plan.runs(config))
        return _close(ledger, own)
    return _finish(config, ledger)


def merge(config: ConfigDict, workdir: str) -> int:
    """Writes the table and the report of what all shards have computed."""
    return _finish(config, Ledger(workdir, config))


def preview(config: ConfigDict, workdir: str, shard: str) -> int:
    """Prints what a study would compute, and what that takes."""
    from radimagenet_jax.studies import estimate

    plan.check_structures(config)
    plan.check_weights(config)
    embeddings.check(config)
    estimate.show(config, plan.shard(plan.groups(config), shard), expanded(workdir))
    return 0


def report(workdir: str) -> int:
    """Rebuilds the report from a study's files."""
    path = expanded(workdir)
    if not (path / "study.csv").is_file():
        raise ConfigError(f"{path} holds no study: it has no study.csv; give a study's --workdir.")
    _write_report(path)
    return 0


def _finish(config: ConfigDict, ledger: Ledger) -> int:
    ledger.write_table(plan.runs(config))
    code = _close(ledger, plan.groups(config))
    _write_report(ledger.path)
    return code


def _close(ledger: Ledger, groups: tuple[plan.Group, ...]) -> int:
    """Says what is there, what failed and what is missing."""
    records = [ledger.group(group) for group in groups]
    reasons = Counter(
        reason for record in records if record is not None for reason in record["failed"].values()
    )
    missing = sum(record is None for record in records)
    table = Table(title=f"study in {ledger.path}", title_justify="left")
    for heading in ("groups", "done", "failed", "missing"):
        table.add_column(heading, justify="right")
    done = sum(record is not None and record["status"] == "done" for record in records)
    table.add_row(*map(str, (len(groups), done, len(groups) - done - missing, missing)))
    console.print(table)
    meant = {
        group.runs[0].task: record["positive"]
        for group, record in zip(groups, records, strict=True)
        if record is not None and "positive" in record
    }
    for task, positive in meant.items():
        console.say(f"{task}: AUROC is of the class {positive!r}")
    for reason, count in reasons.items():
        warn(f"{counted(count, 'run')} failed: {reason}")
    if missing:
        are = counted(missing, "group is", "groups are")
        warn(f"{are} not computed yet; the table has the others.")
    return 1 if reasons or missing else 0


def _write_report(workdir: Path) -> None:
    # The report's libraries take seconds to import, which only the end of a study should pay.
    from radimagenet_jax.reports import study_report

    # The page is the result, so it alone goes to standard output.
    print(study_report.write(workdir))
