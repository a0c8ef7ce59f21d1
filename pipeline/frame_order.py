"""The order of a video's frames where only their names tell it: numbers count as numbers, whatever their length.

A point or comma inside a number has two meanings: it begins a fraction (0.25 before 0.5), or it separates two numbers
(1.9 before 1.10). Where these give different orders, the names themselves decide, or the frames are refused.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from decimal import Decimal
from fractions import Fraction
from functools import partial
from itertools import pairwise

from pipeline.errors import BadInput
from pipeline.file_names import natural

MICROSECOND = Fraction(1, 10**6)        # floats that count seconds differ by less from what they mean
_FRACTION = re.compile(r"(?<!\d)(\d+)[.,](\d+)(?![.,]?\d)")     # of 10.00.05.5, the last two numbers
_EXPONENT = r"(?:e[+-]\d{1,3}(?![0-9a-z]))?"
_MINUS = r"(?<![^_=\s])-"               # at the start, or after one of these; elsewhere a dash separates
_VALUE = re.compile(rf"({_MINUS})?((?<!\d)\d+(?:[.,]\d+(?![.,]?\d))?{_EXPONENT})", re.IGNORECASE)
_WHOLE = re.compile(rf"({_MINUS})?(\d+)")
_HAS_FRACTION = re.compile(rf"\d[.,]\d|\d{_EXPONENT[:-1]}", re.IGNORECASE)


def in_order_of_time(names: Iterable[str], *, listed: bool = False) -> list[str]:
    """The names of a video's frames, without suffix, in the order of time.

    It is the natural order. A minus sign counts where the same names have numbers without it. A point begins a fraction
    where only then the steps are even, or where as a number of its own the part behind it would be padded (0.05 beside
    0.5) or occur twice; it separates where only then the steps are even, or where a fraction would end in 0 (1.10) or
    equal another. listed: the names come in the order of a file, which decides for one of the two if it is not that of
    the alphabet. Raises BadInput "unclear-order" where nothing decides.
    """
    names = list(names)
    signed = _has_minus(names)
    by_parts = sorted(names, key=partial(_key, number=_WHOLE) if signed else natural)
    if not any(map(_HAS_FRACTION.search, names)):
        return by_parts
    by_value = sorted(names, key=partial(_key, number=_VALUE, signed=signed))
    if by_parts == by_value:
        return by_parts
    orders = {"value": by_value, "parts": by_parts}
    decided = _even(names) or _without_oddity(names) or [
        reading for reading, order in orders.items() if listed and names == order != sorted(names)]
    if len(decided) == 1:
        return orders[decided[0]]
    first, other = next((a, b) for a, b in zip(by_value, by_parts) if a != b)
    raise BadInput("unclear-order", f"the frame {first[-60:]!r} comes before {other[-60:]!r} if the point begins "
                   "a fraction, and after it if the point separates two numbers.",
                   cure="Rename the frames so that all have as many digits after the point (0.50 for 0.5, or 1.09 for "
                   "1.9), in the labels too.")


def _key(name: str, *, number: re.Pattern, signed: bool = True) -> tuple:
    """Texts and numbers in turn, then the name itself."""
    parts: list[str | Decimal] = []
    end = 0
    for match in number.finditer(name):
        minus = bool(match[1]) and signed
        parts += [name[end:match.start() if minus else match.start(2)],
                  Decimal(f"{'-' * minus}{match[2].replace(',', '.')}")]
        end = match.end()
    return (*parts, name[end:]), name


def _has_minus(names: Sequence[str]) -> bool:
    """Whether a dash before a number is a sign: other names have a number in its place without one."""
    signed = set()
    plain = set()
    for name in names:
        for match in _WHOLE.finditer(name):
            (signed if match[1] else plain).add(name[:match.start()])
    return bool(signed & plain)


def _even(names: Sequence[str]) -> list[str]:
    """The readings in which the steps between frames are equal, if these are at least two; fractions may be rounded."""
    split = _split(names)
    if split is None:
        return []
    values = defaultdict(list)
    parts = defaultdict(list)
    for rest, whole, fraction in split:
        values[rest].append(Fraction(f"{whole}.{fraction or 0}"))
        if fraction:
            parts[rest, int(whole)].append(int(fraction))
    rounding = max(Fraction(1, 10**max(len(fraction) for _, _, fraction in split)), MICROSECOND)
    return [reading for reading, groups, tolerance in (("value", values, rounding), ("parts", parts, 0))
            if len(steps := _steps(groups.values())) > 1 and min(steps) > 0 and max(steps) - min(steps) <= tolerance]


def _steps(groups: Iterable[Sequence[Fraction | int]]) -> list[Fraction | int]:
    return [after - before for group in groups for before, after in pairwise(sorted(group))]


def _split(names: Sequence[str]) -> list[tuple[tuple[str, str], str, str]] | None:
    """What stands around the fraction of each name, its whole part and its digits, none in a name such as 1 beside 1.5.

    None where a name has several fractions or none.
    """
    split = []
    whole = []
    for name in names:
        match list(_FRACTION.finditer(name)):
            case [match] if len(match[0]) < 300:
                split.append(((name[:match.start()], name[match.end():]), match[1], match[2]))
            case []:
                whole.append(name)
            case _:
                return None
    around = {rest for rest, _, _ in split}
    for name in whole:
        places = [(rest, match[0], "") for match in re.finditer(r"\d+", name)
                  if (rest := (name[:match.start()], name[match.end():])) in around and len(match[0]) < 300]
        if len(places) != 1:
            return None
        split += places
    return split


def _without_oddity(names: Sequence[str]) -> list[str]:
    """The reading that is not odd, where the other is."""
    fractions = [match[2] for name in names for match in _FRACTION.finditer(name)]
    long = [fraction for fraction in fractions if len(fraction) > 1]
    values = {_key(name, number=_VALUE)[0] for name in names}
    parts = {natural(name)[0] for name in names}
    odd = {"value": len(values) < len(names) or any(fraction[-1] == "0" for fraction in long),
           "parts": len(parts) < len(names) or any(fraction[0] == "0" for fraction in long)}
    return [reading for reading, is_odd in odd.items() if not is_odd] if any(odd.values()) else []
