"""The id maps of shards as PNGs: rows without filters, compressed in one chunk by ISA-L.

A map of 1280x720 pixels is written in an eighth of the time that OpenCV takes, and read by this file in two thirds of
it (docs/log.md). Every reader of PNGs reads them.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

import numpy as np
from isal import isal_zlib

from pipeline.images import decode_png
from pipeline.picture_headers import refuse_large

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_HEADER = struct.Struct(">IIBBBBB")     # width, height, bits, colour type, compression, filter method, interlacing
# ISA-L writes the same bytes at levels 0 to 2 on every x86-64 processor with SSE 4.2, but not at level 3.
_LEVEL = 1


def encode_label(ids: np.ndarray) -> bytes:
    """H W uint8 or uint16 -> PNG with one channel."""
    height, width = ids.shape
    rows = np.zeros((height, 1 + width * ids.itemsize), np.uint8)       # each begins with its filter: 0, none
    rows[:, 1:] = np.ascontiguousarray(ids, ids.dtype.newbyteorder(">")).view(np.uint8)
    header = _HEADER.pack(width, height, 8 * ids.itemsize, 0, 0, 0, 0)
    return b"".join((_SIGNATURE, _chunk(b"IHDR", header), _chunk(b"IDAT", isal_zlib.compress(rows, _LEVEL)),
                     _chunk(b"IEND", b"")))


def decode_label(data: bytes) -> np.ndarray:
    """PNG of an id map -> H W uint8 or uint16. A PNG with row filters, or with more channels, is read as by
    `decode_png`.

    Raises BadInput "corrupt-label" if a chunk is missing or its checksum is wrong, and "too-large".
    """
    ids = _without_filters(data)
    return decode_png(data) if ids is None else ids


def _without_filters(data: bytes) -> np.ndarray | None:
    """The ids of a PNG as `encode_label` writes it. None for any other, which `decode_png` reads or refuses."""
    chunks = list(_chunks(data))
    kinds = [kind for kind, _ in chunks]
    if len(kinds) < 3 or kinds != [b"IHDR", *[b"IDAT"] * (len(kinds) - 2), b"IEND"] or len(chunks[0][1]) != 13:
        return None
    width, height, bits, *others = _HEADER.unpack(chunks[0][1])
    if bits not in (8, 16) or any(others):
        return None
    refuse_large(width, height)
    size = height * (1 + width * bits // 8)
    inflater = isal_zlib.decompressobj()
    try:
        rows = inflater.decompress(b"".join(content for _, content in chunks[1:-1]), size + 1)
    except isal_zlib.error:
        return None
    if not inflater.eof or len(rows) != size:
        return None
    rows = np.frombuffer(rows, np.uint8).reshape(height, -1)
    if rows[:, 0].any():
        return None
    return rows[:, 1:].view(f">u{bits // 8}").astype(f"u{bits // 8}")


def _chunk(kind: bytes, content: bytes) -> bytes:
    return b"".join((struct.pack(">I", len(content)), kind, content,
                     struct.pack(">I", zlib.crc32(content, zlib.crc32(kind)))))


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Kind and content of the chunks of a PNG, up to the first whose checksum is wrong, or to IEND."""
    position = len(_SIGNATURE)
    while data.startswith(_SIGNATURE) and position + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        end = position + 8 + length
        if zlib.crc32(data[position + 4:end]) != int.from_bytes(data[end:end + 4], "big") or end + 4 > len(data):
            return
        yield kind, data[position + 8:end]
        if kind == b"IEND":
            return
        position = end + 4
