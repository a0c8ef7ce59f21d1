"""Whether a video file ends where its container says that it ends. Decoders play a cut file up to the cut, silently.

Only the sizes in the headers of boxes, chunks and packets are read, never their content, so this takes a fraction of
a second for files of any length.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

MOVIE_BOXES = (b"ftyp", b"styp", b"moov", b"moof", b"mdat", b"mfra", b"sidx", b"free", b"skip", b"wide", b"uuid")
SEGMENT = 0x18538067                                                # Matroska, which WebM is too
PARENTS = (SEGMENT, 0x1F43B675)                                     # segment and cluster
ASF_PROPERTIES = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")  # holds the size of the file, 40 bytes on
ASF_IS_STREAM = 1                                                   # a flag: the sizes were unknown when it was written
BOX_HEAD = 8                                                        # bytes: the length and the name of a box
FLV_TAGS = (8, 9, 18)                                               # sound, pictures, a script
BLOCK = 1 << 20                                                     # bytes that are read at a time
OGG_LAST = 4                                                        # a flag of the last page of a stream


def missing_bytes(path: Path) -> int:
    """Bytes that are missing at the end of a file at least; 0 where it is complete or its format does not say.

    Raises OSError where it cannot be read.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(400)
        file.seek(0)
        return max(_expected_size(start)(file, size) - size, 0)


def _expected_size(start: bytes) -> Callable[[BinaryIO, int], int]:
    """The function that finds the size of a file with these first bytes."""
    for magic, position, function in ((b"\x1aE\xdf\xa3", 0, _matroska), (b"RIFF", 0, _riff), (b"FLV", 0, _flv),
                                      (b"0&\xb2u\x8ef\xcf\x11", 0, _asf), (b"GIF8", 0, _gif), (b"OggS", 0, _ogg),
                                      (b"\0\0\1\xba", 0, _program_stream)):
        if start.startswith(magic, position):
            return function
    if start[4:8] in MOVIE_BOXES:
        return _movie
    for length, first in ((188, 0), (192, 4), (204, 0)):        # plain, of discs, with error correction
        if start[first::length][:2] == b"GG":
            return lambda file, size: -(-size // length) * length + _zeros_at_end(file, size) // length * length
    return lambda _, size: size


def _zeros_at_end(file: BinaryIO, size: int) -> int:
    """Bytes at the end that a power cut turned into zeros; whole packets have a mark at their start."""
    zeros = 0
    while zeros < size:
        length = min(BLOCK, size - zeros)
        file.seek(size - zeros - length)
        kept = len(file.read(length).rstrip(b"\0"))
        zeros += length - kept
        if kept:
            break
    return zeros


def _movie(file: BinaryIO, size: int) -> int:
    """MP4, MOV, 3GP: boxes of a length and a name, among them the tables and the frames; fragments come in pairs."""
    position = 0
    seen = set()
    while position + BOX_HEAD <= size:
        length, name = _unpack(file, position, ">I4s")
        if length == 1:
            length, = _unpack(file, position + BOX_HEAD, ">Q")
        if length < BOX_HEAD or name not in MOVIE_BOXES:    # 0: to the end; other names are rubbish behind the last box
            return size
        seen.add(name)
        position += length
    complete = seen >= {b"moov", b"mdat"} and (b"moof" not in seen or name not in (b"moof", b"styp"))
    return position if complete else max(position, size) + BOX_HEAD


def _matroska(file: BinaryIO, size: int) -> int:
    """Elements of a number, a length and a content; live recordings leave the length of the long ones open."""
    position = 0
    while position < size:
        file.seek(position)
        head = file.read(12).ljust(12, b"\1")      # an element that is cut within its head is taken for a long one
        number_bytes = 9 - head[0].bit_length()
        if number_bytes > 4:
            return size
        number = int.from_bytes(head[:number_bytes])
        length_bytes = 9 - head[number_bytes].bit_length()
        if length_bytes > 8 or number_bytes + length_bytes > 12:
            return size
        length = int.from_bytes(head[number_bytes:number_bytes + length_bytes]) - (1 << 7 * length_bytes)
        position += number_bytes + length_bytes
        if length < (1 << 7 * length_bytes) - 1:        # all ones: open
            position += length
        elif number not in PARENTS:
            return size
    return position


def _riff(file: BinaryIO, size: int) -> int:
    """AVI: one chunk, or several where it is larger than a gigabyte."""
    position = 0
    while position + 8 <= size:
        name, length = _unpack(file, position, "<4sI")
        if name != b"RIFF" or not length:
            return size
        position += 8 + length
    return position


def _flv(file: BinaryIO, size: int) -> int:
    """Tags of a kind, 10 more bytes and a content, each followed by its length."""
    position, = _unpack(file, 5, ">I")
    position += 4
    while position < size:
        head, = _unpack(file, position, ">I")
        if head >> 24 & 0x1F not in FLV_TAGS:       # rubbish behind the last tag
            return size
        position += 11 + (head & 0xFFFFFF) + 4
    return position


def _asf(file: BinaryIO, size: int) -> int:
    """WMV: the header holds the size."""
    head = file.read(1 << 16)
    place = head.find(ASF_PROPERTIES)
    if place < 0 or place + 92 > len(head):
        return size
    length, = struct.unpack_from("<Q", head, place + 40)
    flags, = struct.unpack_from("<I", head, place + 88)
    return size if flags & ASF_IS_STREAM else length


def _gif(file: BinaryIO, size: int) -> int:
    """The last block ends with a zero, and a semicolon follows."""
    file.seek(-min(size, 1024), os.SEEK_END)
    return size if file.read().rstrip(b"\0").endswith(b"\0;") else size + 1


def _ogg(file: BinaryIO, size: int) -> int:
    """The last page is complete and marked as such. A page is up to 65,307 bytes long."""
    file.seek(-min(size, 1 << 17), os.SEEK_END)
    tail = file.read()
    place = tail.rfind(b"OggS")
    if place < 0 or place + 27 > len(tail):
        return size + 1
    lengths = tail[place + 27:place + 27 + tail[place + 26]]
    end = size - len(tail) + place + 27 + tail[place + 26] + sum(lengths)
    return end if end > size or tail[place + 5] & OGG_LAST else size + 1


def _program_stream(file: BinaryIO, size: int) -> int:
    """MPG and VOB: packets behind start codes, all but the headers of packs with their length."""
    ended = False
    position = 0
    while position < size:
        code, kind = _unpack(file, position, ">3sB")
        if code != b"\0\0\1" or kind < 0xB9:       # zeros after the end mark are padding
            return size if ended else size + max(_zeros_at_end(file, size) - 3, 0)
        if kind == 0xBA:
            first, stuffing = _unpack(file, position + 4, ">B8xB")
            position += 14 + (stuffing & 7) if first >> 6 == 1 else 12      # MPEG-2, MPEG-1
        elif kind == 0xB9:      # the end
            ended = True
            position += 4
        else:
            length, = _unpack(file, position + 4, ">H")
            position += 6 + length
    return position


def _unpack(file: BinaryIO, position: int, layout: str) -> tuple:
    """Fields at a position; zeros where the file ends within them."""
    file.seek(position)
    return struct.unpack(layout, file.read(struct.calcsize(layout)).ljust(struct.calcsize(layout), b"\0"))
