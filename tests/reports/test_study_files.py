"""Laws of the names and rows of a study's files."""

import pytest

from radimagenet_jax.errors import DataError
from radimagenet_jax.reports import study_files

ROW = {
    "dataset": "breast",
    "model": "resnet50",
    "init": "a",
    "structure": "freezeall",
    "learning_rate": "0.0001",
    "fold": "2",
    "seed": "0",
    "preprocessing": "",
    "views": "",
}


def test_a_run_is_named_by_what_sets_it_apart():
    name = "breast-resnet50-a-freezeall-lr0.0001-fold2-seed0"
    assert study_files.run_id(ROW) == name
    assert study_files.run_id(ROW | {"learning_rate": 1e-4, "fold": 2, "views": 0}) == name
    other = ROW | {"preprocessing": "native", "views": "8"}
    assert study_files.run_id(other) == name + "-native-views8"


def test_a_structure_cannot_lead_out_of_the_folder():
    assert "/" not in study_files.run_id(ROW | {"structure": "../stage4_.*"})


def test_a_written_run_is_named_as_its_files_always_were():
    row = ROW | {"preprocessing": "published", "views": 8}
    trunk = "breast-resnet50-a-freezeall-published-views8"
    assert study_files.trunk_name(row) == trunk
    name = study_files.run_name(row)
    assert name == f"{trunk}-lr0.0001-fold2-seed0"
    assert study_files.run_id(row | {"run": name}) == name
    plain = study_files.trunk_name(row | {"views": 0})
    assert plain == "breast-resnet50-a-freezeall-published"


def test_structures_that_look_alike_in_a_file_name_are_told_apart():
    row = ROW | {"preprocessing": "published", "views": 0}
    names = {study_files.run_name(row | {"structure": s}) for s in ("top=1", "top:1", "top_1")}
    assert len(names) == 3
    assert not any(set("=:/") & set(name) for name in names)


@pytest.mark.parametrize("text", ["", "dataset,model\na,b\n", None])
def test_a_table_that_cannot_be_one_is_refused(tmp_path, text):
    if text is not None:
        (tmp_path / "study.csv").write_text(text)
    with pytest.raises(DataError, match=r"study\.csv"):
        study_files.read_rows(tmp_path)


def test_a_row_cut_off_is_named(tmp_path):
    (tmp_path / "study.csv").write_text(",".join(study_files.COLUMNS) + "\nbreast,resn")
    with pytest.raises(DataError, match="row 1"):
        study_files.read_rows(tmp_path)
