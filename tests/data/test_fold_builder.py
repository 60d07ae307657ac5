"""Laws of the base that published folds share; each builder's own are in tests/tfds_builders."""

from pathlib import Path, PurePosixPath

import pytest
import tensorflow_datasets as tfds

from radimagenet_jax.data.fold_builder import (
    Downloads,
    FoldConfig,
    Tables,
    examples_of_rows,
    stand_in_examples,
)
from radimagenet_jax.data.image_builder import Example
from radimagenet_jax.data.problems import Problems
from radimagenet_jax.data.source_files import SourceFile, grouped, list_files, named
from radimagenet_jax.data.splits import Listed
from radimagenet_jax.data.tables import Row
from radimagenet_jax.errors import DataError


def example(key, label, patient=""):
    return Example(key, label, dict, patient)


def downloads(root):
    return Downloads(root, list_files(root), Problems(root), "download it")


def test_a_fold_is_a_configuration_with_its_number_in_name_and_description():
    names = [config.name for config in FoldConfig.published_and_folds()]
    assert names == ["published", "fold1", "fold2", "fold3", "fold4", "fold5"]
    last = FoldConfig.folds("Fold {fold} of crops.", prefix="crops_")[-1]
    assert (last.name, last.fold, last.description) == ("crops_fold5", 5, "Fold 5 of crops.")
    assert isinstance(last, tfds.core.BuilderConfig)


def test_tables_are_found_in_the_folder_that_they_must_be_in(tmp_path):
    for folder in ("splits", "elsewhere"):
        (tmp_path / folder).mkdir()
        for split in ("train", "val", "test"):
            (tmp_path / folder / f"{split}.csv").write_text(f"img_dir,label\n{folder}.png,a\n")
    found = Tables("{split}.csv", {}, folder="splits").find(downloads(tmp_path))
    assert {table.path.parent.name for table in found.values()} == {"splits"}
    with pytest.raises(DataError, match="differ"):
        Tables("{split}.csv", {}).find(downloads(tmp_path))
    assert Tables("{split}_fold1.csv", {}).find(downloads(tmp_path)) is None


def test_a_row_is_left_out_or_told_and_the_others_are_kept():
    file = SourceFile(PurePosixPath("train.csv"), "train.csv", Path("train.csv"))
    rows = [Listed(Row(file, i, {}), PurePosixPath(f"{i}.png"), "a") for i in range(3)]
    problems = Problems("here")

    def make(listed):
        if listed.row.number == 0:
            return None
        if listed.row.number == 1:
            raise listed.row.error("is bad.")
        return example(listed.key, listed.label)

    splits = examples_of_rows({"train": rows, "val": []}, make, problems)
    assert [one.key for one in splits["train"]] == ["2.png"]
    assert splits["val"] == []
    assert problems.sentences == ["train.csv, row 1: is bad."]


def test_the_stand_in_keeps_patients_or_given_groups_together_whatever_the_order():
    examples = [example(f"{i}.png", "ab"[i // 2 % 2], f"p{i // 2}") for i in range(60)]
    splits = stand_in_examples(examples, 1)
    assert sorted(one.key for each in splits.values() for one in each) == sorted(
        one.key for one in examples
    )
    patients = [{one.patient for one in each} for each in splits.values()]
    assert sum(map(len, patients)) == len(set.union(*patients)) == 30
    assert stand_in_examples(examples[::-1], 1) == splits
    alone = [example(one.key, one.label) for one in examples]
    groups = {one.key: one.patient for one in examples}
    regrouped = stand_in_examples(alone, 1, groups=groups)
    assert {k: [one.key for one in v] for k, v in regrouped.items()} == {
        k: [one.key for one in v] for k, v in splits.items()
    }


def test_copies_of_a_file_are_one_and_files_without_a_key_are_left_out(tmp_path):
    for folder, content in (("a", "x"), ("b", "x"), ("c", "y")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "t.csv").write_text(content)
    files = list_files(tmp_path)
    assert named(files[:2], "t.csv") == files[0]
    assert named(files, "u.csv") is None
    with pytest.raises(DataError, match="differ"):
        named(files, "t.csv")
    by_folder = grouped(files, lambda f: f.path.parent.name if f.path.parent.name != "c" else None)
    assert {key: len(found) for key, found in by_folder.items()} == {"a": 1, "b": 1}
