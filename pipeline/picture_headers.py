"""What a picture says before its pixels: its format, whatever its name, a size to refuse, and which way up it is.

The way up is the EXIF orientation, or that in the XMP.
"""

from __future__ import annotations

import io
import re
import struct
import zlib
from collections.abc import Iterator

import numpy as np
from PIL import Image

from pipeline.errors import BadInput

LARGEST = 2**26         # pixels of a picture; a small damaged or malicious file can claim any size
_ORIENTATION = 0x0112   # EXIF tag; 1 is upright, 2 to 8 are turned or mirrored
_TYPES = {3: "H", 4: "I"}           # of its value: a short or a long number
_XMP = b"http://ns.adobe.com/xap/1.0/\0"       # begins such a segment of a JPEG
_IN_XMP = re.compile(rb"""tiff:Orientation(?:\s*=\s*["']|\s*>)\s*([1-8])\b""")
_LARGEST_TEXT = 1 << 20             # bytes of a compressed text in a PNG
_EXIF_AS_TEXT = (b"Raw profile type exif\0", b"Raw profile type APP1\0")


def picture_format(data: bytes) -> str:
    """The format by the first bytes: JPEG, PNG, WebP, AVIF, HEIC, BMP, TIFF or GIF; "" for anything else."""
    brand = data[8:12] if data[4:8] == b"ftyp" else b""
    if brand in (b"avif", b"avis"):
        return "AVIF"
    if brand in (b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1"):
        return "HEIC"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WebP"
    starts = {b"\xff\xd8": "JPEG", b"\x89PNG\r\n\x1a\n": "PNG", b"BM": "BMP", b"II*\0": "TIFF", b"MM\0*": "TIFF",
              b"GIF8": "GIF"}
    return next((name for start, name in starts.items() if data.startswith(start)), "")


def refuse_large(width: int, height: int) -> None:
    """Raise BadInput "too-large" before memory is taken for a picture of more than `LARGEST` pixels."""
    if width * height > LARGEST:
        raise BadInput("too-large", f"the picture claims {width}x{height} pixels; at most {LARGEST:,} are read.",
                       cure="If the size is right, scale the frames down.")


def webp_size(data: bytes) -> tuple[int, int]:
    """Width and height in the header of a WebP; (0, 0) where there is none. Source: RFC 9649."""
    match data[12:16]:
        case b"VP8X":
            return 1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little")
        case b"VP8L":
            bits = int.from_bytes(data[21:25], "little")
            return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
        case b"VP8 ":
            return int.from_bytes(data[26:28], "little") & 0x3FFF, int.from_bytes(data[28:30], "little") & 0x3FFF
    return 0, 0


def orientation(data: bytes) -> int:
    """The EXIF orientation of a picture, 1 to 8; that in its XMP where EXIF has none; 1 where neither can be read."""
    match picture_format(data):
        case "JPEG":
            notes = list(_jpeg_notes(data))
        case "PNG":
            notes = list(_png_notes(data))
        case _:
            return _orientation_by_pillow(data)
    exif = next((_tag(note[6:]) for note in notes if note.startswith(b"Exif\0\0")), 0)
    in_xmp = (match for note in notes if note.startswith(_XMP) and (match := _IN_XMP.search(note)))
    return exif or next((int(match[1]) for match in in_xmp), 1)


def _orientation_by_pillow(data: bytes) -> int:
    try:
        value = Image.open(io.BytesIO(data)).getexif().get(_ORIENTATION, 1)
    except (OSError, ValueError, TypeError, SyntaxError, struct.error, Image.DecompressionBombError):
        return 1
    return value if value in range(1, 9) else 1


def _jpeg_notes(data: bytes) -> Iterator[bytes]:
    """The segments with EXIF and XMP, before the pixels."""
    position = 2
    while position + 4 <= len(data) and data[position] == 0xFF and data[position + 1] != 0xDA:
        if data[position + 1] == 0xFF:          # fill byte
            position += 1
            continue
        length = int.from_bytes(data[position + 2:position + 4], "big")
        if data[position + 1] == 0xE1:
            yield data[position + 4:position + 2 + length]
        position += 2 + length


def _png_notes(data: bytes) -> Iterator[bytes]:
    """The chunks with EXIF and XMP, as segments of a JPEG; ImageMagick writes EXIF as the digits of a text."""
    position = 8
    while position + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        content = data[position + 8:position + 8 + length]
        if kind == b"eXIf":
            yield b"Exif\0\0" + content
        elif kind == b"iTXt" and content.startswith(b"XML:com.adobe.xmp\0"):
            yield _XMP + _text(content[20:].split(b"\0", 2)[-1], packed=content[18:19] == b"\1")
        elif kind in (b"zTXt", b"tEXt") and content.startswith(_EXIF_AS_TEXT):
            digits = _text(content[22 + (kind == b"zTXt"):], packed=kind == b"zTXt").split(b"\n", 3)[-1]
            yield bytes.fromhex(re.sub(rb"[^0-9a-fA-F]", b"", digits).decode()[:2 * (1 << 16)])
        position += 12 + length


def _text(content: bytes, *, packed: bool) -> bytes:
    try:
        return zlib.decompressobj().decompress(content, _LARGEST_TEXT) if packed else content
    except zlib.error:
        return b""


def upright_size(size: tuple[int, int], turned: int) -> tuple[int, int]:
    """Stored (height, width) -> that of the upright picture."""
    return size[::-1] if turned >= 5 else size


def upright(image: np.ndarray, turned: int) -> np.ndarray:
    """H W 3 as stored -> the picture as it is meant to be seen. turned: its EXIF orientation."""
    if turned >= 5:
        image = image.swapaxes(0, 1)
    if turned in (3, 4, 7, 8):
        image = image[::-1]
    if turned in (2, 3, 6, 7):
        image = image[:, ::-1]
    return np.ascontiguousarray(image)


def _tag(tiff: bytes) -> int:
    """The orientation in the first directory of a TIFF structure, which is what EXIF is; 0 without one."""
    order = {b"II": "<", b"MM": ">"}.get(tiff[:2])
    if order is None or len(tiff) < 10:
        return 0
    (directory,) = struct.unpack_from(f"{order}I", tiff, 4)
    if directory + 2 > len(tiff):
        return 0
    (count,) = struct.unpack_from(f"{order}H", tiff, directory)
    for entry in range(directory + 2, min(directory + 2 + 12 * count, len(tiff) - 11), 12):
        tag, kind = struct.unpack_from(f"{order}HH", tiff, entry)
        if tag == _ORIENTATION and kind in _TYPES:
            value, = struct.unpack_from(f"{order}{_TYPES[kind]}", tiff, entry + 8)
            return value if 1 <= value <= 8 else 0
    return 0
