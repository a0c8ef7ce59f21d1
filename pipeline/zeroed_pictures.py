"""Compressed pictures of which a part was replaced by zeros, as a broken copy or a power cut leaves them.

Decoders of WebP, AVIF and TIFF fill in something without a word. JPEG and PNG have marks and checksums that tell.
"""

from __future__ import annotations

from collections.abc import Iterator

from PIL import Image

LONGEST_RUN = 64            # zero bytes in a row; whole pictures end in fewer
PIXELS_PER_ZERO = 4096      # WebP: inside a black picture, there is one zero in a row per 10,000 pixels
_COMPRESSED = (5, 6, 7, 8, 32946, 34925, 50000, 50001)      # TIFF: LZW, JPEG, deflate, LZMA, zstd, WebP
_PLACES = ((273, 279), (324, 325))                          # TIFF tags: offsets and lengths of strips, of tiles


def has_zeroed_part(data: bytes, image: Image.Image) -> bool:
    """Whether zeros stand in the place of pixels. image: the same file, opened but not decoded."""
    match image.format:
        case "WEBP":
            run = bytes(LONGEST_RUN + image.width * image.height // PIXELS_PER_ZERO)
            return any(run in chunk for chunk in _webp_chunks(data))
        case "AVIF":        # the end only: what is noted about the picture may hold zeros too
            return any(box[-LONGEST_RUN:] == bytes(LONGEST_RUN) for box in _boxes(data, b"mdat"))
        case "TIFF" if image.tag_v2.get(259) in _COMPRESSED:
            return any(strip[-LONGEST_RUN:] == bytes(LONGEST_RUN) for strip in _strips(data, image))
    return False


def _webp_chunks(data: bytes) -> Iterator[bytes]:
    position = 12
    while position + 8 <= len(data):
        size = int.from_bytes(data[position + 4:position + 8], "little")
        if data[position:position + 4] in (b"VP8 ", b"VP8L", b"ALPH"):
            yield data[position + 8:position + 8 + size]
        position += 8 + size + size % 2


def _boxes(data: bytes, kind: bytes) -> Iterator[bytes]:
    """The content of the boxes of a kind at the top of a file (ISO 14496-12)."""
    position = 0
    while position + 8 <= len(data):
        size = int.from_bytes(data[position:position + 4], "big")
        start = position + 8
        if size == 1:
            size = int.from_bytes(data[start:start + 8], "big")
            start += 8
        end = position + size if size else len(data)
        if data[position + 4:position + 8] == kind:
            yield data[start:end]
        position = max(end, start)


def _strips(data: bytes, image: Image.Image) -> Iterator[bytes]:
    for offsets, lengths in _PLACES:
        for offset, length in zip(image.tag_v2.get(offsets, ()), image.tag_v2.get(lengths, ())):
            yield data[int(offset):int(offset) + int(length)]
