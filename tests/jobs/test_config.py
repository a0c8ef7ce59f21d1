"""Configurations come back from JSON, refuse unknown fields, and take typed overrides."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass, field
from typing import Literal

import pytest

from jobs.config import assignments, config_digest, differences, from_json, override, to_json


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


def test_a_file_with_an_unknown_field_is_refused_by_name():
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
    ('inner={"rat":1}', r"inner={\"rat\":1}: inner\.rat: Inner has no field 'rat'; did you mean \['rate'\]"),
    ('inner={"rate":', "the value is not JSON"),
])
def test_a_wrong_override_names_the_expected_type(text, message):
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


@dataclass(frozen=True, kw_only=True)
class Round:
    kind: Literal["round"] = "round"
    radius: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Sharp:
    kind: Literal["sharp"] = "sharp"
    angle: int = 90


@dataclass(frozen=True, kw_only=True)
class Circle:
    kind: Literal["circle"] = "circle"
    colour: str = "red"
    radius: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Square:
    kind: Literal["square"] = "square"
    colour: str = "red"
    side: float = 1.0
    corner: Round | Sharp | None = None

    def __post_init__(self) -> None:
        if self.side <= 0:
            raise ValueError(f"side must be above 0, got {self.side}")


@dataclass(frozen=True, kw_only=True)
class Label:
    kind: Literal["label"] = "label"
    text: str                       # has no default


Shape = Circle | Square


@dataclass(frozen=True, kw_only=True)
class Drawing:
    shape: Shape = field(default_factory=Circle)
    frame: Shape | Label | None = None


ROUND = Drawing(shape=Square(side=2.0, corner=Round(radius=0.5)), frame=Label(text="a"))


@pytest.mark.parametrize("drawing", [Drawing(), ROUND, Drawing(shape=Square(corner=Sharp()), frame=Circle())])
def test_members_of_unions_come_back_by_their_kind(drawing):
    assert from_json(Drawing, to_json(drawing)) == drawing
    assert from_json(Shape, to_json(drawing.shape)) == drawing.shape


def without_kinds(values):
    return {k: without_kinds(v) for k, v in values.items() if k != "kind"} if isinstance(values, dict) else values


@pytest.mark.parametrize("drawing", [Drawing(), ROUND, Drawing(shape=Square(corner=Sharp()), frame=Circle())])
def test_values_without_a_kind_are_read_as_the_member_that_has_most_of_their_fields(drawing):
    values = without_kinds(to_json(drawing))
    assert "kind" not in str(values)
    assert from_json(Drawing, values) == drawing


def test_among_members_with_as_many_fields_the_first_that_can_be_built_is_taken():
    @dataclass(frozen=True)
    class Word:
        value: Literal["a", "b"]

    @dataclass(frozen=True)
    class Digit:
        value: int

    assert from_json(Word | Digit, {"value": "b"}) == Word("b")
    assert from_json(Word | Digit, {"value": 3}) == Digit(3)
    assert from_json(Circle | Square, {"colour": "blue"}) == Circle(colour="blue")


def test_the_fields_of_a_nested_member_decide_where_the_outer_ones_are_equal():
    @dataclass(frozen=True)
    class Pebble:
        edge: Round | None = None

    @dataclass(frozen=True)
    class Brick:
        edge: Sharp | None = None

    assert from_json(Pebble | Brick, {"edge": {"angle": 45}}) == Brick(Sharp(angle=45))
    assert from_json(Pebble | Brick, {"edge": None}) == Pebble()


@pytest.mark.parametrize(("values", "message"), [
    ({"shape": {"kind": "cube"}}, "shape: there is no kind 'cube'; choose one of circle, square$"),
    ({"shape": {"kind": 3}}, "shape: there is no kind 3; choose one of circle, square$"),
    ({"frame": {"kind": "cube", "side": 2}}, "frame: there is no kind 'cube'; choose one of circle, square, label$"),
    ({"shape": {"kind": "square", "corner": {"kind": "flat"}}},
     r"shape\.corner: there is no kind 'flat'; choose one of round, sharp$"),
    ({"shape": {"kind": "square", "radius": 2}}, r"shape\.radius: Square has no field 'radius'"),
    ({"shape": {"kind": "circle", "radius": "wide"}}, r"expected Circle; shape\.radius: .* valid number"),
    ({"shape": {"kind": "square", "side": -1}}, "expected Square; shape: side must be above 0, got -1"),
    ({"shape": {"kind": "square", "corner": {"kind": "sharp", "angle": "wide"}}},
     r"expected Sharp; shape\.corner\.angle: .* valid integer"),
    ({"shape": {"colour": "blue", "side": "wide"}}, r"expected Square; shape\.side: .* valid number"),
    ({"shape": {"colour": "blue", "side": 1, "weight": 3}}, r"shape\.weight: Square has no field 'weight'"),
    ({"shape": {"corner": {"angel": 3}}}, r"shape\.corner\.angel: Round has no field 'angel'"),
    ({"frame": {"kind": "label"}}, r"expected Label; frame\.text: Field required"),
    ({"shape": "cone"}, 'shape: expected a JSON object with "kind" set to one of circle, square, got .cone'),
])
def test_values_that_do_not_fit_are_refused_in_the_words_of_the_member_that_was_meant(values, message):
    with pytest.raises(ValueError, match=message) as caught:
        from_json(Drawing, values)
    assert "written by another version, or describe no Drawing" in str(caught.value)
    [(name, value)] = values.items()
    text = value if isinstance(value, str) else json.dumps(value)
    with pytest.raises(ValueError, match=f"^--set {name}=.*{message}"):
        override(Drawing(), [f"{name}={text}"])


@pytest.mark.parametrize(("assignments", "drawing"), [
    (['shape={"kind": "square", "side": 2}'], Drawing(shape=Square(side=2.0))),
    (['shape={"side": 2}'], Drawing(shape=Square(side=2.0))),
    (['frame={"kind": "label", "text": "b"}'], Drawing(frame=Label(text="b"))),
    (["frame=null"], Drawing()),
    (["shape.kind=square"], Drawing(shape=Square())),
    (["shape=square"], Drawing(shape=Square())),
    (["shape.kind=square", "shape.side=3"], Drawing(shape=Square(side=3.0))),
    (["shape.side=3", "shape.kind=square", "shape.corner.kind=sharp", "shape.corner.angle=45"],
     Drawing(shape=Square(side=3.0, corner=Sharp(angle=45)))),
    (["shape.colour=blue", "shape.kind=circle"], Drawing(shape=Circle(colour="blue"))),
    (["shape=circle"], Drawing(shape=Circle())),
])
def test_an_override_chooses_a_member_by_its_kind(assignments, drawing):
    assert override(Drawing(), assignments) == drawing


def test_the_kind_a_member_has_already_keeps_its_fields():
    assert override(ROUND, ["shape.kind=square", "shape.colour=blue"]) == Drawing(
        shape=Square(colour="blue", side=2.0, corner=Round(radius=0.5)), frame=Label(text="a"))


@pytest.mark.parametrize(("assignment", "message"), [
    ("shape.kind=cube", "--set shape.kind=cube: shape: there is no kind 'cube'; choose one of circle, square$"),
    ("frame.kind=label", r"--set frame.kind=label: expected Label; frame\.text: Field required"),
])
def test_a_kind_that_cannot_be_chosen_is_refused(assignment, message):
    with pytest.raises(ValueError, match=message):
        override(Drawing(), [assignment])


def test_a_text_that_begins_with_a_bracket_is_written_as_the_message_says():
    with pytest.raises(ValueError, match="is not JSON") as refused:
        override(Outer(), ["name=[a] b"])
    _, _, command = str(refused.value).rpartition("--set ")
    assert override(Outer(), shlex.split(command)).name == "[a] b"
    again = override(Outer(), assignments(to_json(Outer()), to_json(Outer(name="[a] b"))))
    assert again.name == "[a] b"


def test_one_element_of_a_list_may_be_given_alone():
    assert override(Outer(), ["windows=7"]).windows == (7,)
    with pytest.raises(ValueError, match=r"windows"):
        override(Outer(), ["windows=x"])


@pytest.mark.parametrize(("assignment", "message"), [
    ("steps=true", "a number, not true or false"), ("inner.rate=false", "a number, not true or false"),
    ("inner.rate=NaN", "a number, not NaN")])
def test_what_only_looks_like_a_number_is_refused(assignment, message):
    with pytest.raises(ValueError, match=message) as refused:
        override(Outer(), [assignment])
    assert assignment in str(refused.value)
