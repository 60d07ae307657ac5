"""The tables of fields in configs/README.md, from the pages that hold them and what is checked.

    python -m tests.config_table

writes them anew: the name, default and comment of each field as `configs/base.py` and
`configs/study_base.py` have them, and what it may be as `training/fields.py` and `studies/plan.py`
state it.
"""

import re
from collections.abc import Mapping
from pathlib import Path

from radimagenet_jax.studies import plan
from radimagenet_jax.training import fields

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
README = CONFIGS / "README.md"
HEAD = "| field | default | may be | what it means |\n|---|---|---|---|\n"
# Defaults that the line of a field does not show.
SHOWN = {"PUBLISHED_SETTINGS": "the published six", "tasks": "the page's", "task": "the page's"}
# Rules as cells.
SHORTER = {
    r"^(must not be negative: |must be |takes )": "",
    r"^(one of|a number(?= from)|positive:) ": "",
    r"^, ": "'', ",
    r"^from 1e-20": "above 0,",
    r"^a printable text of at most \d+ characters": "text",
    r",? at least (\d+),? and at most (\d+)": r" from \1 to \2",
}
LINE = re.compile(r"    (?:study|config)\.([\w.]+) = (.+?)(?:  # (.*))?$")


def rows(page: str, within: str, stated: Mapping[str, fields.Field]) -> dict[str, str]:
    """A row for each field of a page's `get_config`, in its order.

    Args:
      page: A file of `configs/`.
      within: What stands before the fields' names, such as 'study.', or ''.
      stated: What each may be.
    """
    source = (CONFIGS / page).read_text().partition("def get_config")[2]
    source = source.partition("\n    if ")[0].partition("\n    return ")[0]
    found, before = {}, list[str]()
    for line in source.splitlines():
        match = LINE.match(line)
        if line.startswith("    # "):
            before.append(line.removeprefix("    # "))
        elif match and (match[1] in stated or match[1].endswith("_options")):
            name, default, after = match.groups()
            means = " ".join([*before, after or ""]).strip()
            shown = SHOWN.get(default) or f"`{'{}' if 'ConfigDict' in default else default}`"
            cells = (f"`{within}{name}`", shown, may_be(stated.get(name)), means)
            found[name] = f"| {' | '.join(cells)} |".replace("<", "&lt;")
            before = []
        else:
            before = []
    return found


def may_be(field: fields.Field | None) -> str:
    """A field's rule as a cell."""
    if field is None:
        return "fields of the class, by name"
    if isinstance(field, fields.Several):
        return f"a tuple; each: {may_be(field.element)}"
    rule = field.rule if isinstance(field.rule, str) else field.rule()
    for long, short in SHORTER.items():
        rule = re.sub(long, short, rule)
    return rule


def tables() -> dict[str, str]:
    """The tables by the name of their marks in the page."""
    return {
        "fields": HEAD + "\n".join(rows("base.py", "", fields.FIELDS).values()),
        "study": HEAD + "\n".join(rows("study_base.py", "study.", plan.FIELDS).values()),
    }


def renewed(page: str) -> str:
    """The page with the tables as they should be."""
    for name, table in tables().items():
        start, end = f"<!-- {name} -->\n", f"\n<!-- end of {name} -->"
        before, rest = page.split(start)
        page = before + start + "\n" + table + "\n" + end + rest.split(end)[1]
    return page


if __name__ == "__main__":
    README.write_text(renewed(README.read_text()))
