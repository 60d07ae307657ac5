"""Laws of tables of features: what is written is read, and what is no table is named."""

import hashlib

import numpy as np
import pytest

from radimagenet_jax.data import features_file
from radimagenet_jax.errors import DataError, UserError

KEYS = ("a.png", "b.png", "c.png")
ROWS = np.arange(6, dtype=np.float32).reshape(3, 2)


def saved(path, **arrays):
    np.savez(path, **arrays)
    return path


def test_what_is_written_is_read_back_and_leaves_nothing_beside_it(tmp_path):
    path = tmp_path / "features.npz"
    features_file.write(path, KEYS, ROWS)
    assert [each.name for each in tmp_path.iterdir()] == ["features.npz"]
    keys, pooled = features_file.read(path)
    assert keys == KEYS
    np.testing.assert_array_equal(pooled, ROWS)
    table = features_file.read_any(path)
    assert table.keys == KEYS
    np.testing.assert_array_equal(table.pooled, ROWS)
    assert table.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_folder_that_is_not_there_is_one_sentence(tmp_path):
    with pytest.raises(UserError, match="cannot be written"):
        features_file.write(tmp_path / "no" / "features.npz", KEYS, ROWS)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_a_table_of_anybodys_needs_no_digest_and_becomes_float32(dtype, tmp_path):
    path = saved(tmp_path / "e.npz", keys=np.array(KEYS), pooled=ROWS.astype(dtype))
    table = features_file.read_any(path)
    assert table.pooled.dtype == np.float32
    np.testing.assert_array_equal(table.pooled, ROWS)


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        ({"pooled": np.float32(3)}, "2 dimensions too few"),
        ({"pooled": ROWS[:, 0]}, "1 dimension too few"),
        ({"pooled": np.zeros((3, 7, 7, 2), np.float32)}, "2 dimensions too many"),
        ({"pooled": ROWS.astype(np.int64)}, "dtype int64"),
        ({"pooled": ROWS.astype(np.complex64)}, "dtype complex64"),
        ({"pooled": ROWS[:2]}, "3 keys and features (2, 2)"),
        ({"pooled": ROWS[:, :0]}, "(3, 0)"),
        ({"pooled": np.where(ROWS == 3, np.nan, ROWS)}, "NaN, infinite or too large numbers in"),
        ({"pooled": np.where(ROWS == 3, np.inf, ROWS)}, "the features of 'b.png'"),
        ({"pooled": np.where(ROWS == 3, 1e300, ROWS.astype(np.float64))}, "'b.png'"),
        ({"keys": np.array(["a.png", "a.png", "c.png"])}, "'a.png' more than once"),
        ({"keys": np.arange(3)}, "dtype int64"),
        ({"keys": np.array([KEYS])}, "keys (1, 3)"),
        ({"keys": np.array(KEYS, object)}, "damaged"),
        ({"sha256": np.array("0" * 64)}, "not what was written"),
    ],
)
def test_a_file_that_is_no_table_is_one_sentence_that_names_it(arrays, says, tmp_path):
    path = saved(tmp_path / "e.npz", **{"keys": np.array(KEYS), "pooled": ROWS, **arrays})
    with pytest.raises(DataError) as caught:
        features_file.read_any(path)
    assert str(path) in str(caught.value)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_files_that_are_missing_cut_or_of_another_form_are_named(tmp_path):
    with pytest.raises(DataError, match="No such file"):
        features_file.read_any(tmp_path / "no.npz")
    whole = saved(tmp_path / "e.npz", keys=np.array(KEYS), pooled=ROWS).read_bytes()
    (tmp_path / "cut.npz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="damaged"):
        features_file.read_any(tmp_path / "cut.npz")
    np.save(tmp_path / "single.npy", ROWS)
    with pytest.raises(DataError, match=r"not an \.npz file"):
        features_file.read_any(tmp_path / "single.npy")
    with pytest.raises(DataError, match=r"no array keys and no array pooled, only names, vectors"):
        features_file.read_any(saved(tmp_path / "o.npz", names=np.array(KEYS), vectors=ROWS))


def test_damage_is_refused_wherever_it_is(tmp_path):
    path = tmp_path / "features.npz"
    features_file.write(path, KEYS, ROWS)
    content, refusals = path.read_bytes(), []
    for place in range(0, len(content), 7):
        for damaged in (content[:place], content[:place] + b"\xff" + content[place + 1 :]):
            path.write_bytes(damaged)
            try:
                keys, pooled = features_file.read(path)
            except DataError as error:
                refusals.append(str(error))
            else:  # a time stamp in the archive, of which nothing depends
                assert keys == KEYS
                np.testing.assert_array_equal(pooled, ROWS)
    assert len(refusals) > len(content) / 7
    assert all("features.npz is damaged" in said or "a table holds" in said for said in refusals)


@pytest.mark.parametrize("fault", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_table_that_cannot_be_written_leaves_the_one_before(tmp_path, monkeypatch, fault):
    path = tmp_path / "features.npz"
    features_file.write(path, KEYS, ROWS)
    before = path.read_bytes()

    def stopped(path, **arrays):
        path.write_bytes(b"half")
        raise fault

    monkeypatch.setattr(np, "savez", stopped)
    with pytest.raises((UserError, KeyboardInterrupt), match=r"No space left on device; make|^$"):
        features_file.write(path, KEYS[:1], ROWS[:1])
    assert [each.name for each in tmp_path.iterdir()] == ["features.npz"]
    assert path.read_bytes() == before
