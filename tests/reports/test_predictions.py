"""Laws of the predictions file."""

import csv
import resource

import numpy as np
import pytest

from radimagenet_jax.errors import DataError
from radimagenet_jax.reports import predictions
from radimagenet_jax.statistics import metrics
from radimagenet_jax.statistics.scores import Predictions

KEYS = [
    "CT_COVID/2020.02.10.20021584-p6-52%0.png",
    'a,"quoted" (1).png',
    "two\nlines\r\nand a\rreturn",
    "Größe/胸部CT/🫁.png",
    "stray\udcffbyte.png",
    " spaces ",
    "",
    "k" * 5000,
]


def made(keys=KEYS, seed=0):
    rng = np.random.default_rng(seed)
    positive = rng.random(len(keys)).astype(np.float32)
    return Predictions(
        class_names=("CT_NonCOVID", "CT, COVID"),
        keys=keys,
        patients=["", 'p "1", left'] * (len(keys) // 2) + [""] * (len(keys) % 2),
        labels=rng.integers(0, 2, len(keys)),
        scores=np.stack([1 - positive, positive], axis=1),
    )


def test_what_was_written_is_read_back_bit_for_bit(tmp_path):
    written = made()
    predictions.write(tmp_path / "p.csv", written)
    back = predictions.read(tmp_path / "p.csv")
    assert back.keys == written.keys
    assert back.patients == written.patients
    assert back.class_names == written.class_names
    np.testing.assert_array_equal(back.labels, written.labels)
    np.testing.assert_array_equal(back.scores, written.scores)


def test_figures_from_the_file_equal_those_in_memory(tmp_path):
    written = made([str(i) for i in range(200)])
    predictions.write(tmp_path / "p.csv", written)
    back = predictions.read(tmp_path / "p.csv")
    first, second = (metrics.evaluate(p.scores, p.labels, p.patients) for p in (written, back))
    assert first == second


def test_columns_are_those_of_the_interface(tmp_path):
    predictions.write(
        tmp_path / "p.csv",
        Predictions(("no", "yes"), ["a.png"], ["7"], [1], [[0.25, 0.75]]),
    )
    assert (tmp_path / "p.csv").read_text() == (
        "key,patient,label,score_no,score_yes\na.png,7,yes,0.25,0.75\n"
    )


def test_an_empty_split_keeps_its_header(tmp_path):
    empty = Predictions(("no", "yes"), [], [], [], np.zeros((0, 2)))
    predictions.write(tmp_path / "p.csv", empty)
    assert predictions.read(tmp_path / "p.csv").keys == ()


def test_a_full_disk_leaves_the_old_file_as_it_was(tmp_path):
    path = tmp_path / "p.csv"
    predictions.write(path, made(["old"]))
    before = path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        with pytest.raises(DataError, match=r"p\.csv cannot be written"):
            predictions.write(path, made([str(i) for i in range(5000)]))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["p.csv"]


def test_a_missing_folder_is_one_sentence(tmp_path):
    with pytest.raises(DataError, match="No such file or directory"):
        predictions.write(tmp_path / "absent" / "p.csv", made())


HEADER = "key,patient,label,score_no,score_yes\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("key,label,score_no,score_yes\n", "header must be key,patient,label"),
        ("key,patient,label,score_no,yes\n", "header must be key,patient,label"),
        ("key,patient,label,score_no\n", "two or more"),
        ("key,patient,label,score_no,score_no\n", "two or more"),
        (HEADER + "a,,no,0.5\n", "row 1: 4 fields instead of 5"),
        (HEADER + "a,,no,0.5,0.5\nb,,maybe,0.5,0.5\n", "row 2: the label 'maybe'"),
        (HEADER + "a,,no,0.5,half\n", "row 1: 'half' is not a number"),
        (HEADER + "a,,no,0.5,nan\n", r"row 1: the score nan is not in \[0, 1\]"),
        (HEADER + "a,,no,0.5,1.5\n", r"row 1: the score 1.5 is not in \[0, 1\]"),
        (HEADER + "a,,no,0.5,0.5\na,,no,0.5,0.5\n", "the key 'a' occurs more than once"),
        (HEADER + 'a,,no,0.5,"0.5', "not a whole CSV file"),
    ],
)
def test_a_damaged_file_is_refused_with_its_row(tmp_path, text, message):
    path = tmp_path / "p.csv"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        predictions.read(path)


def test_a_missing_file_is_one_sentence(tmp_path):
    with pytest.raises(DataError, match=r"absent\.csv cannot be read: No such file"):
        predictions.read(tmp_path / "absent.csv")


def test_the_file_is_plain_csv_for_other_readers(tmp_path):
    written = made()
    predictions.write(tmp_path / "p.csv", written)
    with open(tmp_path / "p.csv", newline="", errors="surrogateescape") as file:
        rows = list(csv.DictReader(file))
    assert [row["key"] for row in rows] == list(written.keys)
    assert [row["label"] for row in rows] == [written.class_names[i] for i in written.labels]


def test_no_cell_is_a_formula_for_a_spreadsheet_and_all_come_back(tmp_path):
    keys = ("=HYPERLINK(1)", "+1+1", "-2+3", "@SUM(A1)", "'=quoted", "-0.5", "a=b.png")
    made = Predictions(
        ("=no", "yes"), keys, tuple("=" + key for key in keys), np.arange(7) % 2,
        np.tile([[1e-5, 1 - 1e-5]], (7, 1)),
    )  # fmt: skip
    predictions.write(tmp_path / "p.csv", made)
    again = predictions.read(tmp_path / "p.csv")
    assert (again.keys, again.patients, again.class_names) == (keys, made.patients, ("=no", "yes"))
    np.testing.assert_array_equal(again.scores, made.scores)
    with open(tmp_path / "p.csv", newline="") as file:
        cells = [cell for row in csv.reader(file) for cell in row]
    assert not [cell for cell in cells if cell[:1] in tuple("=+-@") and cell != "-0.5"]
    assert "1e-05" in cells
