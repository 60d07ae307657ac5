"""One localisation from top to bottom."""

from collections.abc import Sequence
from pathlib import Path

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from radimagenet_jax.console import console
from radimagenet_jax.localisation import measure, outputs, runs
from radimagenet_jax.models import ops
from radimagenet_jax.reports import localisation_page


def localise(
    workdir: Path,
    against: Path | None,
    of: str,
    data_dir: str,
    output: Path,
    command: Sequence[str],
) -> Path:
    """Measures, prints the figures and writes the files.

    Args:
      workdir: The run.
      against: The run that it is compared with, or None.
      of: The class whose maps are judged; '' for the positive class.
      data_dir: The TFDS data directory; '' for the runs' own.
      output: Where the result goes.
      command: The command line.

    Returns:
      The page.

    Raises:
      UserError: For everything that the user can mend; nothing has been written then.
    """
    ops.keep_compiled_programs()
    run = runs.opened(workdir, of, data_dir)
    other = None
    if against is not None:
        # The same class, whatever the other run calls positive.
        other = runs.opened(against, run.of, data_dir)
        runs.check_same(run, other)
    bar = Progress(
        TextColumn("maps and overlaps"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("left"),
        console=console,
        transient=True,
    )
    with bar:
        task = bar.add_task("maps and overlaps", total=measure.steps(run, other))
        measured = measure.measure(run, other, lambda count: bar.advance(task, count))
    page = outputs.write(output, run, other, measured, command)
    _show(run, measured)
    return page


def _show(run: runs.Run, measured: measure.Measured) -> None:
    """Prints the table and what it says in a sentence."""
    compared = outputs.compared(measured)
    patients = run.lesions["test"].patients
    table = Table(
        title=f"{len(patients):,} test images with a lesion, maps of {run.of}",
        title_justify="left",
    )
    table.add_column("")
    for heading in ("Dice", "95 % interval", "IoU", "points at lesion"):
        table.add_column(heading, justify="right")
    for row in localisation_page.rows(compared, patients):
        dice = row["dice"]
        table.add_row(
            row["title"],
            f"{dice.value:.3f}",
            "-" if dice.low is None else f"{dice.low:.3f} to {dice.high:.3f}",
            f"{row['iou'].value:.3f}",
            f"{100 * row['points'].value:.0f} %",
        )
    console.print(table)
    for note in outputs.notes(run, measured):
        console.print(note)
    console.print(localisation_page.sentence(compared, patients))
    if compared.against:
        console.print(localisation_page.comparison(compared))
