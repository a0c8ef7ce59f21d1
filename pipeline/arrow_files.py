"""Opening Arrow files that others may have made: their batches are used in place, so none may be compressed.

A batch that is compressed is unpacked as a whole before anything in it can be looked at: 40 kB become a gigabyte. The
project writes none, and pyarrow does not tell, so the headers are read here (Message.fbs and File.fbs in the format
directory of Apache Arrow).
"""

from __future__ import annotations

import mmap
import struct
from contextlib import suppress

import pyarrow as pa

MAGIC = b"ARROW1"
CONTINUED = 0xFFFFFFFF          # before the length of a message, since version 0.15 of the format
BLOCK = struct.Struct("<qi4xq")         # offset, bytes of the header, bytes of the body
DICTIONARIES = 2                # fields of the footer
BATCHES = 3
HEADER = 2                      # field of a message
COMPRESSION = 3                 # field of a batch
EXPECTED = 2**18                # bytes at the beginning of a batch that are read when a file is opened


def open_plain(content: mmap.mmap) -> pa.RecordBatchFileReader:
    """The reader of an Arrow file that is mapped into memory.

    Raises ValueError for a file with compressed batches or dictionaries, and as pyarrow does for one that is damaged.
    """
    reader = pa.ipc.open_file(pa.py_buffer(content))
    try:
        expect_batches(content)
        refuse_packed(content)
    except (struct.error, IndexError) as error:
        raise ValueError(f"its footer is damaged: {error}") from None
    return reader


def expect_batches(content: mmap.mmap) -> None:
    """Have the system read the beginning of every batch, while the first ones are looked at.

    The batches of a large file lie far apart, and waiting for each in turn takes most of the time of a first opening.
    """
    for offset in _batches(content, _footer(content)):
        start = offset - offset % mmap.PAGESIZE
        if 0 <= start < len(content):
            with suppress(OSError):     # it is read all the same, only later
                content.madvise(mmap.MADV_WILLNEED, start, min(EXPECTED, len(content) - start))


def refuse_packed(content: mmap.mmap) -> None:
    """Raise ValueError where the footer lists a dictionary, or a batch whose values are compressed."""
    footer = _footer(content)
    if _vector(content, footer, DICTIONARIES)[1]:
        raise ValueError("it has dictionaries, which no file of this project has")
    for offset in _batches(content, footer):
        is_long = struct.unpack_from("<I", content, offset)[0] == CONTINUED
        message = _table(content, offset + (8 if is_long else 4))
        batch = _field(content, message, HEADER)
        if batch is None or _field(content, _table(content, batch), COMPRESSION) is not None:
            raise ValueError("it has a compressed batch, which no file of this project has")


def _footer(content: mmap.mmap) -> int:
    end = len(content) - len(MAGIC) - 4
    (size,) = struct.unpack_from("<i", content, end)
    return _table(content, end - size)


def _batches(content: mmap.mmap, footer: int) -> list[int]:
    """Where each batch begins."""
    start, count = _vector(content, footer, BATCHES)
    return [BLOCK.unpack_from(content, start + place * BLOCK.size)[0] for place in range(count)]


def _table(content: mmap.mmap, place: int) -> int:
    """Where the table lies to which the offset at `place` leads."""
    return place + struct.unpack_from("<I", content, place)[0]


def _field(content: mmap.mmap, table: int, number: int) -> int | None:
    """Where the value of a field of a table lies; None where the table lacks it."""
    fields = table - struct.unpack_from("<i", content, table)[0]
    (size,) = struct.unpack_from("<H", content, fields)
    entry = 4 + 2 * number
    offset = struct.unpack_from("<H", content, fields + entry)[0] if entry < size else 0
    return table + offset if offset else None


def _vector(content: mmap.mmap, table: int, number: int) -> tuple[int, int]:
    """Where the first entry of a list lies, and how many there are."""
    field = _field(content, table, number)
    if field is None:
        return 0, 0
    start = _table(content, field)
    return start + 4, struct.unpack_from("<I", content, start)[0]
