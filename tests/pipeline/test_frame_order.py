"""Frames whose names hold fractions, versions, signs and exponents: their order in time, or a refusal by name."""

from __future__ import annotations

import random
from contextlib import suppress

import pytest

from pipeline.errors import BadInput
from pipeline.frame_order import in_order_of_time

RIGHT = {
    "seconds by quarters": ["0.0", "0.25", "0.5", "0.75", "1.0", "1.25"],
    "without .0": ["frame_0", "frame_0.25", "frame_0.5", "frame_0.75", "frame_1", "frame_1.25"],
    "30 frames a second, rounded": [str(round(frame / 30, 2)) for frame in range(60)],
    "the same, in the middle of a second": [str(round(12 + frame / 30, 2)) for frame in range(4, 10)],
    "floats": [str(frame * 0.04) for frame in range(40)],
    "uneven floats": ["0.0333", "0.1", "0.25", "0.5"],
    "commas": ["12,25", "12,5", "12,75", "13,0"],
    "of times of day": ["2024-01-02T10.00.05.25", "2024-01-02T10.00.05.5", "2024-01-02T10.00.05.75",
                        "2024-01-02T10.00.06.0"],
    "versions": [f"1.{frame}" for frame in range(1, 13)],
    "versions from 8 on": ["1.8", "1.9", "1.10", "1.11"],
    "every second version": ["1.7", "1.9", "1.11", "1.13"],
    "two versions": ["1.9", "1.10"],
    "seconds and milliseconds": [f"0.{40 * frame}" for frame in range(20)],
    "versions of three parts": ["1.2.8", "1.2.9", "1.2.10"],
    "milliseconds": ["5ms", "40ms", "1000ms"],
    "minus signs": ["t_-10", "t_-2", "t_0", "t_3"],
    "minus signs and fractions": ["-1.0", "-0.75", "-0.5", "0.0", "0.25"],
    "dashes": ["-1", "-2", "-10"],
    "exponents": ["1e-05", "5e-05", "0.0001", "0.001"],
    "numbers without a point": ["frame01", "frame1", "frame2", "frame10"],
    "other scripts": ["\u0663.\u0662\u0665", "\u0663.\u0665", "\u0663.\u0667\u0665", "\u0664.\u0660"],
    "numbers of any length": ["x8", f"x{'9' * 5000}"],
    "as many digits": ["0.25", "0.50", "1.75"],
}
UNCLEAR = (["0.25", "0.5", "1.125"], ["1.9", "1.11"], ["a1.5_t0.25", "a1.5_t0.5", "a1.5_t0.125"],
           [f"x{'9' * 5000}.5", f"x{'9' * 5000}.25"])


@pytest.mark.parametrize("names", RIGHT.values(), ids=RIGHT)
def test_what_the_names_tell_is_the_order(names):
    shuffled = random.Random(1).sample(names, len(names))
    assert in_order_of_time(shuffled) == in_order_of_time(reversed(names)) == names


@pytest.mark.parametrize("names", UNCLEAR, ids=["fractions or not", "versions or not", "two numbers", "long"])
def test_names_that_tell_no_order_are_refused_with_two_of_them(names):
    with pytest.raises(BadInput, match=r"comes before .* if the point begins a fraction, and after it") as error:
        in_order_of_time(names)
    assert error.value.reason == "unclear-order"
    assert "0.50 for 0.5" in error.value.cure


def test_a_list_decides_if_it_is_not_that_of_the_alphabet():
    assert in_order_of_time(["9.5", "10.25", "10.5"], listed=True) == ["9.5", "10.25", "10.5"]
    assert in_order_of_time(["9.5", "10.5", "10.25"], listed=True) == ["9.5", "10.5", "10.25"]
    with pytest.raises(BadInput):
        in_order_of_time(["10.25", "10.5", "9.5"], listed=True)
    with pytest.raises(BadInput):
        in_order_of_time(["9.5", "10.5", "10.25"])


@pytest.mark.parametrize("name", ["", "1", "a", "a-", "-", "--1", "_-1", "1e", "1e+9999", "1.5.x", ".5", "5.", "e-5",
                                  "\xb2", "1.\xb2", "\ud800"])
@pytest.mark.parametrize("other", ["", "1", "1.5", "x-1", "1e-05"])
def test_names_of_any_kind_have_an_order_or_are_refused(name, other):
    with suppress(BadInput):
        assert sorted(in_order_of_time([name, other])) == sorted([name, other])
