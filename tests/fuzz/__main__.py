"""Tries many inputs on a surface, and prints what became of them.

    python -m tests.fuzz --surface=dicom --inputs=1000 --seed=7
    python -m tests.fuzz --surface=all --inputs=100
    python -m tests.fuzz --surface=dicom --seed=7 --first=412 --inputs=1 --verbose

The exit code is 1 if an input ended in a traceback, a crash, a hang, too much memory, a wrong
acceptance, an unclear refusal, or left something behind.
"""

import argparse
import sys
import time
from collections import Counter

from rich.console import Console
from rich.table import Table

from tests.fuzz import harness

COLUMNS = (
    *("accepted", "refused", "trace", "crash", "hang", "memory", "wrong", "unclear", "left behind"),
)


def main() -> int:
    """Parses the command line; returns the exit code."""
    every = harness.known()
    parser = argparse.ArgumentParser(
        prog="python -m tests.fuzz",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--surface", default="all", choices=("all", *every), metavar="NAME", help=", ".join(every)
    )
    parser.add_argument("--inputs", type=int, default=100, metavar="N", help="how many a surface")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="of all draws")
    parser.add_argument(
        "--first", type=int, default=0, metavar="K", help="the first input's number"
    )
    parser.add_argument("--verbose", action="store_true", help="print each bad outcome whole")
    options = parser.parse_args()
    console = Console(width=None if sys.stdout.isatty() else 130)
    table = Table(title=f"seed {options.seed}", title_justify="left")
    for heading in ("surface", "inputs", *COLUMNS, "s", "MiB"):
        table.add_column(heading, justify="left" if heading == "surface" else "right")
    is_bad = False
    for name in every if options.surface == "all" else [options.surface]:
        began = time.monotonic()
        tally = harness.run(every[name], options.inputs, options.seed, first=options.first)
        counts = Counter(one.verdict for one in tally.outcomes)
        most = max((one.bytes for one in tally.outcomes), default=0)
        table.add_row(
            name,
            str(len(tally.outcomes)),
            *(str(counts[verdict]) if counts[verdict] else "-" for verdict in COLUMNS),
            f"{time.monotonic() - began:.0f}",
            f"{most / 2**20:.0f}",
        )
        for one in tally.bad if options.verbose else tally.bad[:10]:
            last = one.detail.strip() if options.verbose else one.detail.strip()[-300:]
            console.print(f"{name} {one.number}: {one.verdict}: {last}", markup=False)
        is_bad |= bool(tally.bad)
    console.print(table)
    return int(is_bad)


if __name__ == "__main__":
    sys.exit(main())
