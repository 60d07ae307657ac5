"""Laws of the shuffler that keeps records on disk."""

import numpy as np
import pytest
from tensorflow_datasets.core import hashing, shuffle

from radimagenet_jax.data.spool import SpoolShuffler, shuffling_on_disk

RNG = np.random.default_rng(3)
RECORDS = [(f"folder/{i}", RNG.bytes(int(RNG.integers(0, 90)))) for i in range(500)]


def filled(kind, records, folder, **options):
    shuffler = kind(folder, "train", **options)
    for key, data in records:
        shuffler.add(key, data)
    return shuffler


def test_order_hashes_and_sizes_are_those_of_tfds(tmp_path):
    ours = filled(SpoolShuffler, RECORDS, tmp_path)
    theirs = filled(shuffle.Shuffler, RECORDS, tmp_path)
    assert (ours.size, ours.num_examples, sum(ours.bucket_lengths)) == (
        theirs.size,
        theirs.num_examples,
        sum(theirs.bucket_lengths),
    )
    assert list(ours) == list(theirs)


def test_hashes_that_begin_alike_are_ordered_by_their_ends(tmp_path, monkeypatch):
    """Two in a billion; here all of them share a first half."""

    def same_beginning(self, key):
        return (7 << 64) | (original(self, key) & (2**64 - 1))

    original = hashing.Hasher.hash_key
    monkeypatch.setattr(hashing.Hasher, "hash_key", same_beginning)
    twice = [*RECORDS[:50], (RECORDS[3][0], b"again")]
    ours = filled(SpoolShuffler, RECORDS, tmp_path)
    assert list(ours) == list(filled(shuffle.Shuffler, RECORDS, tmp_path))
    with pytest.raises(shuffle.DuplicatedKeysError):
        list(filled(SpoolShuffler, twice, tmp_path))


def test_the_order_can_be_kept(tmp_path):
    numbered = [(place, data) for place, (_, data) in enumerate(RECORDS)]
    kept = filled(SpoolShuffler, numbered, tmp_path, disable_shuffling=True)
    assert [data for _, data in kept] == [data for _, data in RECORDS]


def test_two_records_of_one_key_are_refused_or_the_first_is_kept(tmp_path):
    twice = [*RECORDS, (RECORDS[7][0], b"again")]
    with pytest.raises(shuffle.DuplicatedKeysError):
        list(filled(SpoolShuffler, twice, tmp_path))
    kept = dict(filled(SpoolShuffler, twice, tmp_path, ignore_duplicates=True))
    assert kept == dict(filled(SpoolShuffler, RECORDS, tmp_path))


def test_nothing_is_left_in_the_folder_even_if_the_process_dies(tmp_path):
    filled(SpoolShuffler, RECORDS, tmp_path)
    assert not list(tmp_path.iterdir())


def test_tfds_gets_its_own_shuffler_back():
    original = shuffle.Shuffler
    with shuffling_on_disk():
        assert shuffle.Shuffler is SpoolShuffler
    assert shuffle.Shuffler is original
