"""Class tables as people's files list them: rows of id, name, isthing and color, in any common form."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from PIL import ImageColor

from model.labels import ClassInfo, ClassTable
from pipeline.datasets.classes_youtube_vis import distinct_color
from pipeline.datasets.json_entries import Entry, shown

Color = tuple[int, int, int]
_HEX = re.compile(r"#([0-9a-fA-F]{3})|#?([0-9a-fA-F]{6})(?:[0-9a-fA-F]{2})?")
_NUMBERS = re.compile(r"(?:rgba?)?[\[(]?([0-9.,\s]+)[\])]?")
_NUMBER = re.compile(r"[0-9]+(?:\.[0-9]*)?|\.[0-9]+")


def table_of_rows(name: str, rows: Iterable[Entry], *, only_stuff: bool = False, things: bool | None = None,
                  sort: bool = False, lowest: int = 0) -> ClassTable:
    """The classes of `rows` in their order, or by id.

    things: what a class without isthing is; None: isthing is needed. only_stuff: isthing is ignored. Colours may be 0
    to 255, fractions, or texts such as "#ff8000"; a class without one gets a colour that is computed from its id.
    Raises BadInput for a row that lacks a field, and for an id below `lowest` or used twice; ValueError without rows.
    """
    rows = list(rows)
    ids = [row.whole("id", least=lowest) for row in rows]
    if twice := sorted({id for id in ids if ids.count(id) > 1}):
        raise rows[0].bad(f"{len(ids)} categories use the ids {twice[:5]} twice; each class needs its own id.",
                          "duplicate-id")
    infos = [ClassInfo(id, row.text("name"), not only_stuff and _is_thing(row, things), color)
             for id, row, color in zip(ids, rows, colors_of(rows, ids), strict=True)]
    return ClassTable(name, tuple(sorted(infos, key=lambda info: info.dataset_id) if sort else infos))


def colors_of(rows: Sequence[Entry], ids: Sequence[int]) -> list[Color]:
    """The colour of every row; fractions are told from 0 to 255 by all rows together, as black and red are both."""
    written = [_written(row) for row in rows]
    numbers = [number for color in written if isinstance(color, list) for number in color]
    fractions = bool(numbers) and max(numbers) <= 1 and (any(0 < number < 1 for number in numbers)
                                                         or all(isinstance(number, float) for number in numbers))
    colors = []
    for row, id, color in zip(rows, ids, written, strict=True):
        color = _checked(row, color, 255 if fractions else 1) if isinstance(color, list) else color
        colors.append(color or distinct_color(id))
    return colors


def _written(row: Entry) -> Color | list[float] | None:
    """The colour of a row: red, green and blue if it is told in hex, else its numbers; None without one."""
    value: Any = row.values.get("color")
    if value is None:
        return None
    if isinstance(value, str) and (match := _HEX.fullmatch(value.strip())):
        digits = match[2] or "".join(2 * digit for digit in match[1])
        return int(digits[:2], 16), int(digits[2:4], 16), int(digits[4:], 16)
    if isinstance(value, str) and (match := _NUMBERS.fullmatch(value.strip())):
        value = _NUMBER.findall(match[1])
    elif isinstance(value, str) and (color := _colour_of_css(value)):
        return color
    if isinstance(value, dict) and value.keys() >= set("rgb"):
        value = [value[part] for part in "rgb"]
    if isinstance(value, list) and value and all(isinstance(part, str) and _NUMBER.fullmatch(part) for part in value):
        value = [float(part) if "." in part else int(part) for part in value]
    if isinstance(value, list) and len(value) in (3, 4) and all(type(part) in (int, float) for part in value[:3]):
        return value[:3]        # a fourth is alpha
    raise row.bad(f"color of {row.name} is {shown(row.values['color'])}; it must be three numbers from 0 to 255, three "
                  "fractions, or a text such as '#ff8000' or 'red'.")


def _colour_of_css(text: str) -> Color | None:
    """Red, green and blue of a colour by name, in hex of other lengths, with percent signs, or as hsl; else None."""
    try:
        red, green, blue, *_ = ImageColor.getrgb(text.strip().replace("0x", "#", 1))
    except ValueError:
        return None
    return (red, green, blue) if max(red, green, blue) <= 255 else None


def _checked(row: Entry, color: Sequence[float], scale: int) -> Color:
    if not all(0 <= part * scale <= 255 for part in color) or (scale == 1 and any(0 < part < 1 for part in color)):
        raise row.bad(f"color of {row.name} is {list(color)}; its parts must lie between 0 and 255, or all between 0 "
                      "and 1.")
    return tuple(round(part * scale) for part in color)


def _is_thing(row: Entry, unless_told: bool | None) -> bool:
    if "isthing" not in row.values and unless_told is not None:
        return unless_told
    row.value("isthing")
    return row.flag("isthing")
