"""Texts of files: which are taken, and how they are shown."""

import unicodedata


def is_plain(text: str, longest: int) -> bool:
    """Whether a text is of sensible length, can be encoded, and controls no terminal."""
    return len(text) <= longest and (
        text.isprintable() or not any(unicodedata.category(each) in ("Cc", "Cs") for each in text)
    )


def shown(text: str, length: int = 80) -> str:
    """A text as a message can have it: of sensible length, and all of it visible."""
    cut = text if len(text) <= length else f"{text[:length]}..."
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in cut)
