"""The pages that people read first are true: their links, names, tables and Python."""

import re
from pathlib import Path

import numpy as np
import pytest

import radimagenet_jax as rin
from radimagenet_jax.data import registry
from radimagenet_jax.data.tasks import TASKS
from radimagenet_jax.studies import plan
from radimagenet_jax.training import beginning, fields
from tests import config_table
from tests.dicom_files import dicom_file

PROJECT = Path(__file__).resolve().parents[1]
FRONT = PROJECT / "README.md"
PAGES = sorted(
    path
    for folder in ("", "configs", "launch", "radimagenet_jax", "tests", "tfds_builders")
    for path in (PROJECT / folder).glob("**/*.md" if folder else "*.md")
)
LINK = re.compile(r"\]\(([^)\s]+)\)")


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(PROJECT)))
def test_every_link_within_the_repository_leads_somewhere(page):
    for target in LINK.findall(page.read_text()):
        if "://" in target or target.startswith("mailto:"):
            continue
        file, _, anchor = target.partition("#")
        path = page.parent / file if file else page
        assert path.exists(), target
        if anchor:
            titles = re.findall(r"^#+ (.+)$", path.read_text(), re.MULTILINE)
            anchors = {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}
            assert anchor in anchors, target


def test_the_front_page_names_what_is_there():
    text = FRONT.read_text()
    for path in re.findall(r"(?:configs|tests)/[\w/]+(?:\.\w+)?", text):
        assert (PROJECT / path).exists(), path
    for module in re.findall(r"python -m (tests\.[\w.]+)", text):
        path = PROJECT / module.replace(".", "/")
        assert path.with_suffix(".py").is_file() or (path / "__main__.py").is_file(), module
    for command in re.findall(r"radimagenet_jax\.(\w+) --", text):
        assert (PROJECT / f"radimagenet_jax/{command}.py").is_file(), command
    for task in TASKS:
        assert f"`configs/{task}.py`" in text
    for model in rin.list_models():
        assert f"| `{model}` | `{beginning.file_names(model)[0]}` |" in text


def test_every_data_set_and_every_page_of_a_task_is_in_the_tables():
    cards = (PROJECT / "tfds_builders/README.md").read_text()
    for name in registry.names():
        assert f"]({name}/README.md)" in cards, name
    pages = (PROJECT / "configs/README.md").read_text()
    for path in (PROJECT / "configs").glob("*.py"):
        task = path.stem.removeprefix("study_")
        assert f"`{path.name}`" in pages or f"`{task}.py`" in pages, path.name


def test_the_python_of_the_front_page_runs(tmp_path, monkeypatch, capsys):
    (block,) = re.findall(r"```python\n(.*?)```", FRONT.read_text(), re.DOTALL)
    monkeypatch.chdir(tmp_path)
    # Folders that we write, by the names of the released file and of the run.
    rin.create_model("resnet50").save("RadImageNet-ResNet50_notop.h5")
    net = rin.create_model("resnet50", class_names=("normal", "lesion"), image_size=64)
    net.save("runs/quickstart")
    pixels = np.arange(96 * 80, dtype=np.uint16).reshape(96, 80)
    Path("slice.dcm").write_bytes(dicom_file(pixels, "p"))
    found = {}
    exec(compile(block, str(FRONT), "exec"), found)
    assert found["out"]["pooled"].shape == (1, 2048)
    assert "slice.dcm" in capsys.readouterr().out


def test_the_tables_of_fields_are_those_of_the_pages_and_of_what_is_checked():
    page = config_table.README.read_text()
    assert page == config_table.renewed(page), "python -m tests.config_table writes them anew"


@pytest.mark.parametrize(
    ("page", "stated"), [("base.py", fields.FIELDS), ("study_base.py", plan.FIELDS)]
)
def test_every_field_is_in_the_tables_with_what_it_means(page, stated):
    rows = config_table.rows(page, "", stated)
    assert set(rows) == {*stated, "model_options"}
    for row in rows.values():
        cells = [cell.strip() for cell in row.strip("|").split(" | ")]
        assert len(cells) == 4, row
        assert all(cells), row
