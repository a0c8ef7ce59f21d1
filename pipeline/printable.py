"""Texts of other people in messages: what can be printed in one line of a terminal."""

from __future__ import annotations

import re
import unicodedata

HIDDEN = "***"          # what `without_secrets` puts in place of a secret

_NOT_PRINTABLE = ("Cc", "Cs", "Zl", "Zp")           # Unicode categories: controls, surrogates, ends of lines
_REORDERING = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")   # what follows looks different
_LAYOUT = frozenset("\n\t")                         # of texts of several lines
_USER = re.compile(r"(?<=://)[^/\s?#]+@")           # in an address; a token may stand there without a password
_KEY = re.compile(r"([?&][\w.-]*(?:token|key|secret|passw|signature|credential)[\w.-]*=)[^&#\s'\"]+", re.IGNORECASE)


def is_printable(text: str) -> bool:
    """Whether a text can be printed in one line.

    Unlike `str.isprintable`, this accepts the spaces of other scripts and of macOS's screenshots, and the joiners of
    emoji and of Indian scripts.
    """
    return text.isprintable() or all(unicodedata.category(character) not in _NOT_PRINTABLE for character in text)


def printable(text: str) -> str:
    """The text, with an escape such as \\x1b in place of each character that cannot be printed or reorders others."""
    return _escaped(text, frozenset())


def printable_lines(text: str) -> str:
    """As `printable`, of a text of several lines."""
    return _escaped(text, _LAYOUT)


def without_secrets(text: str) -> str:
    """The text, with `***` in place of users, passwords and tokens in its addresses: logs are read by others."""
    return _KEY.sub(rf"\1{HIDDEN}", _USER.sub(f"{HIDDEN}@", text))


def _escaped(text: str, kept: frozenset[str]) -> str:
    if text.isprintable():
        return text
    return "".join(character if character in kept or (is_printable(character) and character not in _REORDERING)
                   else ascii(character)[1:-1] for character in text)
