"""A preparation that stopped goes on with what it had read, and with nothing else."""

import os
import shutil

import numpy as np
import pytest

from radimagenet_jax.data.source_files import FileState
from radimagenet_jax.data.spool import SpoolShuffler
from radimagenet_jax.data.unfinished import KeptSpool, remove_unfinished, unfinished_folder

RNG = np.random.default_rng(5)


@pytest.fixture
def kept(tmp_path):
    """A folder with the records of 20 files, and those files."""
    source = tmp_path / "source"
    source.mkdir()
    folder = unfinished_folder(tmp_path / "home", "own", "description")
    spool = KeptSpool(folder, "train")
    records = {}
    for number in range(20):
        key = f"{number}.png"
        (source / key).write_bytes(RNG.bytes(10))
        records[key] = RNG.bytes(int(RNG.integers(1, 200)))
        spool.keep(key, records[key], ["label", ""], [FileState.of(source / key)])
    del spool  # as a kill would
    return folder, source, records


def there(folder, records):
    spool = KeptSpool(folder, "train")
    return {key for key in records if spool.has(key, ["label", ""])}


def test_all_records_are_there_again_in_tfdss_order(kept, tmp_path):
    folder, _, records = kept
    plain = SpoolShuffler(tmp_path, "train")
    for key, data in records.items():
        plain.add(key, data)
    assert list(KeptSpool(folder, "train")) == list(plain)


def test_a_record_whose_file_or_label_changed_is_read_anew(kept):
    folder, source, records = kept
    (source / "3.png").write_bytes(b"another length")
    os.utime(source / "4.png", ns=(1, 1))
    (source / "5.png").unlink()
    assert set(records) - there(folder, records) == {"3.png", "4.png", "5.png"}
    assert not KeptSpool(folder, "train").has("7.png", ["another", ""])


@pytest.mark.parametrize("cut", [1, 7, 100])
@pytest.mark.parametrize("name", ["train.records", "train.journal"])
def test_what_was_being_written_at_a_kill_is_read_anew(kept, name, cut):
    folder, source, records = kept
    path = folder / name
    path.write_bytes(path.read_bytes()[:-cut])
    left = there(folder, records)
    assert 15 <= len(left) < 20
    spool = KeptSpool(folder, "train")
    for key in set(records) - left:
        spool.keep(key, records[key], ["label", ""], [FileState.of(source / key)])
    assert sorted(data for _, data in spool) == sorted(records.values())


def test_a_flipped_bit_is_noticed(kept):
    folder, _, records = kept
    path = folder / "train.records"
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    path.write_bytes(damaged)
    assert len(there(folder, records)) == 19


def test_another_description_begins_anew_and_the_end_leaves_nothing(kept, tmp_path):
    folder, _, records = kept
    other = unfinished_folder(tmp_path / "home", "own", "another description")
    assert not folder.exists()
    assert not there(other, records)
    remove_unfinished(other)
    assert not list((tmp_path / "home").iterdir())
    shutil.rmtree(tmp_path / "home")
