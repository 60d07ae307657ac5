"""What keeps the code cheap to change: short functions and modules, and a page in each folder."""

import ast

from tests.conftest import PROJECT

FOLDERS = ("radimagenet_jax", "tfds_builders", "configs")
MODULES = sorted(path for folder in FOLDERS for path in (PROJECT / folder).rglob("*.py"))
# Of a folder's page, in lines: two screens of a terminal, with what can be copied from it.
LONGEST_PAGE = 100


# How many parameters a function may have is checked by ruff.
def test_a_module_is_of_one_purpose_and_a_function_can_be_read_at_once():
    for path in MODULES:
        text = path.read_text()
        assert len(text.splitlines()) <= 500, path
        for one in ast.walk(ast.parse(text)):
            if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef):
                assert one.end_lineno is not None
                assert one.end_lineno - one.lineno < 120, (path, one.name)


def test_each_folder_of_the_package_says_what_lives_there_and_where_its_tests_are():
    folders = sorted({path.parent for path in MODULES})
    assert len(folders) > 20
    for folder in folders:
        page = folder / "README.md"
        text = page.read_text()
        is_data_set = folder.parent.name == "tfds_builders"
        assert is_data_set or "ests" in text, page
        # Those are tables of all fields and data sets, and a tutorial.
        is_long = folder.name in ("configs", "tfds_builders", "radimagenet_jax")
        assert is_long or len(text.splitlines()) <= LONGEST_PAGE, page
