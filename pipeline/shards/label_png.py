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
from pipeline.shards.id_runs import IdRuns

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_HEADER = struct.Struct(">IIBBBBB")     # width, height, bits, colour type, compression, filter method, interlacing
# ISA-L writes the same bytes at levels 0 to 2 on every x86-64 processor with SSE 4.2, but not at level 3.
_LEVEL = 1


def encode_label(ids: np.ndarray) -> bytes:
    """H W uint8 or uint16 -> PNG with one channel."""
    rows = _rows(ids.shape, ids.itemsize)
    rows[:, 1:] = np.ascontiguousarray(ids, ids.dtype.newbyteorder(">")).view(np.uint8)
    return _png(rows, ids.shape, ids.itemsize)


class LabelEncoder:
    """`encode_label` of the maps of a video, of one size. They are painted into the same memory, which stays in the
    cache of the processor, and in its place in the PNG."""

    def __init__(self, size: tuple[int, int]) -> None:
        self._rows = _rows(size, 1)

    def encode(self, runs: IdRuns) -> bytes:
        """The PNG of a map."""
        if runs.ids.dtype != np.uint8:
            return encode_label(runs.painted())
        runs.painted(out=self._rows[:, 1:])
        return _png(self._rows, runs.size, 1)


def _rows(size: tuple[int, int], bytes_of_id: int) -> np.ndarray:
    """The rows of a PNG, each of which begins with its filter: 0, none."""
    return np.zeros((size[0], 1 + size[1] * bytes_of_id), np.uint8)


def _png(rows: np.ndarray, size: tuple[int, int], bytes_of_id: int) -> bytes:
    header = _HEADER.pack(size[1], size[0], 8 * bytes_of_id, 0, 0, 0, 0)
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
