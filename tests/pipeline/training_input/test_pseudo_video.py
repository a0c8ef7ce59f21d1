"""A camera over a still: windows lie in the picture, it turns in one direction, and labels turn with the pixels."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.clips import AugmentConfig, Transform
from pipeline.training_input.pseudo_video import PseudoVideoConfig, draw_camera_path, draw_jitter

AUGMENT = AugmentConfig(size=(97, 129), short_side=(40, 60, 80), scale=(1.0, 1.0), color=False)
SIZES = st.tuples(st.integers(8, 90), st.integers(8, 90))


@given(source=SIZES, frames=st.integers(1, 6), seed=st.integers(0, 99))
def test_every_window_lies_in_the_still_fits_the_input_and_the_camera_turns_one_way(source, frames, seed):
    config = PseudoVideoConfig(short_side=(40, 60), crop=(20, 50), angle=15)
    path = draw_camera_path(np.random.default_rng(seed), config, AUGMENT, source, frames, still=True)
    assert len(path) == frames
    pixels = [min(source) / short_side for short_side in config.short_side]
    for transform in path:
        top, left, bottom, right = transform.box
        for first, last, side, real, limit in zip((top, left), (bottom, right), source, transform.resized,
                                                  AUGMENT.size):
            assert 0 <= first < last <= side
            assert 1 <= real <= limit
            assert any(min(20 * pixel, side) - 1 <= last - first <= min(50 * pixel, side) + 1 for pixel in pixels)
        assert transform.resized[0] / (bottom - top) == pytest.approx(
            transform.resized[1] / (right - left), abs=1.0 / min(bottom - top, right - left))
    angles = [transform.angle for transform in path]
    assert angles == sorted(angles)
    assert max(map(abs, angles)) <= 15
    assert len({transform.flip for transform in path}) == 1


def test_a_camera_that_covers_the_still_and_does_not_turn_is_at_rest():
    config = PseudoVideoConfig(crop=(5000, 9000), angle=0)
    path = draw_camera_path(np.random.default_rng(0), config, AUGMENT, (50, 70), 4, still=True)
    assert len(set(path)) == 1
    assert path[0].box == (0, 0, 50, 70)


STRAIGHT = PseudoVideoConfig(short_side=(40, 60), crop=(20, 50), angle=15, of_videos=1.0, motion="straight")


@given(source=SIZES, frames=st.integers(1, 6), seed=st.integers(0, 99), still=st.booleans())
def test_a_straight_path_has_one_size_stays_in_the_source_and_never_turns_back(source, frames, seed, still):
    augment = AugmentConfig(size=None, short_side=(40, 60), long_side=90, pad_to=32, scale=(1.0, 1.0), color=False)
    path = draw_camera_path(np.random.default_rng(seed), STRAIGHT, augment, source, frames, still=still)
    assert len({(t.resized, t.padded, t.flip, t.pivot) for t in path}) == 1
    boxes = np.array([transform.box for transform in path])
    assert len({(bottom - top, right - left) for top, left, bottom, right in boxes.tolist()}) == 1
    assert (boxes[:, :2] >= 0).all()
    assert (boxes[:, 2:] <= source).all()
    height, width = boxes[0, 2:] - boxes[0, :2]
    scales = [short_side / min(source) for short_side in STRAIGHT.short_side]
    assert any(all(min(20 / scale, side) - 1 <= kept <= min(50 / scale, side) + 1
                   for kept, side in zip((height, width), source)) for scale in scales)
    steps = np.diff(boxes[:, :2], axis=0)
    assert (steps >= 0).all() or (steps <= 0).all()
    way, across = (boxes[:, axis] - boxes[0, axis] for axis in (0, 1))      # one and the same share of both ways
    assert (np.abs(way * across[-1] - across * way[-1]) <= abs(way[-1]) + abs(across[-1]) + 1).all()
    angles = [transform.angle for transform in path]
    assert angles in (sorted(angles), sorted(angles, reverse=True))
    assert all(0.4 <= fraction <= 0.6 for fraction in path[0].pivot)
    assert still or not any(angles)


def test_a_still_without_a_window_is_whole_and_turns_while_a_video_is_at_rest():
    config = PseudoVideoConfig(motion="straight", of_stills=0.0)
    still, video = (draw_camera_path(np.random.default_rng(0), config, AUGMENT, (50, 70), 4, still=is_still)
                    for is_still in (True, False))
    assert {transform.box for transform in (*still, *video)} == {(0, 0, 50, 70)}
    assert len({transform.angle for transform in still}) == 4
    assert len(set(video)) == 1
    independent = draw_camera_path(np.random.default_rng(0), PseudoVideoConfig(of_stills=0.0), AUGMENT, (50, 70), 4,
                                   still=True)
    assert {transform.box for transform in independent} == {(0, 0, 50, 70)}


def test_a_frame_turns_about_its_pivot_and_nothing_is_seen_beside_a_window_that_is_cut_first():
    ids = np.ones((24, 24), np.uint8)
    ids[6, 18] = 2
    about = {"source": (24, 24), "box": (4, 8, 24, 24), "resized": (20, 16), "padded": (20, 16)}
    held = Transform(**about, angle=90.0, pivot=(2.5 / 20, 10.5 / 16), cut_first=True).ids(ids)
    assert held[2, 10] == 2                     # the pivot stays where it is
    assert (held == 0).any()
    assert (Transform(**about, angle=20.0).ids(ids) == 1).sum() > (
        Transform(**about, angle=20.0, cut_first=True).ids(ids) == 1).sum()


def test_frames_of_a_jittered_still_are_scaled_and_cropped_apart_as_video_kmax_draws_them():
    """2000 clips of a 480x640 still at 1281x1281: per frame s from 0.2 to 2.0, times 1281 / 640, then a crop anywhere.

    Bounds are four standard errors. A frame of s below 1 fits, so its width tells s.
    """
    rng = np.random.default_rng(0)
    augment = AugmentConfig(size=(1281, 1281), scale=(0.2, 2.0), flip=0.5)
    clips = [draw_jitter(rng, augment, (480, 640), 2) for _ in range(2000)]
    assert all(first.flip == second.flip and first.color == second.color for first, second in clips)
    assert np.mean([clip[0].flip for clip in clips]) == pytest.approx(0.5, abs=4 * 0.5 / 2000 ** 0.5)
    widths = np.array([[transform.resized[1] for transform in clip] for clip in clips]) / 1281
    fits = widths < 1
    assert fits.mean() == pytest.approx(0.8 / 1.8, abs=4 * 0.5 / 4000 ** 0.5)
    assert widths[fits].mean() == pytest.approx(0.6, abs=4 * 0.8 / 12 ** 0.5 / fits.sum() ** 0.5)
    assert abs(np.corrcoef(fits.T)[0, 1]) < 4 / 2000 ** 0.5
    assert (fits[:, 0] & ~fits[:, 1]).mean() == pytest.approx(0.8 / 1.8 * 1.0 / 1.8, abs=4 * 0.5 / 2000 ** 0.5)
    cropped = [transform.box for clip in clips for transform in clip if transform.box[3] - transform.box[1] < 600]
    places = [left / (640 - (right - left)) for _, left, _, right in cropped]
    assert np.mean(places) == pytest.approx(0.5, abs=4 / 12 ** 0.5 / len(places) ** 0.5)
    assert (min(places), max(places)) == pytest.approx((0, 1), abs=0.02)


def turned(angle: float, **changes) -> Transform:
    square = {"source": (24, 24), "box": (0, 0, 24, 24), "resized": (24, 24), "padded": (24, 24)}
    return Transform(**{**square, **changes}, angle=angle)


@pytest.mark.parametrize("quarter", [1, 2, 3])
def test_quarter_turns_only_move_pixels(quarter):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (24, 24, 3), dtype=np.uint8)
    ids = rng.integers(0, 9, (24, 24), dtype=np.uint8)
    transform = turned(90.0 * quarter)
    assert np.array_equal(transform.ids(ids), np.rot90(ids, quarter))
    assert np.abs(transform.image(image).astype(int) - np.rot90(image, quarter).transpose(2, 0, 1)).max() <= 1


@pytest.mark.parametrize("flip", [False, True])
def test_a_tiny_turn_changes_almost_nothing(flip):
    rng = np.random.default_rng(0)
    ids = np.kron(rng.integers(0, 9, (5, 7), dtype=np.uint16), np.ones((8, 8), np.uint16))
    image = np.kron(rng.integers(0, 256, (5, 7, 3), dtype=np.uint8), np.ones((8, 8, 1), np.uint8))
    shape = {"source": (40, 56), "box": (8, 8, 32, 40), "resized": (48, 64), "padded": (50, 70), "flip": flip}
    still = turned(0.0, **shape)
    moved = turned(1e-6, **shape)
    assert (still.ids(ids) != moved.ids(ids)).mean() < 0.02          # nearest pixels at the borders of the blocks
    assert np.abs(still.image(image).astype(int) - moved.image(image)).mean() < 1.5
    assert np.array_equal(moved.ids(ids, at=(slice(2, None, 4), slice(2, None, 4))), moved.ids(ids)[2::4, 2::4])


@given(angle=st.floats(-45, 45), flip=st.booleans(), box=st.sampled_from([(0, 0, 40, 60), (5, 9, 33, 50)]))
def test_labels_turn_with_their_pixels_and_beside_the_still_all_is_void(angle, flip, box):
    ids = np.ones((40, 60), np.uint8)
    ids[10:30, 20:35] = 2
    image = np.array([0, 100, 250], np.uint8)[ids][..., None].repeat(3, axis=2)
    transform = Transform(source=(40, 60), box=box, resized=(56, 70), padded=(57, 73), flip=flip, angle=angle)
    turned_image = transform.image(image)[0]
    labels = transform.ids(ids)
    sure = [(turned_image == color) & (labels != id) for id, color in ((0, 0), (1, 100), (2, 250))]
    assert not sure[1].any()
    assert not sure[2].any()
    assert sure[0].mean() < 0.02       # edge pixels that are almost black
    assert not labels[56:].any()
    assert not labels[:, 70:].any()


@pytest.mark.parametrize("wrong", [{"short_side": ()}, {"crop": (600, 384)}, {"crop": (0, 9)}, {"angle": 180.0},
                                   {"of_videos": 1.5}, {"of_stills": -0.5}])
def test_impossible_paths_are_refused(wrong):
    with pytest.raises(ValueError, match="pseudo_video"):
        PseudoVideoConfig(**wrong)
