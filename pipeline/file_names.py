"""Names of files as people's tools leave them: their natural order, companion files, and pictures."""

from __future__ import annotations

import re
from collections.abc import Iterable

# Suffixes of frames, lower case. What cannot be read all the same is named.
PICTURES = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".avif", ".bmp", ".tif", ".tiff", ".gif", ".heic",
            ".heif")
_DIGITS = re.compile("([0-9]+)")                    # not \d: a superscript two is a digit, but no number
_FOREIGN = frozenset(("__macosx", "@eadir", "thumbs.db", "desktop.ini"))


def natural(name: str) -> tuple:
    """Sort key that compares numbers as numbers, so that frame2 comes before frame10."""
    parts = _DIGITS.split(name)
    parts[1::2] = map(_number, parts[1::2])
    return (*parts, name)           # the name itself decides between frame1 and frame01


def naturally(names: Iterable[str]) -> list[str]:
    """The names in natural order."""
    return sorted(names, key=natural)


def is_companion(name: str) -> bool:
    """Whether a file or folder is hidden, or one that macOS, Windows or a NAS leaves beside people's own files."""
    return name.startswith(".") or name.lower() in _FOREIGN


def video_name(folder: str) -> str:
    """The name of a video whose frames lie in `folder`, a path inside the data set; nested folders are joined by "+".

    Results are files and folders named after their video, so the name itself cannot be a path.
    """
    return folder.replace("/", "+")


def _number(digits: str) -> tuple[int, str]:
    """Digits as a number of any length: Python converts no more than 4300 digits at a time."""
    significant = digits.lstrip("0")
    return len(significant), significant
