"""The builder that the folder's page shows builds a data set."""

import importlib
import re
import shutil
import textwrap

import numpy as np
import pytest

from radimagenet_jax.errors import DataError
from tests.conftest import PROJECT
from tests.tfds_builders.building import build, counts, encoded, examples, notes

PAGE = PROJECT / "tfds_builders/README.md"


@pytest.fixture(scope="module")
def builder_class(tmp_path_factory):
    (block,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    folder = tmp_path_factory.mktemp("packages") / "toys"
    folder.mkdir()
    for name in ("__init__.py", "README.md", "CITATIONS.bib", "TAGS.txt"):
        shutil.copy(PAGE.parent / "busi" / name, folder)
    (folder / "toys_dataset_builder.py").write_text(textwrap.dedent(block))
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder.parent)
        return importlib.import_module("toys.toys_dataset_builder").Builder


def test_the_builder_of_the_page_finds_checks_and_divides_images(tmp_path, builder_class):
    source = tmp_path / "manual"
    rng = np.random.default_rng(0)
    for number in range(30):
        path = source / ("broken", "whole")[number % 2] / f"{number // 3}_{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(rng.integers(0, 256, (9, 8), dtype=np.uint8)))
    built = build(builder_class, tmp_path, source, "fold1")
    found = examples(built)
    assert sum(counts(found).values()) == 30
    patients = [{one["patient"] for one in split.values()} for split in found.values()]
    assert sum(map(len, patients)) == len(set.union(*patients)) == 10
    assert [note for note in notes(built) if "5-fold split by patient" in note]
    (source / "whole/1_3.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"1_3\.png is not an image that can be read"):
        build(builder_class, tmp_path, source, "fold2")


def test_the_builder_of_the_page_says_what_is_missing(tmp_path, builder_class):
    (tmp_path / "manual").mkdir()
    (tmp_path / "manual/terms.txt").write_text("")
    sentence = r"has no image <class>/<patient>_<number>\.png; download toys\.zip"
    with pytest.raises(DataError, match=sentence):
        build(builder_class, tmp_path, tmp_path / "manual", "fold1")
