"""Laws of what reaches a terminal: names are shown, never obeyed, and nothing scrolls for ever."""

import pytest

from radimagenet_jax import command, console
from radimagenet_jax.errors import (
    LONGEST,
    LONGEST_LINE,
    ConfigError,
    DataError,
    UserError,
    shown,
    telling,
)


@pytest.mark.parametrize(
    ("name", "as_shown"),
    [
        ("\x1b]0;owned\x07.png", r"\x1b]0;owned\x07.png"),
        ("\x1b[31mred", r"\x1b[31mred"),
        ("\x9b2J", r"\x9b2J"),
        ("a\rb\tc\x00d", r"a\rb\tc\x00d"),
        ("\u202egnp.exe", r"\u202egnp.exe"),
        ("zero\u200bwidth", r"zero\u200bwidth"),
        ("\udcff", r"\udcff"),
        ("Übersicht 日本 💀 é.png", "Übersicht 日本 💀 é.png"),
        ("[bold]a[/]:skull:", "[bold]a[/]:skull:"),
    ],
)
def test_a_name_is_shown_letter_by_letter(name, as_shown, capsys):
    assert str(UserError(f"{name} is damaged.")) == f"{as_shown} is damaged."
    console.warn(f"{name} is damaged.")
    console.fail(f"{name} is damaged.")
    console.console.print(f"{name} is damaged.")
    lines = capsys.readouterr().err.splitlines()
    assert lines == [f"{start}{as_shown} is damaged." for start in ("warning: ", "error: ", "")]


def test_a_long_message_keeps_its_beginning_its_remedy_and_says_its_length():
    text = str(UserError("The file " + "x" * 6_000_000 + " is damaged; get it again."))
    assert text.startswith("The file xxx")
    assert text.endswith("is damaged; get it again.")
    assert "(6,000,035 characters)" in text
    assert len(text) == LONGEST_LINE
    assert len(shown("\x1b" * 6_000_000)) <= LONGEST
    assert len(shown("line\n" * 100_000)) <= LONGEST


def test_a_list_of_findings_keeps_its_lines():
    lines = "\n".join(f"row {number}: no such file" for number in range(20))
    assert str(UserError(lines)) == lines


@pytest.mark.parametrize(
    ("refusal", "reason"),
    [
        (OSError(28, "No space left on device"), "No space left on device"),
        (OSError("full"), "full"),
    ],
)
def test_what_the_system_refuses_is_told_with_its_reason_and_a_remedy(refusal, reason):
    with pytest.raises(DataError) as told, telling("a.csv cannot be written", DataError, "wait"):
        raise refusal
    assert str(told.value) == f"a.csv cannot be written ({reason}); wait."
    assert told.value.__cause__ is refusal
    with pytest.raises(ConfigError, match="other"), telling("", DataError, ""):
        raise ConfigError("other")


def test_a_mistyped_flag_is_shown_escaped(capsys):
    with pytest.raises(SystemExit):
        command.Parser("main", "", "").split_fields(["--\x1b]0;x\x07"])
    assert r"\x1b]0;x\x07" in capsys.readouterr().err


def test_kinds_of_errors_are_all_shown_so():
    assert str(ConfigError("\x07")) == r"\x07"


def test_a_sentence_breaks_between_words_and_never_in_a_path_or_an_address(tmp_path, monkeypatch):
    named = tmp_path / "benign (1) of a patient.png"
    named.touch()
    address = "https://example.org/a-very/long-address/with-hyphens/and?more=than-enough"
    sentence = (
        f"{named}: it is no picture; get it again from {address} or take it out of the table, "
        "row 17, and start the same command once more."
    )
    lines = console.wrapped(sentence, 60).split("\n")
    assert len(lines) > 3
    assert " ".join(lines) == sentence
    for whole in (f"{named}:", address):
        assert sum(whole in line for line in lines) == 1
    assert all(len(line) <= 60 or "/" in line for line in lines)
    absent = "/data/a folder of that name/RadImageNet-ResNet50_notop.h5"
    assert absent in console.wrapped(f"the weights are in {absent}, the best", 40)
    two = "/data/first.csv, row 17, and labels/second.csv differ"
    assert console.wrapped(two, 30) == "/data/first.csv, row 17, and\nlabels/second.csv differ"
    assert console.wrapped("short", 60) == "short"


def test_only_a_terminal_gets_broken_lines(capsys, monkeypatch):
    console.fail("word " * 40)
    assert len(capsys.readouterr().err.splitlines()) == 1
    monkeypatch.setattr(console.console, "_force_terminal", True)
    monkeypatch.setattr(console.console, "_width", 40)
    console.fail("word " * 40)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) > 4
    assert not any("wo\n" in line for line in lines)
