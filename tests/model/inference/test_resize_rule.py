"""How frames enter a network at test time: the official sizes of whole frames, and the fixed canvas."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.contracts import Geometry
from model.inference import FixedCanvas, InferenceConfig, ResizeConfig

SIZES = st.tuples(st.integers(1, 3000), st.integers(1, 3000))


@pytest.mark.parametrize(("rule", "source", "resized", "padded"), [
    # mmcv's box of 854x480, which turns with the frame; 4:3 videos and small ones are enlarged to it
    ({"short_side": 480, "long_side": 854}, (720, 1280), (480, 853), (480, 864)),
    ({"short_side": 480, "long_side": 854}, (1280, 720), (853, 480), (864, 480)),
    ({"short_side": 480, "long_side": 854}, (240, 320), (480, 640), (480, 640)),
    ({"short_side": 480, "long_side": 854}, (480, 1000), (410, 854), (416, 864)),
    # 640x360
    ({"short_side": 360, "long_side": 640}, (480, 640), (360, 480), (384, 480)),
    ({"short_side": 360, "long_side": 640}, (1080, 1920), (360, 640), (384, 640)),
    # detectron2's shortest edge of 360 and 448, at most 1333
    ({"short_side": 360, "long_side": 1333}, (720, 1280), (360, 640), (384, 640)),
    ({"short_side": 448, "long_side": 1333}, (720, 1280), (448, 796), (448, 800)),
    ({"short_side": 800, "long_side": 1333}, (480, 640), (800, 1067), (800, 1088)),
    ({"short_side": 800, "long_side": 1333}, (427, 640), (800, 1199), (800, 1216)),
    ({"short_side": 800, "long_side": 1333}, (300, 640), (625, 1333), (640, 1344)),
    # whole frames at their own size
    ({}, (720, 1280), (720, 1280), (736, 1280)),
    ({}, (375, 1242), (375, 1242), (384, 1248)),
    ({"long_side": 640}, (720, 1280), (360, 640), (384, 640)),
])
def test_frames_get_the_official_sizes(rule, source, resized, padded):
    assert ResizeConfig(**rule).geometry(source) == Geometry(source=source, resized=resized, padded=padded)


@given(source=SIZES, short_side=st.integers(1, 900), spare=st.integers(0, 900))
def test_sides_stay_within_the_rule_and_the_frame_keeps_its_shape(source, short_side, spare):
    geometry = ResizeConfig(short_side=short_side, long_side=short_side + spare).geometry(source)
    assert min(geometry.resized) <= short_side
    assert max(geometry.resized) <= short_side + spare
    assert min(geometry.resized) == short_side or max(geometry.resized) == short_side + spare
    if min(geometry.resized) > 1:           # each side is rounded by half a pixel at most
        difference = geometry.resized[0] * source[1] - geometry.resized[1] * source[0]
        assert abs(difference) <= sum(source) / 2 + 1e-6
    for resized, padded in zip(geometry.resized, geometry.padded):
        assert 0 <= padded - resized < 32
        assert padded % 32 == 0


def test_the_fixed_canvas_only_shrinks_unless_it_is_filled():
    assert FixedCanvas(size=(769, 1345)).geometry((720, 1280)).resized == (720, 1280)
    assert FixedCanvas(size=(769, 1345), enlarge=True).geometry((720, 1280)).resized == (757, 1345)
    assert FixedCanvas(size=(769, 1345)).geometry((1440, 2560)).padded == (769, 1345)


@pytest.mark.parametrize(("wrong", "message"), [({"short_side": 0}, "inference.resize.short_side is 0"),
                                                ({"long_side": -1}, "inference.resize.long_side"),
                                                ({"pad_to": 0}, "inference.resize.pad_to")])
def test_impossible_rules_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        ResizeConfig(**wrong)


def test_a_rule_and_a_filled_canvas_exclude_each_other():
    with pytest.raises(ValueError, match=r"inference\.enlarge=true fills a fixed network input"):
        InferenceConfig(resize=ResizeConfig(), enlarge=True)
