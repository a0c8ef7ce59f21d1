"""Pictures in any format: which it is by their bytes, whatever their names, and the decoding of the rarer ones."""

from __future__ import annotations

import io
import struct

import numpy as np
from PIL import Image, ImageOps

from pipeline.errors import BadInput
from pipeline.zeroed_pictures import has_zeroed_part

LARGEST = 2**26         # pixels of a picture; a small damaged or malicious file can claim any size
EIGHT_BITS = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr")     # Pillow's modes
_TILE = (0x0142, 0x0143)    # TIFF tags: width and length of a tile


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


def decode_other(data: bytes) -> np.ndarray:
    """A picture that is neither JPEG nor PNG -> H W 3 uint8 RGB, upright.

    Raises BadInput: "unknown-format" with the real format where it cannot be read, "corrupt-image" where it is damaged,
    has more than 8 bits per colour or holds several pictures.
    """
    name = picture_format(data)
    if not data.strip(b"\0"):
        raise BadInput("corrupt-image", "the file is empty." if not data else "the file holds nothing but zeros.",
                       cure="Copy it again from its source.")
    if name in ("", "HEIC"):
        described = f"a {name} picture" if name else f"no picture that can be read: it starts with {data[:8]!r}"
        raise BadInput("unknown-format", f"the file is {described}.",
                       cure="Save the frames as JPEG or PNG, whatever their names end in.")
    try:
        if name == "WebP":          # Pillow takes memory for the whole picture when it opens one
            refuse_large(*_webp_size(data))
        image = Image.open(io.BytesIO(data))
        refuse_large(*image.size)
        if name == "TIFF":          # and for a whole tile, which may be larger than the picture
            refuse_large(*(int(image.tag_v2.get(tag, 0)) for tag in _TILE))
        if has_zeroed_part(data, image):
            raise BadInput("corrupt-image", f"a part of the {name} picture is zeros.",
                           cure="Copy it again, or save the frames as JPEG or PNG.")
        frames = getattr(image, "n_frames", 1)
        if image.mode in EIGHT_BITS and frames == 1:
            return np.array(ImageOps.exif_transpose(image).convert("RGB"))
    except Image.DecompressionBombError as error:
        raise BadInput("too-large", f"the picture is refused by its header: {error}.",
                       cure="If the size is right, scale the frames down.") from None
    except (OSError, ValueError, TypeError, SyntaxError, struct.error) as error:
        if isinstance(error, BadInput):
            raise
        raise BadInput("corrupt-image", f"the file is a {name} picture that cannot be decoded: {error}.",
                       cure="Copy it again, or save the frames as JPEG or PNG.") from None
    raise BadInput("corrupt-image", f"the file is a {name} picture with {frames} frames of mode {image.mode}.",
                   cure="Save each frame as one picture with 8 bits per colour.")


def _webp_size(data: bytes) -> tuple[int, int]:
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


def refuse_large(width: int, height: int) -> None:
    """Raise BadInput "too-large" before memory is taken for a picture of more than `LARGEST` pixels."""
    if width * height > LARGEST:
        raise BadInput("too-large", f"the picture claims {width}x{height} pixels; at most {LARGEST:,} are read.",
                       cure="If the size is right, scale the frames down.")
