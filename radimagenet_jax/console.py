"""What every part of the project says to a person, and how it fails."""

from rich.console import Console

# Everything for people goes to standard error, so that standard output stays
# free for results (JSON, paths) that another program may read.
console = Console(stderr=True, highlight=False, soft_wrap=True)


def warn(message: str) -> None:
    """Prints one warning sentence."""
    console.print("warning:", style="bold yellow", end=" ")
    console.print(message, markup=False)


def fail(message: str) -> None:
    """Prints one error sentence, in every process of a run."""
    console.quiet = False
    console.print("error:", style="bold red", end=" ")
    console.print(message, markup=False)
