"""Laws of tables and lists: read whatever wrote them, or refused with file and row."""

from pathlib import Path

import pytest

from radimagenet_jax.data.source_files import SourceFile, list_files
from radimagenet_jax.data.tables import read_csv, read_lines
from radimagenet_jax.errors import DataError


def table(tmp_path: Path, content: bytes | str) -> SourceFile:
    path = tmp_path / "table.csv"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    (file,) = list_files(tmp_path)
    return file


@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_tables_and_lists_read_the_same_with_any_line_ends_and_byte_order_mark(
    tmp_path, line_end, mark
):
    lines = [",filename,label", '0,"a, b.png",negative', "", "1, c.png ,positive", ""]
    file = table(tmp_path, mark + line_end.join(lines))
    rows = read_csv(file, ["filename", "label"])
    assert [(row["filename"], row["label"]) for row in rows] == [
        ("a, b.png", "negative"),
        ("c.png", "positive"),
    ]
    assert [row.number for row in rows] == [2, 4]
    assert [number for number, _ in read_lines(file)] == [1, 2, 4]
    assert read_lines(file)[0][1] == ",filename,label"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("name,label\na,b\n", r"table\.csv has no column 'filename' \(its header has 'name'"),
        ("filename;label\na;b\n", r"has no column 'filename' \(its header has 'filename;label'\)"),
        ("filename,label,label\na,b,c\n", r"has 2 columns named 'label'; keep one"),
        ("filename,label\na,b\nc\n", r"table\.csv, row 3: has 1 fields where the header has 2"),
        ("filename,label\na,b\nc,d,e\n", r"row 3: has 3 fields"),
        ("filename,label\na,b\n,d\n", r"row 3: the column 'filename' is empty"),
        ('filename,label\n"a,b\n', r"is no valid CSV"),
        ("filename,label\na\x1b[1m,b\n", r"'filename' has a control character \('a\\x1b\[1m'\)"),
        ("filename,label\n", r"table\.csv has no rows"),
        ("", r"table\.csv has no rows"),
        (b"filename,label\n\xff\xfe,b\n", r"table\.csv, line 2: is not UTF-8"),
    ],
)
def test_a_bad_table_is_refused_with_its_name_and_row(tmp_path, content, message):
    with pytest.raises(DataError, match=message):
        read_csv(table(tmp_path, content), ["filename", "label"])


def test_a_control_character_in_a_column_that_nobody_asks_for_becomes_a_blank(tmp_path):
    (row,) = read_csv(table(tmp_path, "filename,note\na,b\x07c\n"), ["filename"])
    assert row["note"] == "b c"
