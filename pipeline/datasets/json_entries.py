"""Objects of an annotation json, read by type. Whatever a file holds, a fault is a `BadInput` that names the entry.

Values with one obvious meaning are read: 3.0 and "3" are the number 3, "1" and true set a flag. Everything else is
refused with the file, the entry, the field and the value.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from math import isfinite
from pathlib import Path
from typing import Any

from pipeline.errors import BadInput
from pipeline.file_names import composed, is_printable
from pipeline.picture_headers import LARGEST

LONGEST_SIDE = 65_535
_WHOLE = re.compile(r"\s*([+-]?[0-9]{1,18})\s*")
_FLAGS = {0: False, 1: True, "0": False, "1": True, "false": False, "true": True, "False": False, "True": True}


class Entry:
    """One json object: `kind` says what it describes, such as "track" or "image"; messages add its id.

    Raises BadInput "bad-json" where `values` is no object.
    """

    __slots__ = ("cure", "file", "kind", "values", "video")

    def __init__(self, values: Any, kind: str, *, file: Path, cure: str, video: str | None = None) -> None:
        self.values = values if isinstance(values, dict) else {}
        self.kind = kind
        self.file = file
        self.cure = cure
        self.video = video
        if not isinstance(values, dict):
            raise self.bad(f"{kind} is {shown(values)}; it must be an object with fields.")

    @property
    def name(self) -> str:
        """Kind and id, for messages."""
        return f"{self.kind} {shown(self.values['id'])}" if "id" in self.values else self.kind

    def bad(self, problem: str, reason: str = "bad-json") -> BadInput:
        """The error to raise about this entry."""
        return BadInput(reason, problem, video=self.video, file=self.file, cure=self.cure)

    def value(self, field: str) -> Any:
        """A field of any type. Raises BadInput "bad-json" where it is missing."""
        if field not in self.values:
            raise self.bad(f"{self.name} has no field {field!r}.")
        return self.values[field]

    def whole(self, field: str, *, least: int | None = None) -> int:
        """A whole number, at least `least`."""
        value = self.value(field)
        number = whole_number(value)
        if number is None or (least is not None and number < least):
            raise self.bad(f"{field} of {self.name} is {shown(value)}; it must be a whole number"
                           f"{'' if least is None else f' from {least}'}.")
        return number

    def key(self, field: str) -> int | str:
        """An id that only links entries: a whole number where it is one, else the text."""
        value = self.value(field)
        number = whole_number(value)
        if number is None and not isinstance(value, str):
            raise self.bad(f"{field} of {self.name} is {shown(value)}; it must be a whole number or a text.")
        return composed(value) if number is None else number

    def text(self, field: str) -> str:
        """A text that may be part of a path or be printed; a number is read as its digits."""
        value = self.value(field)
        if isinstance(value, int) and not isinstance(value, bool):
            value = shown(value)
        return self.checked_text(value, field)

    def checked_text(self, value: Any, field: str) -> str:
        """The value of `field`, or an element of it, which must be a text of printable characters, in NFC."""
        if not isinstance(value, str) or not value.strip() or not is_printable(value):
            raise self.bad(f"{field} of {self.name} is {shown(value)}; it must be a text of printable characters.")
        return composed(value)

    def path(self, field: str) -> str:
        """A relative path, with slashes where another system wrote backslashes."""
        return self.checked_path(self.value(field), field)

    def checked_path(self, value: Any, field: str) -> str:
        """The value of `field`, or an element of it, as a relative path in NFC; files may be named in any way.

        Raises BadInput for one that leads outside.
        """
        if not isinstance(value, str) or not value.strip() or "\0" in value:
            raise self.bad(f"{field} of {self.name} is {shown(value)}; it must be a path inside the data set.")
        path = composed(value).replace("\\", "/")
        parts = [part for part in path.split("/") if part not in ("", ".")]
        if path.startswith("/") or path[1:3] == ":/" or ".." in parts or not parts:
            raise self.bad(f"{field} of {self.name} is {shown(value)}; it must be a path inside the data set.")
        return "/".join(parts)

    def flag(self, field: str) -> bool:
        """Yes or no; no where the field is missing or null."""
        value = self.values.get(field)
        if value is None:
            return False
        if isinstance(value, (list, dict)) or value not in _FLAGS:
            raise self.bad(f"{field} of {self.name} is {shown(value)}; it must be 0 or 1.")
        return _FLAGS[value]

    def list(self, field: str) -> list:
        """A list of any values."""
        value = self.value(field)
        if not isinstance(value, list):
            raise self.bad(f"{field} of {self.name} is {shown(value)}; it must be a list.")
        return value

    def entries(self, field: str, kind: str) -> Iterator[Entry]:
        """The objects of a list, each checked when it is reached."""
        for index, values in enumerate(self.list(field)):
            if not isinstance(values, dict):
                raise self.bad(f"{field}[{index}] of {self.name} is {shown(values)}; it must be an object with fields.")
            yield self.part(values, kind)

    def part(self, values: Any, kind: str) -> Entry:
        """An entry of the same file and video."""
        return Entry(values, kind, file=self.file, cure=self.cure, video=self.video)

    def of_video(self, video: str) -> Entry:
        """The same entry, whose messages name the video."""
        return Entry(self.values, self.kind, file=self.file, cure=self.cure, video=video)

    def size(self) -> tuple[int, int]:
        """Height and width in pixels. Raises BadInput for a size that no picture has, before memory is taken for it."""
        height = self.whole("height", least=1)
        width = self.whole("width", least=1)
        if max(height, width) > LONGEST_SIDE or height * width > LARGEST:
            raise self.bad(f"{self.name} claims {width}x{height} pixels; at most {LARGEST:,} are read.", "too-large")
        return height, width


def is_finite(value: Any) -> bool:
    """Whether a value is a number that a float can hold, and neither NaN nor infinite."""
    try:
        return type(value) in (int, float) and isfinite(value)
    except OverflowError:
        return False


def whole_number(value: Any) -> int | None:
    """A whole number that fits 64 bits, also as 3.0 or "3"; None for anything else."""
    if type(value) is float and value.is_integer() and abs(value) <= 2**53:
        return int(value)
    if type(value) is str and (match := _WHOLE.fullmatch(value)):
        return int(match[1])
    return value if type(value) is int and -2**63 <= value < 2**63 else None


def whole_or_text(value: Any) -> int | str | None:
    """An id, as `Entry.key` reads it; None where it is no id."""
    number = whole_number(value)
    return number if number is not None else composed(value) if isinstance(value, str) else None


def shown(value: Any) -> str:
    """A value for messages, cut short."""
    if type(value) is int and abs(value) >= 10**30:
        return f"a number of {value.bit_length()} bits"
    if isinstance(value, (list, dict)):
        kind = "list" if isinstance(value, list) else "object"
        return f"a {kind} of {len(value)}"
    text = ascii(value)
    return text if len(text) <= 60 else f"{text[:60]}..."
