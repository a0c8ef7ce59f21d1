"""What others may put in the place of a file: no file at all, a picture that claims gigapixels, or nonsense."""

from __future__ import annotations

import io
import os
import socket
import struct
import zlib
from pathlib import Path

from PIL import Image


def fifo(path: Path) -> None:
    os.mkfifo(path)


def listening(path: Path) -> None:
    """A socket; it is bound by a short relative name, since its address may hold about 100 bytes."""
    here = Path.cwd()
    os.chdir(path.parent)
    try:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(path.name)
    finally:
        os.chdir(here)


def endless(path: Path) -> None:
    path.symlink_to(path.name)


def ring(path: Path) -> None:
    other = path.with_name("ring")
    path.symlink_to(other.name)
    other.symlink_to(path.name)


def zeros(path: Path) -> None:
    path.symlink_to("/dev/zero")


def sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(2**40)


def png_header(width: int, height: int) -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    rows = zlib.compress(bytes(10**6), 9)
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
            + chunk(b"IDAT", rows) + chunk(b"IEND", b""))


def jpeg_header(width: int, height: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (64, 48)).save(buffer, "JPEG")
    data = bytearray(buffer.getvalue())
    place = data.index(b"\xff\xc0")
    data[place + 5:place + 9] = struct.pack(">HH", height, width)
    return bytes(data)


def webp_header(width: int, height: int, *, kind: str) -> bytes:
    buffer = io.BytesIO()
    picture = Image.new("RGBA" if kind == "VP8X" else "RGB", (64, 48), (1, 2, 3, 9)[:4 if kind == "VP8X" else 3])
    picture.save(buffer, "WebP", lossless=kind == "VP8L", **({"exif": b"Exif\0\0II*\0"} if kind == "VP8X" else {}))
    data = bytearray(buffer.getvalue())
    assert data[12:16] == kind.ljust(4).encode()
    if kind == "VP8X":
        data[24:30] = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    elif kind == "VP8L":
        data[21:25] = (width - 1 | (height - 1) << 14 | 1 << 28).to_bytes(4, "little")
    else:
        data[26:30] = struct.pack("<HH", width, height)
    return bytes(data)


def tiff_tile(width: int, height: int) -> bytes:
    """A picture of 64 by 48 pixels, stored in one tile that claims to be far larger."""
    entries = [(256, 4, 64), (257, 4, 48), (258, 3, 8), (259, 3, 8), (262, 3, 1), (277, 3, 1), (322, 4, width),
               (323, 4, height), (324, 4, 8), (325, 4, 8)]
    content = zlib.compress(bytes(64 * 48))[:8].ljust(8, b"\0")
    directory = struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHII", tag, kind, 1, value)
                                                           for tag, kind, value in entries) + bytes(4)
    return b"II*\0" + struct.pack("<I", 16) + content + directory


def bmp_header(width: int, height: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (64, 48)).save(buffer, "BMP")
    data = bytearray(buffer.getvalue())
    data[18:26] = struct.pack("<ii", width, height)
    return bytes(data)


BOMBS = {"png": png_header(50_000, 50_000), "png of two gigapixels": png_header(2**31 - 1, 2**31 - 1),
         "jpeg": jpeg_header(65_500, 65_500), "webp": webp_header(16_383, 16_383, kind="VP8"),
         "webp lossless": webp_header(16_384, 16_384, kind="VP8L"),
         "webp extended": webp_header(2**24 - 1, 2**24 - 1, kind="VP8X"), "bmp": bmp_header(60_000, 60_000),
         "tile of a tiff": tiff_tile(2**15, 2**15)}
