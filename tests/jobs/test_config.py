"""Configurations survive JSON, refuse what they do not know, and take typed overrides."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import pytest

from jobs.config import config_digest, differences, from_json, override, to_json


@dataclass(frozen=True, kw_only=True)
class Inner:
    size: tuple[int, int] = (96, 96)
    rate: float = 0.5

    def __post_init__(self):
        if self.rate < 0:
            raise ValueError(f"rate must not be negative, got {self.rate}")


@dataclass(frozen=True, kw_only=True)
class Outer:
    name: str = "x"
    kind: Literal["a", "b"] = "a"
    inner: Inner | None = field(default_factory=Inner)
    steps: int = 3
    windows: tuple[int, ...] = (1, 2)


def test_a_config_read_back_from_json_is_the_same():
    config = Outer(inner=Inner(size=(33, 65)), windows=(1, 2, 4))
    assert from_json(Outer, to_json(config)) == config
    assert from_json(Outer, to_json(Outer(inner=None))) == Outer(inner=None)


def test_a_file_with_a_field_we_do_not_know_is_refused_by_name():
    values = to_json(Outer())
    values["inner"]["colour"] = 1
    with pytest.raises(ValueError, match=r"inner\.colour"):
        from_json(Outer, values)


def test_equal_configs_share_a_digest_and_others_do_not():
    assert config_digest(Outer()) == config_digest(Outer())
    assert config_digest(Outer()) != config_digest(Outer(steps=4))


def test_differences_name_the_field_and_both_values():
    assert differences(to_json(Outer()), to_json(Outer(inner=Inner(rate=0.25)))) == ["inner.rate: 0.5 != 0.25"]
    assert differences(to_json(Outer()), to_json(Outer())) == []


@pytest.mark.parametrize(("text", "path", "value"), [
    ("steps=7", ("steps",), 7), ("name=7", ("name",), "7"), ("inner.size=[33,65]", ("inner", "size"), (33, 65)),
    ("inner.rate=1e-3", ("inner", "rate"), 1e-3), ("kind=b", ("kind",), "b"), ("inner=null", ("inner",), None),
    ('inner={"rate":0.25}', ("inner", "rate"), 0.25), ("inner={}", ("inner",), Inner()),
])
def test_an_override_sets_one_typed_field(text, path, value):
    changed = override(Outer(), [text])
    for name in path:
        changed = getattr(changed, name)
    assert changed == value


@pytest.mark.parametrize(("text", "message"), [
    ("steps=many", "steps=many: expected int"), ("stepz=3", "did you mean .'steps'"), ("kind=c", "expected"),
    ("steps.x=3", "nothing can be set below"), ("steps", "takes path=value"), ("inner.rate=-1", "must not be negative"),
    ("inner.size=[1,2,3]", "inner.size"), ('inner={"rate":-1}', "must not be negative"),
    ('inner={"rat":1}', "has no field rat"),
])
def test_a_wrong_override_says_what_was_expected(text, message):
    with pytest.raises(ValueError, match=message):
        override(Outer(), [text])


def test_values_that_must_agree_change_together():
    @dataclass(frozen=True)
    class Pair:
        left: Inner = field(default_factory=Inner)
        right: Inner = field(default_factory=Inner)

        def __post_init__(self) -> None:
            if self.left.rate != self.right.rate:
                raise ValueError("the rates differ")

    changed = override(Pair(), ["left.rate=0.25", "right.size=[9,9]", "right.rate=0.25"])
    assert (changed.left.rate, changed.right.rate, changed.right.size) == (0.25, 0.25, (9, 9))
    with pytest.raises(ValueError, match="the rates differ"):
        override(Pair(), ["left.rate=0.25"])


def test_the_last_of_two_values_counts_and_fields_are_set_below_a_new_whole():
    assert override(Outer(), ["steps=4", "steps=5"]).steps == 5
    assert override(Outer(inner=None), ["inner.rate=0.25", 'inner={"size": [9, 9]}']).inner == Inner(
        size=(9, 9), rate=0.25)
