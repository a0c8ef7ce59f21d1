"""Decoding of pictures that are neither JPEG nor PNG."""

from __future__ import annotations

import io
import struct

import numpy as np
from PIL import Image, ImageOps

from pipeline.errors import BadInput
from pipeline.picture_headers import picture_format, refuse_large, webp_size
from pipeline.zeroed_pictures import has_zeroed_part

EIGHT_BITS = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr")     # Pillow's modes
_TILE = (0x0142, 0x0143)    # TIFF tags: width and length of a tile


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
            refuse_large(*webp_size(data))
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
