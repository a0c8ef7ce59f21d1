"""Colours: stable, distinct to the eye for tracks, unique as identifiers."""

from __future__ import annotations

import numpy as np
import pytest

from model.contracts import VideoSegment
from model.labels import VOID, ClassInfo, ClassTable, panoptic_id
from pipeline.datasets import OFFICIAL_CLASSES
from pipeline.datasets.synthetic import SyntheticConfig, world_classes
from pipeline.datasets.synthetic_things import COLORS, STUFF, THINGS
from pipeline.images import ids_from_rgb
from pipeline.visualise.palette import APART, CLEAR, color_of, paint, palette, unique_colors

CLASSES = ClassTable("few", (ClassInfo(1, "cat", True, (200, 30, 30)), ClassInfo(2, "black", True, (0, 0, 0)),
                             ClassInfo(3, "sky", False, (70, 130, 180)), ClassInfo(4, "sea", False, (70, 130, 180)),
                             ClassInfo(5, "dog", True, (70, 130, 180))))


def segments_of(pairs):
    return {panoptic_id(c, t): VideoSegment(class_index=c, track=t) for c, t in pairs}


def distances(some, others) -> np.ndarray:
    return np.linalg.norm(np.array(list(some), float)[:, None] - np.array(list(others), float), axis=-1)


def test_stuff_and_crowds_have_the_class_colour_and_objects_have_not():
    colors = palette(segments_of([(0, 0), (0, 1), (2, 0)]), CLASSES)
    assert colors[panoptic_id(0, 0)] == (200, 30, 30)
    assert colors[panoptic_id(2, 0)] == (70, 130, 180)
    assert distances([colors[panoptic_id(0, 1)]], [info.color for info in CLASSES.classes]).min() >= CLEAR


def test_a_track_keeps_its_colour_whatever_else_is_in_the_video():
    alone = segments_of([(0, 5)])
    together = segments_of([(0, 5), (0, 1), (4, 2), (2, 0)])
    assert palette(alone, CLASSES)[5] == palette(together, CLASSES)[5]


@pytest.mark.parametrize("classes", [CLASSES, world_classes(SyntheticConfig()), *OFFICIAL_CLASSES.values()],
                         ids=lambda classes: classes.name)
def test_objects_are_told_apart_and_from_the_classes(classes):
    things = np.flatnonzero(classes.is_thing)
    for index in things[:8]:
        colors = [color_of(VideoSegment(class_index=index, track=track), classes) for track in range(1, 17)]
        between = distances(colors, colors)
        assert between[~np.eye(16, dtype=bool)].min() >= APART
        assert distances(colors, [info.color for info in classes.classes]).min() >= (
            CLEAR if len(classes) < 10 else 50)
    firsts = {color_of(VideoSegment(class_index=index, track=1), classes) for index in things[:8]}
    assert len(firsts) == len(things[:8])


def test_an_object_of_the_demo_is_seen_on_the_thing_that_it_covers():
    config = SyntheticConfig()
    classes = world_classes(config)
    drawn = [COLORS[kind] for kind in (*THINGS[:config.things], *STUFF[:config.stuff])]
    for index in np.flatnonzero(classes.is_thing):
        colors = [color_of(VideoSegment(class_index=index, track=track), classes) for track in range(1, 9)]
        assert distances(colors, drawn).min() >= 60     # a thing is drawn up to 35 from the colour of its kind


def test_identifiers_never_collide_however_many_tracks_and_however_like_the_class_colours():
    pairs = [(c, t) for c in (0, 1, 4) for t in range(1, 700)] + [(2, 0), (3, 0)]
    colors = unique_colors(segments_of(pairs), CLASSES)
    assert len(set(colors.values())) == len(pairs)
    assert (0, 0, 0) not in colors.values()
    assert colors[panoptic_id(2, 0)] == (70, 130, 180)
    assert colors[panoptic_id(4, 1)] != (70, 130, 180)     # a stuff colour, whether or not that stuff is there
    assert unique_colors(segments_of([(4, 1)]), CLASSES) != {panoptic_id(4, 1): (70, 130, 180)}


def test_painting_is_undone_by_reading_the_colours_as_numbers():
    ids = np.array([[VOID, 3], [70_000, 3]], np.int32)
    colors = {3: (1, 2, 3), 70_000: (255, 254, 253)}
    picture = paint(ids, colors)
    assert picture.tolist() == [[[0, 0, 0], [1, 2, 3]], [[255, 254, 253], [1, 2, 3]]]
    assert ids_from_rgb(picture)[1, 0] == 255 + 256 * 254 + 65536 * 253
    assert not paint(np.full((2, 2), VOID, np.int32), {}).any()
