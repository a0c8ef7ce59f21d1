"""Texts of other people in messages: what can be printed in one line of a terminal."""

from __future__ import annotations

import unicodedata

_NOT_PRINTABLE = ("Cc", "Cs", "Zl", "Zp")           # Unicode categories: controls, surrogates, ends of lines


def is_printable(text: str) -> bool:
    """Whether a text can be printed in one line.

    Unlike `str.isprintable`, this accepts the spaces of other scripts and of macOS's screenshots, and the joiners of
    emoji and of Indian scripts.
    """
    return text.isprintable() or all(unicodedata.category(character) not in _NOT_PRINTABLE for character in text)


def printable(text: str) -> str:
    """The text, with an escape such as \\x1b in place of each character that cannot be printed."""
    if is_printable(text):
        return text
    return "".join(character if is_printable(character) else ascii(character)[1:-1] for character in text)
