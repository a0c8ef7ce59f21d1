"""Names of files: as people's tools leave them, as data list them, and as results are written."""

from __future__ import annotations

import hashlib
import os
import re
import unicodedata
from collections.abc import Iterable
from pathlib import Path

from pipeline.errors import BadInput
from pipeline.printable import is_printable

# Suffixes of frames, lower case. What cannot be read all the same is named.
PICTURES = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".avif", ".bmp", ".tif", ".tiff", ".gif", ".heic",
            ".heif")
UNICODE_FORMS = ("NFC", "NFD")
LONGEST_NAME = 200      # bytes; file systems allow 255, and results are first written under a name with a suffix
SAFE_BYTES = 180        # of a name that was shortened
_DIGITS = re.compile(r"(\d+)")                      # decimal digits of every script, but no superscript two
_FOREIGN = frozenset(("__macosx", "@eadir", "thumbs.db", "desktop.ini"))


def natural(name: str) -> tuple:
    """Sort key that compares numbers as numbers, so that frame2 comes before frame10."""
    parts = _DIGITS.split(name)
    parts[1::2] = map(_number, parts[1::2])
    return tuple(parts), name       # the name itself decides between frame1 and frame01


def naturally(names: Iterable[str]) -> list[str]:
    """The names in natural order."""
    return sorted(names, key=natural)


def composed(name: str) -> str:
    """A name in the Unicode form in which a letter and its accent are one character (NFC).

    macOS writes names with two characters (NFD). Both forms look alike, and one folder may hold both.
    """
    return name if name.isascii() else unicodedata.normalize("NFC", name)


def on_disk(path: Path) -> Path:
    """The path, or where it does not exist, the one on disk whose parts differ in the Unicode form alone."""
    if str(path).isascii() or os.path.lexists(path):
        return path
    parent = on_disk(path.parent) if path.parent != path else path
    try:
        names = sorted(name for name in os.listdir(parent) if composed(name) == composed(path.name))
    except (OSError, ValueError):       # no such folder, or a name that no file system allows
        names = []
    return parent / (names[0] if names else path.name)


def at_home(path: Path | str) -> Path:
    """A path as people write it, where `~` is the home folder. Raises ValueError where there is no such folder."""
    expanded = os.path.expanduser(path)
    if expanded.startswith("~") and not os.path.lexists(expanded):
        raise ValueError(f"{path}: it is not known which home folder {expanded.partition('/')[0]!r} stands for; write "
                         "the whole path, or set HOME")
    return Path(expanded)


def is_companion(name: str) -> bool:
    """Whether a file or folder is hidden, or one that macOS, Windows or a NAS leaves beside people's own files."""
    return name.startswith(".") or name.lower() in _FOREIGN


def video_name(folder: str) -> str:
    """The name of a video whose frames lie in `folder`, a path inside the data set; nested folders are joined by "+".

    Results are files and folders named after their video, so the name itself cannot be a path.
    """
    return folder.replace("/", "+")


def safe_name(name: str) -> str:
    """The name in NFC, or for one that is too long or holds control characters or broken Unicode, a shortened one."""
    safe = "".join(c if is_printable(c) and c not in "/\\" else "_" for c in composed(name)).strip() or "video"
    if safe in (".", "..") or len(safe.encode()) > SAFE_BYTES:
        code = hashlib.sha256(name.encode(errors="surrogatepass")).hexdigest()[:8]
        safe = f"{safe.encode()[:SAFE_BYTES - 9].decode(errors='ignore')}~{code}"
    return safe


def frame_name(stem: str) -> str:
    """The name of a frame whose file has this name without suffix: the same, if files of results can have it."""
    name = composed(stem)
    return name if can_name_a_file(name) else safe_name(name)


def can_name_a_file(name: object) -> bool:
    """Whether a value is a name that every folder can hold as it is: printable, without separators, not too long."""
    return (isinstance(name, str) and is_printable(name) and "/" not in name and name not in ("", ".", "..")
            and len(name.encode()) <= LONGEST_NAME)


def name_for(id: str, *, video: str | None = None) -> str:
    """The name of the file or folder in which results of a video or frame are written: its id.

    video: of a frame. Raises BadInput "bad-name" for an id that is a path, holds a control character or is too long, so
    that nothing is written outside of the folder of results.
    """
    if can_name_a_file(id):
        return id
    kind = "video id" if video is None else "frame name"
    raise BadInput("bad-name", f"the {kind} {id[:60]!r}{'...' * (len(id) > 60)} cannot name a folder or file of "
                   f"results: it needs 1 to {LONGEST_NAME} bytes of printable characters without '/'.",
                   video=video or id[:60], cure=f"Rename the {kind.split()[0]}.")


def _number(digits: str) -> tuple[int, str]:
    """Digits as a number of any length: Python converts no more than 4300 digits at a time."""
    if not digits.isascii():
        digits = "".join(str(unicodedata.decimal(digit)) for digit in digits)
    significant = digits.lstrip("0")
    return len(significant), significant
