"""What is used of TFDS without being promised is what it was, and is used in one module."""

import ast
import inspect

import pytest
import tensorflow_datasets as tfds
from tensorflow_datasets.core import hashing, naming, shuffle, writer

from radimagenet_jax.data import tfds_parts
from tests.test_structure import MODULES

BUILDER = tfds.core.GeneratorBasedBuilder
MAKES_SHUFFLER = {"dirpath", "hash_salt", "disable_shuffling", "ignore_duplicates"}


@pytest.mark.parametrize(
    ("part", "arguments"),
    [
        (hashing.Hasher, ["salt"]),
        (hashing.Hasher.hash_key, ["self", "key"]),
        (shuffle.DuplicatedKeysError, ["item1", "item2"]),
        (shuffle.Shuffler, ["dirpath", "hash_salt", "disable_shuffling", "ignore_duplicates"]),
        (BUILDER._download_and_prepare, ["self", "dl_manager", "download_config"]),
        (BUILDER._log_download_bytes, ["self"]),
        (BUILDER._log_download_done, ["self"]),
        (BUILDER._example_writer, ["self"]),
    ],
    ids=lambda value: getattr(value, "__qualname__", ""),
)
def test_tfds_still_has_this_part_with_these_arguments(part, arguments):
    assert list(inspect.signature(part).parameters) == arguments


def test_the_writer_of_tfds_still_makes_its_shuffler_by_the_name_that_is_replaced(tmp_path):
    made = []
    info = {"dataset_name": "d", "data_dir": tmp_path, "split": "train", "filetype_suffix": "x"}
    with tfds_parts.shuffling_by(lambda **given: made.append(given)):
        writer.Writer(None, naming.ShardedFileTemplate(**info), "train", False, None)
    assert [set(given) for given in made] == [MAKES_SHUFFLER]


def test_no_other_module_reaches_behind_the_public_names_of_tfds():
    for path in MODULES:
        nodes = list(ast.walk(ast.parse(path.read_text())))
        names = {one.module or "" for one in nodes if isinstance(one, ast.ImportFrom)}
        names |= {part.name for one in nodes if isinstance(one, ast.Import) for part in one.names}
        if path.name != "tfds_parts.py":
            assert not [name for name in names if name.startswith("tensorflow_datasets.core")], path
