"""Laws of reading back what we wrote: its form, its digests, and cells that nobody runs."""

import json

import pytest

from radimagenet_jax import own_files
from radimagenet_jax.errors import ConfigError, DataError, cut

FIELDS = {
    "step": int,
    "loss": own_files.NUMBER_OR_NONE,
    "name": str,
    "parts": [{"n": int}],
    "note?": str,
}
RECORD = {"step": 1, "loss": None, "name": "a", "parts": [{"n": 1}, {"n": 2}]}


def test_a_record_of_its_form_is_read_with_what_it_has_more(tmp_path):
    path = tmp_path / "a.json"
    path.write_text(json.dumps({**RECORD, "loss": 3, "more": [1]}))
    assert own_files.read_json(path, FIELDS, "remove it")["more"] == [1]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (json.dumps({**RECORD, "step": True}), "'step' is not a whole number"),
        (json.dumps({**RECORD, "step": 1.0}), "'step' is not a whole number"),
        (json.dumps({**RECORD, "loss": "1"}), "'loss' is not a number or null"),
        (json.dumps({**RECORD, "note": 1}), "'note' is not a text"),
        (json.dumps({**RECORD, "parts": {}}), "'parts' is not a list"),
        (json.dumps({**RECORD, "parts": [{"n": 1}, {}]}), r"'parts\[2\].n' is missing"),
        (json.dumps({**RECORD, "loss": float("nan")}), "NaN is no number"),
        (json.dumps({**RECORD, "step": 10**30}), "too large a number"),
        ('{"step": 1e999}', "too large a number"),
        ("[]", "it is not an object"),
        ("[" * 100_000, "nested too deeply"),
        (b"\xff\xfe{}", "can't decode"),
        (b"\0" * 10, "Expecting value"),
        ("", "Expecting value"),
    ],
)
def test_a_record_of_another_form_is_one_sentence_with_file_and_remedy(tmp_path, content, said):
    path = tmp_path / "a.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ConfigError, match=rf"a\.json is damaged.*{said}.*; remove it\.$"):
        own_files.read_json(path, FIELDS, "remove it", ConfigError)


def test_a_missing_file_a_folder_and_a_huge_file_are_one_sentence(tmp_path):
    with (tmp_path / "huge.json").open("wb") as file:
        file.truncate(2**40)  # sparse
    for name in ("none.json", ".", "huge.json"):
        with pytest.raises(DataError, match="remove it"):
            own_files.read_json(tmp_path / name, FIELDS, "remove it")


def test_a_digest_sees_every_change_below_a_folder(tmp_path):
    for name in ("a/x", "a/deep/y", "b/z"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    assert own_files.damage(tmp_path) is None  # nothing to compare with
    own_files.write_digests(tmp_path)
    assert own_files.damage(tmp_path) is None
    (tmp_path / "a/deep/y").write_text("a/deep/z")
    assert own_files.damage(tmp_path) == "a/deep/y is not what was written"
    assert own_files.damage(tmp_path, "b") is None
    (tmp_path / "a/deep/y").unlink()
    assert own_files.damage(tmp_path, "a") == "a/deep/y is missing"
    for content in ("", "{}", "[1]", '{"../x": "0"}', '{"b/z": 1}'):
        (tmp_path / own_files.DIGESTS).write_text(content)
        assert own_files.DIGESTS in str(own_files.damage(tmp_path))


@pytest.mark.parametrize(
    "text", ["=1+1", "+a", "-a", "@x", "\t=1", "'=1", "''+1", "'plain", "", "a=b", "-0.5", "1e-3"]
)
def test_a_guarded_text_comes_back_and_begins_no_formula(text):
    cell = own_files.guarded(text)
    assert own_files.unguarded(cell) == text
    is_number = text in ("-0.5", "1e-3")
    assert is_number or cell[:1] not in tuple("=+-@\t")
    assert not is_number or cell == text


def test_numbers_are_left_alone():
    for value in (-0.5, 1e-3, -3, None, "-0.5", "+1e-3", "-7"):
        assert own_files.guarded(value) is value


def test_somebodys_text_is_cut_to_a_printable_line():
    assert cut("\x1b]0;title\x07\n" + "x" * 5000) == (
        r"\x1b]0;title\x07\n" + "x" * (117 - 18) + "..."
    )


@pytest.mark.parametrize(
    ("interval", "right"),
    [([0.5, 0.75], True), (None, True), ([0.5], False), (["a", "b"], False), (0.5, False)],
)
def test_an_interval_is_two_numbers_or_null(interval, right):
    fields = {"auroc_ci95": own_files.INTERVAL_OR_NONE}
    if right:
        own_files.check({"auroc_ci95": interval}, fields)
        return
    with pytest.raises(ValueError, match="auroc_ci95"):
        own_files.check({"auroc_ci95": interval}, fields)
