"""Decoding, encoding and resizing of pictures. A file that is cut off or damaged is refused, never half decoded."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import cv2
import numpy as np
from PIL import Image

from pipeline.errors import BadInput
from pipeline.other_pictures import decode_other
from pipeline.picture_headers import orientation, picture_format, refuse_large, upright, upright_size

try:
    import simplejpeg
except ImportError:     # Pillow decodes the same pixels in 1.25 times the time
    simplejpeg = None

cv2.setNumThreads(1)    # the cores are shared by processes, so each needs only one thread

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_FAST = (cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_NONE, cv2.IMWRITE_PNG_COMPRESSION, 3,
             cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_DEFAULT)
_FRAME_HEADERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}     # SOF0 ... SOF15 without DHT, JPG, DAC
_COPY_AGAIN = "Copy the file again from its source, or remove the video from the list."


def jpeg_size(data: bytes) -> tuple[int, int]:
    """Height and width of a JPEG from its header, after a check that its end is there.

    Raises BadInput "corrupt-image" if the structure is broken or the end-of-image marker is missing: decoders fill the
    lost part of such a file with grey without a warning.
    """
    size = None
    position = 2
    if data[:2] != b"\xff\xd8":
        raise BadInput("corrupt-image", f"the file is not a JPEG: it starts with {data[:4]!r}.", cure=_COPY_AGAIN)
    while position + 4 <= len(data):
        mark, kind, length = struct.unpack_from(">BBH", data, position)
        if mark != 0xFF:
            break
        if kind == 0xFF:                    # fill byte before a marker
            position += 1
            continue
        if kind in _FRAME_HEADERS and position + 9 <= len(data):
            size = struct.unpack_from(">HH", data, position + 5)
        position += 2 + length
        if kind == 0xDA:                    # start of scan: the pixels follow
            if size is None or data.rfind(b"\xff\xd9") < position:
                break
            return size
    raise BadInput("corrupt-image", f"the JPEG is cut off or damaged ({len(data)} bytes).", cure=_COPY_AGAIN)


def image_size(data: bytes) -> tuple[int, int]:
    """Height and width of a picture that is shown upright (EXIF orientation), as `decode_image` returns it.

    Raises BadInput as `decode_image` does, also "too-large"; of a JPEG or PNG only the structure is checked.
    """
    if is_png(data):
        _check_png(data, reason="corrupt-image")
        size = png_size(data)
    elif picture_format(data) == "JPEG":
        size = jpeg_size(data)
    else:
        return decode_other(data).shape[:2]
    refuse_large(*size[::-1])
    return upright_size(size, orientation(data))


def decode_jpeg(data: bytes) -> np.ndarray:
    """JPEG -> H W 3 uint8 RGB as stored; `decode_image` turns it upright.

    Raises BadInput "corrupt-image", also in cases in which a decoder would only warn.
    """
    return _decoded_jpeg(data)


def check_jpeg(data: bytes) -> None:
    """Raise BadInput where `decode_jpeg` does, in half of its time.

    All coefficients are read, since damage shows there, but only those of a small grey picture become pixels.
    """
    _decoded_jpeg(data, colorspace="GRAY", min_height=1, min_width=1)


def _decoded_jpeg(data: bytes, **options: Any) -> np.ndarray:
    """options: of `simplejpeg.decode_jpeg`. Where that cannot decode a picture, Pillow decodes all of it."""
    try:
        if simplejpeg is not None:
            height, width, colors, _ = simplejpeg.decode_jpeg_header(data)
            refuse_large(width, height)
            if colors not in ("CMYK", "YCCK"):
                return simplejpeg.decode_jpeg(data, **options)
        refuse_large(*jpeg_size(data)[::-1])    # Pillow alone accepts some cut files
        return np.array(Image.open(io.BytesIO(data)).convert("RGB"))
    except (ValueError, OSError) as error:
        if isinstance(error, BadInput):
            raise
        raise BadInput("corrupt-image", f"the JPEG cannot be decoded: {error}.", cure=_COPY_AGAIN) from error


def decode_image(data: bytes) -> np.ndarray:
    """A frame in any format that `picture_format` tells and Pillow reads -> H W 3 uint8 RGB, upright.

    The first bytes decide, not the name of the file; grey becomes three equal channels. Raises BadInput
    "corrupt-image", also for 16 bits per colour, "unknown-format" and "too-large".
    """
    if is_png(data):
        image = decode_png(data, reason="corrupt-image")
        if image.dtype != np.uint8:
            raise BadInput("corrupt-image", f"the image has {8 * image.itemsize} bits per colour.",
                           cure="Save the frames with 8 bits per colour.")
        image = image if image.ndim == 3 else np.repeat(image[..., None], 3, axis=2)
    elif picture_format(data) == "JPEG":
        image = decode_jpeg(data)
    else:
        return decode_other(data)
    turned = orientation(data)
    return image if turned == 1 else upright(image, turned)


def encode_jpeg(image: np.ndarray, *, quality: int = 95) -> bytes:
    """H W 3 uint8 RGB -> JPEG with 4:2:0 chroma subsampling."""
    if simplejpeg is not None:
        return simplejpeg.encode_jpeg(np.ascontiguousarray(image), quality=quality, colorsubsampling="420")
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=quality, subsampling="4:2:0")
    return buffer.getvalue()


def is_png(data: bytes) -> bool:
    """Whether a file starts with the PNG signature."""
    return data.startswith(_PNG_SIGNATURE)


def is_upright_jpeg(data: bytes) -> bool:
    """Whether a picture is a JPEG whose stored pixels are those to be seen."""
    return data.startswith(b"\xff\xd8") and orientation(data) == 1


def decode_png(data: bytes, *, reason: str = "corrupt-label") -> np.ndarray:
    """PNG -> H W or H W 3 (RGB), uint8 or uint16, with palette colours resolved and alpha dropped.

    Raises BadInput, by default "corrupt-label", if a chunk is missing or its checksum is wrong.
    """
    _check_png(data, reason=reason)
    refuse_large(*png_size(data)[::-1])
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error as error:
        raise BadInput(reason, f"the PNG cannot be decoded ({error.err}).", cure=_COPY_AGAIN) from None
    if image is None:
        raise BadInput(reason, f"the PNG cannot be decoded ({len(data)} bytes).", cure=_COPY_AGAIN)
    if image.ndim == 2:
        return image
    return cv2.cvtColor(image, cv2.COLOR_BGRA2RGB if image.shape[2] == 4 else cv2.COLOR_BGR2RGB)


def encode_png(image: np.ndarray) -> bytes:
    """H W uint8 or uint16, or H W 3 uint8 RGB -> PNG, tuned for label maps.

    Without row filters, a 720p id map is written in 0.3 and read in 0.25 of the time that OpenCV's defaults need
    (measured), at 1.5 times the size.
    """
    success, data = cv2.imencode(".png", image[..., ::-1] if image.ndim == 3 else image, _PNG_FAST)
    if not success:
        raise ValueError(f"an image of shape {image.shape} and type {image.dtype} cannot be a PNG")
    return data.tobytes()


def ids_from_rgb(image: np.ndarray) -> np.ndarray:
    """H W 3 uint8 RGB -> H W int32, id = R + 256 G + 65536 B (the panoptic PNG coding of COCO and VIPSeg)."""
    rgba = cv2.cvtColor(image, cv2.COLOR_RGB2RGBA).view("<i4")[..., 0]      # H W
    return np.bitwise_and(rgba, 0xFFFFFF, out=rgba)


def resize_image(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """H W 3 uint8 -> height width 3; Pillow's bilinear filter covers the whole source area, so nothing aliases."""
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))


def resize_ids(ids: np.ndarray, height: int, width: int) -> np.ndarray:
    """H W ids -> height width, by the nearest pixel centre, as in Pillow; no new ids appear."""
    return cv2.resize(ids, (width, height), interpolation=cv2.INTER_NEAREST_EXACT)


def png_size(data: bytes) -> tuple[int, int]:
    """Height and width as stored: the first fields of the first chunk of a PNG, which has more than 32 bytes."""
    width, height = struct.unpack_from(">II", data, len(_PNG_SIGNATURE) + 8)
    return height, width


def _check_png(data: bytes, *, reason: str) -> None:
    position = len(_PNG_SIGNATURE)
    if not is_png(data):
        raise BadInput(reason, f"the file is not a PNG: it starts with {data[:4]!r}.", cure=_COPY_AGAIN)
    while position + 12 <= len(data) and data[12:16] == b"IHDR" and len(data) > 33:
        length, kind = struct.unpack_from(">I4s", data, position)
        end = position + 8 + length
        if end + 4 > len(data) or zlib.crc32(data[position + 4:end]) != int.from_bytes(data[end:end + 4], "big"):
            break
        if kind == b"acTL" and (pictures := int.from_bytes(data[position + 8:position + 12], "big")) > 1:
            raise BadInput(reason, f"the file is an animated PNG with {pictures} frames.",
                           cure="Save each frame as one picture.")
        if kind == b"IEND":
            return
        position = end + 4
    raise BadInput(reason, f"the PNG is cut off or damaged ({len(data)} bytes).", cure=_COPY_AGAIN)
