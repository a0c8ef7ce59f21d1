"""Decoding refuses files that are cut or damaged; PNG encoding is exact, and resizing behaves like Pillow."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from PIL import Image

from pipeline import images
from pipeline.errors import BadInput


@pytest.fixture
def picture() -> np.ndarray:
    ramp = np.linspace(0, 255, 37 * 53 * 3).reshape(37, 53, 3)
    return (ramp + np.random.default_rng(0).normal(0, 20, ramp.shape)).clip(0, 255).astype(np.uint8)


def saved(image: np.ndarray, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}])
def test_jpeg_pixels_are_pillows(picture, options):
    data = saved(picture, "JPEG", **options)
    assert_array_equal(images.decode_jpeg(data), np.asarray(Image.open(io.BytesIO(data)).convert("RGB")))


def test_without_simplejpeg_the_pixels_are_the_same(picture, monkeypatch):
    data = images.encode_jpeg(picture)
    expected = images.decode_jpeg(data)
    monkeypatch.setattr(images, "simplejpeg", None)
    assert_array_equal(images.decode_jpeg(data), expected)
    assert images.jpeg_size(images.encode_jpeg(picture)) == (37, 53)


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_grey_and_cmyk_jpegs_become_rgb(picture, mode):
    buffer = io.BytesIO()
    Image.fromarray(picture).convert(mode).save(buffer, "JPEG")
    assert images.jpeg_size(buffer.getvalue()) == (37, 53)
    assert images.decode_jpeg(buffer.getvalue()).shape == (37, 53, 3)


@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_cut_anywhere_is_refused_by_its_header_check(picture, progressive):
    data = saved(picture, "JPEG", progressive=progressive)
    assert images.jpeg_size(data) == (37, 53)
    for length in range(len(data)):
        with pytest.raises(BadInput, match="JPEG"):
            images.jpeg_size(data[:length])


def test_the_end_of_a_thumbnail_is_not_the_end_of_the_jpeg(picture):
    thumbnail = saved(picture[:8, :8], "JPEG")
    application = b"\xff\xe1" + (len(thumbnail) + 2).to_bytes(2, "big") + thumbnail
    plain = saved(picture, "JPEG")
    data = plain[:2] + application + plain[2:]
    assert images.jpeg_size(data) == (37, 53)
    with pytest.raises(BadInput, match="cut off"):
        images.jpeg_size(data[:-100])


@pytest.mark.parametrize("with_simplejpeg", [True, False])
def test_a_jpeg_cut_in_its_pixels_is_refused_by_the_decoder(picture, monkeypatch, with_simplejpeg):
    if not with_simplejpeg:
        monkeypatch.setattr(images, "simplejpeg", None)
    data = saved(picture, "JPEG")
    for length in range(len(data) // 2, len(data) - 2, 7):
        with pytest.raises(BadInput) as caught:
            images.decode_jpeg(data[:length])
        assert caught.value.reason == "corrupt-image"


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}])
def test_the_check_refuses_what_the_decoder_refuses(picture, options):
    rng = np.random.default_rng(1)
    whole = saved(picture, "JPEG", **options)
    refused = 0
    for length in rng.integers(2, len(whole) + 1, 60).tolist():
        data = bytearray(whole[:length] if length % 3 else whole)
        data[rng.integers(len(data))] = rng.integers(256)
        faults = [_fault(images.decode_jpeg, bytes(data)), _fault(images.check_jpeg, bytes(data))]
        assert faults[0] == faults[1]
        refused += bool(faults[0])
    assert 0 < refused < 60
    images.check_jpeg(whole)


def _fault(function: Callable[[bytes], object], data: bytes) -> str:
    try:
        function(data)
    except BadInput as error:
        return error.reason
    return ""


def test_a_jpeg_with_damaged_pixels_is_refused(picture):
    data = bytearray(saved(picture, "JPEG"))
    data[-300:-260] = b"\xff\xd0" * 20      # restart markers in the wrong place
    with pytest.raises(BadInput, match="cannot be decoded"):
        images.decode_jpeg(bytes(data))


@pytest.mark.parametrize(("dtype", "axes"), [(np.uint8, 2), (np.uint16, 2), (np.uint8, 3)])
def test_png_is_read_back_as_it_was_written(dtype, axes):
    shape = (11, 17, 3)[:axes]
    image = np.random.default_rng(0).integers(0, np.iinfo(dtype).max, shape, dtype=dtype, endpoint=True)
    data = images.encode_png(image)
    assert_array_equal(images.decode_png(data), image)
    assert_array_equal(np.asarray(Image.open(io.BytesIO(data))), image)


def test_a_png_cut_or_changed_anywhere_is_refused():
    data = images.encode_png(np.arange(64, dtype=np.uint8).reshape(8, 8))
    for position in range(len(data)):
        flipped = bytearray(data)
        flipped[position] ^= 4
        for broken in (data[:position], bytes(flipped)):
            with pytest.raises(BadInput) as caught:
                images.decode_png(broken)
            assert caught.value.reason == "corrupt-label"


def test_ids_from_rgb_is_the_panoptic_coding():
    image = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    red, green, blue = (image[..., channel].astype(int) for channel in range(3))
    ids = images.ids_from_rgb(image)
    assert_array_equal(ids, red + 256 * green + 65536 * blue)
    assert ids.dtype == np.int32


@pytest.mark.parametrize("size", [(20, 31), (37, 53), (80, 64)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32])
def test_ids_resize_as_pillows_nearest(size, dtype):
    ids = np.random.default_rng(0).integers(0, 200, (37, 53)).astype(dtype)
    expected = Image.fromarray(ids.astype(np.int32)).resize(size[::-1], Image.Resampling.NEAREST)
    assert_array_equal(images.resize_ids(ids, *size), np.asarray(expected))


def test_shrinking_an_image_averages_instead_of_skipping(picture):
    stripes = np.zeros((40, 40, 3), np.uint8)
    stripes[::2] = 200
    assert abs(images.resize_image(stripes, 5, 5).astype(int) - 100).max() <= 10
    assert images.resize_image(picture, 10, 12).shape == (10, 12, 3)


def test_the_bytes_of_a_frame_decide_its_format_and_grey_becomes_three_channels(picture):
    assert_array_equal(images.decode_image(images.encode_png(picture)), picture)
    jpeg = images.encode_jpeg(picture)
    assert_array_equal(images.decode_image(jpeg), images.decode_jpeg(jpeg))
    grey = np.ascontiguousarray(picture[..., 0])
    assert_array_equal(images.decode_image(images.encode_png(grey)), np.stack([grey] * 3, axis=-1))
    for data in (jpeg, images.encode_png(picture), images.encode_png(grey)):
        assert images.image_size(data) == (37, 53)


@pytest.mark.parametrize("read", [images.decode_image, images.image_size])
def test_a_frame_that_is_cut_is_a_corrupt_image_in_any_format(picture, read):
    for data in (images.encode_jpeg(picture), images.encode_png(picture)):
        with pytest.raises(BadInput) as error:
            read(data[:-15])
        assert error.value.reason == "corrupt-image"


def test_frames_have_8_bits(picture):
    with pytest.raises(BadInput, match="16 bits per colour"):
        images.decode_image(images.encode_png(picture[..., 0].astype(np.uint16)))
