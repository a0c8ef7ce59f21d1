"""Pictures of which a part is zeros are noticed in each format as far as it can be; whole ones never are."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from pipeline.errors import BadInput
from pipeline.images import decode_image, image_size

NOTICED = {
    "WebP": {"format": "WEBP"}, "WebP without loss": {"format": "WEBP", "lossless": True}, "AVIF": {"format": "AVIF"},
    **{f"TIFF {kind}": {"format": "TIFF", "compression": kind} for kind in ("tiff_lzw", "tiff_adobe_deflate", "jpeg")},
    "JPEG": {"format": "JPEG"}, "PNG": {"format": "PNG"}, "GIF": {"format": "GIF"}}
NOT_NOTICED = {"BMP": {"format": "BMP"}, "TIFF": {"format": "TIFF"}}
ALL = NOTICED | NOT_NOTICED


def noise(height: int = 200, width: int = 240) -> np.ndarray:
    rows, columns = np.mgrid[:height, :width]
    grey = 120 + 60 * np.sin(columns / 17) + 40 * np.cos(rows / 9)
    return (grey[..., None] + np.random.default_rng(0).normal(0, 10, (height, width, 3))).clip(0, 255).astype(np.uint8)


def encoded(image: np.ndarray, **options) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("options", NOTICED.values(), ids=NOTICED)
@pytest.mark.parametrize("kept", [0.3, 0.6, 0.9])
def test_zeros_up_to_the_end_are_noticed(options, kept):
    data = encoded(noise(), **options)
    whole = int(len(data) * kept)
    with pytest.raises(BadInput) as error:
        decode_image(data[:whole] + bytes(len(data) - whole))
    assert error.value.reason == "corrupt-image"
    assert error.value.cure


@pytest.mark.parametrize("options", ALL.values(), ids=ALL)
@pytest.mark.parametrize("kept", [0.2, 0.5, 0.99])
def test_a_cut_picture_is_noticed_in_every_format(options, kept):
    data = encoded(noise(), **options)
    for read in (decode_image, image_size):
        with pytest.raises(BadInput):
            read(data[:int(len(data) * kept)])


@pytest.mark.parametrize("options", NOT_NOTICED.values(), ids=NOT_NOTICED)
def test_zeros_are_black_pixels_where_nothing_is_compressed(options):
    data = encoded(noise(), **options)
    assert decode_image(data[:-9000] + bytes(9000)).shape == (200, 240, 3)


@pytest.mark.parametrize("options", ALL.values(), ids=ALL)
@pytest.mark.parametrize("color", [0, 255])
@pytest.mark.parametrize("size", [(16, 16), (720, 1280)])
def test_flat_pictures_are_whole(options, color, size):
    image = np.full((*size, 3), color, np.uint8)
    assert decode_image(encoded(image, **options)).shape == (*size, 3)
    image[:size[0] // 3, :size[1] // 2] = (40, 200, 90)
    assert decode_image(encoded(image, **options)).shape == (*size, 3)
