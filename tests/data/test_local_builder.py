"""Laws of what every builder here decides of how TFDS runs it."""

import tempfile

import numpy as np
import pytest
import tensorflow_datasets as tfds

from radimagenet_jax.data import registry
from radimagenet_jax.data.local_builder import LocalBuilder, LocalInfo
from radimagenet_jax.data.spool import SpoolShuffler

SPLITS = {"train": 5, "test": 3}


class Numbers(LocalBuilder):
    """Two splits of numbers."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        features = tfds.features.FeaturesDict({"number": np.int64})
        return LocalInfo(builder=self, features=features)

    def _split_generators(self, dl_manager):
        return {split: self.counted(self._generate_examples(n)) for split, n in SPLITS.items()}

    def _generate_examples(self, count):
        for number in range(count):
            yield str(number), {"number": number}


def test_every_example_is_reported_once_and_tfds_is_silent(tmp_path, capsys):
    built = Numbers(data_dir=tmp_path)
    calls = []
    built.report = calls.append
    built.download_and_prepare(file_format="array_record")
    assert calls == list(range(1, 9))
    assert capsys.readouterr().out == ""
    assert {split: info.num_examples for split, info in built.info.splits.items()} == SPLITS


def test_tfds_speaks_for_itself_where_nobody_reports(tmp_path, capsys):
    Numbers(data_dir=tmp_path).download_and_prepare(file_format="array_record")
    assert "downloaded and prepared" in capsys.readouterr().out


def test_records_wait_on_disk_for_their_order(tmp_path, monkeypatch):
    added = []
    add = SpoolShuffler.add
    monkeypatch.setattr(
        SpoolShuffler, "add", lambda self, key, data: (added.append(key), add(self, key, data))
    )
    Numbers(data_dir=tmp_path).download_and_prepare(file_format="array_record")
    assert len(added) == sum(SPLITS.values())


def test_asking_for_a_data_set_that_is_not_there_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    built = registry.builder("phantom", tmp_path / "data")
    assert built.info.description
    assert not any(tmp_path.iterdir())


def test_the_base_is_no_data_set():
    with pytest.raises(TypeError, match="abstract"):
        LocalBuilder()
