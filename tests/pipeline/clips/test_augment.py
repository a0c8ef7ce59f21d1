"""A transform is the same for all frames of a clip, and maps image and ids alike."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from PIL import Image

from pipeline.clips.augment import AugmentConfig, ColorJitter, Transform, draw_transform

PLAIN = AugmentConfig(size=(65, 97), color=False)


def blocks(height: int, width: int, *, side: int = 16) -> np.ndarray:
    """H W uint8 ids 1 ..., in squares."""
    rows, columns = np.mgrid[:height, :width] // side
    return (1 + rows * (-(-width // side)) + columns).astype(np.uint8)


def as_image(ids: np.ndarray) -> np.ndarray:
    """H W 3: an image whose first colour is the id."""
    return np.stack([ids, ids // 2, 255 - ids], axis=-1)


def inner(ids: np.ndarray, *, margin: int) -> np.ndarray:
    """Pixels whose neighbourhood has one id."""
    same = np.ones(ids.shape, dtype=bool)
    for axis in (0, 1):
        for shift in range(-margin, margin + 1):
            same &= np.roll(ids, shift, axis) == ids
    return same


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), height=st.integers(1, 150), width=st.integers(1, 150))
def test_ids_stay_on_their_image(seed, height, width):
    ids = blocks(height, width)
    transform = draw_transform(np.random.default_rng(seed), PLAIN, (height, width))
    image = transform.image(as_image(ids))
    labels = transform.ids(ids)
    assert image.shape == (3, 65, 97)
    assert labels.shape == (65, 97)
    rows, columns = transform.resized
    real = np.zeros((65, 97), dtype=bool)
    real[:rows, :columns] = True
    assert_array_equal(labels > 0, real)
    assert not image[:, ~real].any()
    # Away from borders, bilinear and nearest agree; a margin of 2 covers half pixels and the one that halving drops.
    sure = inner(labels, margin=2)
    assert_array_equal(image[0][sure], labels[sure])


def test_cutting_first_equals_scaling_the_whole_frame_first_within_a_pixel():
    """Colours are coordinates here, so they show the source of each pixel of the result."""
    rows, columns = np.mgrid[:120, :160].astype(np.float64)
    frame = np.stack([rows * 2, columns * 1.5, rows], axis=-1).astype(np.uint8)
    rng = np.random.default_rng(0)
    for _ in range(50):
        transform = draw_transform(rng, replace(PLAIN, flip=0.0), (120, 160))
        top, left, bottom, right = transform.box
        result = transform.image(frame)[:, :transform.resized[0], :transform.resized[1]]
        expected = top + (np.arange(transform.resized[0]) + 0.5) * (bottom - top) / transform.resized[0] - 0.5
        source_pixel = max((bottom - top) / transform.resized[0], 1)
        assert np.abs(result[2].mean(axis=1) - expected).max() <= 1.5 * source_pixel
        assert abs((bottom - top) / transform.resized[0] - (right - left) / transform.resized[1]) < 0.1 * source_pixel


def test_flipping_twice_is_the_identity():
    frame = np.random.default_rng(0).integers(0, 256, (33, 49, 3), dtype=np.uint8)
    flip = Transform(source=(33, 49), box=(0, 0, 33, 49), resized=(33, 49), padded=(33, 49), flip=True)
    once = flip.image(frame)
    assert (once != frame.transpose(2, 0, 1)).any()
    assert_array_equal(flip.image(np.ascontiguousarray(once.transpose(1, 2, 0))), frame.transpose(2, 0, 1))
    assert_array_equal(flip.ids(flip.ids(frame[..., 0])), frame[..., 0])


def test_scale_one_of_a_frame_that_fits_changes_nothing():
    config = AugmentConfig(size=(64, 96), scale=(1.0, 1.0), flip=0.0, color=False)
    frame = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    transform = draw_transform(np.random.default_rng(0), config, (64, 96))
    assert_array_equal(transform.image(frame), frame.transpose(2, 0, 1))


def test_scales_are_uniform_over_the_range_and_relative_to_the_largest_fit():
    config = AugmentConfig(size=(769, 1345), scale=(0.3, 1.7))
    rng = np.random.default_rng(0)
    drawn = [draw_transform(rng, config, (720, 1280)) for _ in range(4000)]
    scales = np.array([t.resized[1] / (t.box[3] - t.box[1]) for t in drawn]) / (1345 / 1280)
    assert scales.min() == pytest.approx(0.3, abs=0.01)
    assert scales.max() == pytest.approx(1.7, abs=0.01)
    assert np.histogram(scales, bins=7, range=(0.295, 1.705))[0] == pytest.approx(4000 / 7, rel=0.15)
    assert np.mean([t.flip for t in drawn]) == pytest.approx(0.5, abs=0.03)


def test_short_sides_are_drawn_evenly_whichever_side_is_short():
    config = AugmentConfig(size=(2000, 2000), short_side=(288, 400, 512), scale=(1.0, 1.0))
    rng = np.random.default_rng(0)
    for source in ((720, 1280), (1280, 720)):
        sides = [min(draw_transform(rng, config, source).resized) for _ in range(1500)]
        assert {side: sides.count(side) for side in set(sides)} == pytest.approx(dict.fromkeys((288, 400, 512), 500),
                                                                                 rel=0.15)


def test_the_scale_multiplies_the_short_side_and_larger_frames_are_cropped():
    """The released Tube-Link models for panoptic video: 720 times 1 to 2."""
    config = AugmentConfig(size=(736, 1280), short_side=(720,), scale=(1.0, 2.0))
    rng = np.random.default_rng(0)
    drawn = [draw_transform(rng, config, (360, 640)) for _ in range(2000)]
    scales = np.array([t.resized[1] / (t.box[3] - t.box[1]) for t in drawn])
    assert np.histogram(scales, bins=5, range=(1.99, 4.01))[0] == pytest.approx(400, rel=0.2)
    assert max(t.resized for t in drawn) == (736, 1280)


def test_without_crop_a_short_side_is_never_scaled_beyond_the_input():
    config = replace(PLAIN, short_side=(40, 400), scale=(1.0, 1.0), crop=False)
    rng = np.random.default_rng(0)
    drawn = [draw_transform(rng, config, (50, 60)) for _ in range(50)]
    assert {t.box for t in drawn} == {(0, 0, 50, 60)}
    assert {t.resized for t in drawn} == {(40, 48), (65, 78)}


@pytest.mark.parametrize("source", [(72, 128), (128, 72), (40, 200)])
def test_without_a_size_frames_are_never_cropped_and_keep_their_shape(source):
    config = AugmentConfig(size=None, short_side=(40, 60), scale=(1.0, 1.0), pad_to=32, long_side=140)
    rng = np.random.default_rng(0)
    for _ in range(50):
        transform = draw_transform(rng, config, source)
        assert transform.box == (0, 0, *source)
        assert min(transform.resized) in (40, 60) or max(transform.resized) == 140
        assert max(transform.resized) <= 140
        assert transform.padded == tuple(-(-side // 32) * 32 for side in transform.resized)


def test_a_long_frame_is_scaled_to_the_cap_before_it_is_cropped():
    config = AugmentConfig(size=(32, 64), short_side=(80,), scale=(1.0, 1.0), long_side=100)
    transform = draw_transform(np.random.default_rng(0), config, (100, 200))
    assert transform.resized == (32, 64)
    assert (transform.box[2] - transform.box[0], transform.box[3] - transform.box[1]) == (64, 128)


def test_each_interpolation_is_the_one_of_its_library():
    frame = np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)
    results = {name: Transform(source=(90, 120), box=(0, 0, 90, 120), resized=(30, 40), padded=(32, 64),
                               interpolation=name).image(frame)[:, :30, :40].transpose(1, 2, 0)
               for name in ("halving", "opencv", "pillow")}
    assert_array_equal(results["opencv"], cv2.resize(frame, (40, 30), interpolation=cv2.INTER_LINEAR))
    assert_array_equal(results["pillow"], Image.fromarray(frame).resize((40, 30), Image.Resampling.BILINEAR))
    noise = {name: result.astype(float).std() for name, result in results.items()}
    assert noise["pillow"] < noise["halving"] < noise["opencv"]      # of an image of noise, what aliases remains


def test_crops_reach_every_corner():
    config = replace(PLAIN, scale=(1.7, 1.7))
    rng = np.random.default_rng(0)
    boxes = np.array([draw_transform(rng, config, (65, 97)).box for _ in range(500)])
    assert_array_equal(boxes.min(axis=0)[:2], [0, 0])
    assert_array_equal(boxes.max(axis=0)[2:], [65, 97])


def test_without_crop_the_whole_frame_is_kept():
    config = replace(PLAIN, crop=False)
    rng = np.random.default_rng(0)
    assert {draw_transform(rng, config, (130, 60)).box for _ in range(100)} == {(0, 0, 130, 60)}


def test_colours_follow_the_matrix_and_grey_stays_grey():
    frame = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    color = ColorJitter(brightness=12.0, contrast=1.2, saturation=0.7, hue=25.0)
    transform = Transform(source=(16, 16), box=(0, 0, 16, 16), resized=(16, 16), padded=(16, 16), color=color)
    matrix = color.matrix().astype(np.float64)
    expected = np.clip(np.rint(frame @ matrix[:, :3].T + matrix[:, 3]), 0, 255).transpose(2, 0, 1)
    assert np.abs(transform.image(frame) - expected).max() <= 1
    grey = np.repeat(frame[..., :1], 3, axis=2)
    red, green, blue = transform.image(grey).astype(int)
    assert np.abs(red - green).max() <= 1
    assert np.abs(red - blue).max() <= 1


def test_no_colour_change_is_the_identity_matrix():
    assert ColorJitter().matrix() == pytest.approx(np.eye(3, 4), abs=1e-6)
    assert ColorJitter(hue=360.0).matrix() == pytest.approx(np.eye(3, 4), abs=1e-6)


def test_small_scales_do_not_alias():
    """One-pixel stripes become grey when the frame shrinks to a quarter, not stripes of another width."""
    stripes = np.repeat(np.where(np.arange(128) % 2, 255, 0).astype(np.uint8)[None], 128, axis=0)
    transform = Transform(source=(128, 128), box=(0, 0, 128, 128), resized=(31, 31), padded=(31, 31))
    assert np.abs(transform.image(as_image(stripes))[0].astype(int) - 127).max() <= 2


def test_a_frame_of_another_size_is_refused():
    transform = draw_transform(np.random.default_rng(0), PLAIN, (40, 60))
    with pytest.raises(ValueError, match="40, 60"):
        transform.image(np.zeros((40, 61, 3), dtype=np.uint8))


@pytest.mark.parametrize(("wrong", "message"), [({"scale": (1.7, 0.3)}, "augment.scale"),
                                                ({"flip": 1.5}, "augment.flip"), ({"size": (0, 97)}, "augment.size"),
                                                ({"short_side": (480, 0)}, "augment.short_side"),
                                                ({"size": None}, "augment.size is null"),
                                                ({"size": None, "pad_to": 32}, "set augment.short_side"),
                                                ({"pad_to": 0}, "augment.pad_to"), ({"long_side": 0}, "long_side")])
def test_impossible_settings_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        AugmentConfig(**{"size": (65, 97)} | wrong)
