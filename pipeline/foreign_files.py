"""Opening files that others made: only regular files, only inside their root, and never more bytes than expected.

A path may lead to a pipe that never ends, a device, a link out of the data set or a file of a terabyte. Each of them is
a `BadInput`, so it costs one video. All paths that come from data are resolved here.
"""

from __future__ import annotations

import codecs
import errno
import json
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from pipeline import store
from pipeline.errors import BadInput
from pipeline.seals import unsealed

LARGEST_PICTURE = 2**28     # bytes; an uncompressed picture of `picture_headers.LARGEST` pixels is smaller
LARGEST_JSON = 2**32        # bytes; the annotations of the largest public data sets are below 2**31
LARGEST_LIST = 2**26        # bytes of a list of videos
_KINDS = ((stat.S_ISFIFO, "a pipe (FIFO)"), (stat.S_ISSOCK, "a socket"), (stat.S_ISCHR, "a device"),
          (stat.S_ISBLK, "a device"))
_TYPES = {dict: "an object with fields", list: "a list", str: "a text", int: "a whole number", bool: "true or false"}


def inside(path: Path, *roots: Path) -> Path:
    """The path, unless it leads out of all `roots` once every link is followed.

    Raises BadInput "outside" for one that does, and for a path that no file system allows.
    """
    try:
        real = Path(os.path.realpath(path))
        if any(real.is_relative_to(os.path.realpath(root)) for root in roots):
            return path
    except (ValueError, OSError):       # a NUL byte, or a name that cannot be encoded
        raise BadInput("outside", f"{str(path)!r} cannot be the name of a file.", cure="Correct the name.") from None
    raise BadInput("outside", f"it leads to {real}, outside of {roots[0]}.", file=path,
                   cure="Copy the file into the data set in place of the link, or correct its name.")


def open_regular(path: Path | str) -> IO[bytes]:
    """A file opened for reading. Raises OSError, and BadInput "not-a-file" for a pipe, a socket or a device.

    An object in a store is copied to this machine first; a tar is read there, and its file has no number.
    The kind is asked for before opening, since opening a device can act on it, and again afterwards, since the file may
    have been exchanged. Opening never waits for a writer.
    """
    if (file := store.opened(path)) is not None:
        return file
    mode = os.stat(path).st_mode
    refuse_special(path, mode)
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        refuse_special(path, os.fstat(descriptor).st_mode)
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def refuse_special(path: Path | str, mode: int, *, video: str | None = None) -> None:
    """Raise BadInput "not-a-file" where `mode`, from `os.stat`, is that of a pipe, a socket or a device."""
    kind = next((name for is_kind, name in _KINDS if is_kind(mode)), None)
    if kind is not None:
        raise BadInput("not-a-file", f"it is {kind}, not a file.", video=video, file=path,
                       cure="Replace it by a file, or remove it.")


def read_file(path: Path, *, largest: int = LARGEST_PICTURE) -> bytes:
    """The content of a regular file.

    Raises OSError, BadInput "not-a-file" as `open_regular` does, and BadInput "too-large" above `largest` bytes, before
    memory is taken.
    """
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > largest:
            raise BadInput("too-large", f"the file has {size:,} bytes; at most {largest:,} are read.", file=path,
                           cure="Copy it again, or split it.")
        return file.read(size)


def read_text(path: Path, *, errors: str = "strict") -> str:
    """The text of a list that people wrote, by its byte order mark in UTF-16, else in UTF-8.

    errors: as for `bytes.decode`. Raises as `read_file` does, and UnicodeDecodeError.
    """
    content = read_file(path, largest=LARGEST_LIST)
    is_utf_16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))      # PowerShell writes it
    return content.decode("utf-16" if is_utf_16 else "utf-8-sig", errors)


def parse_json(content: bytes | str) -> Any:
    """The value of a json text.

    Raises ValueError for any text that is none, where it is nested too deeply, and where an object gives a field two
    values, of which Python would keep the last.
    """
    try:
        return json.loads(content, object_pairs_hook=_fields)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except MemoryError:
        raise ValueError("it needs more memory than there is") from None


def _fields(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        for name, value in pairs:
            if fields[name] != value:
                raise ValueError(f"an object has the field {name!a} twice, with different values")
    return fields


def own_json(path: Path, *, cure: str, needs: Mapping[str, type] | None = None) -> dict[str, Any]:
    """The object in a json file that this project wrote, without its seal. A power cut may have cut off or emptied it.

    needs: field -> type of its value, of fields that must be there. cure: how to get a whole file again. Raises
    OSError, and BadInput naming the file: "damaged-json" for anything but a whole object, "not-a-file" for a folder.
    """
    try:
        content = parse_json(read_file(path, largest=LARGEST_JSON))
        content = unsealed(content) if isinstance(content, dict) else content
    except BadInput:
        raise
    except IsADirectoryError:
        raise BadInput("not-a-file", "it is a folder where a file belongs.", file=path,
                       cure=f"Remove it. {cure}".strip()) from None
    except ValueError as error:
        raise BadInput("damaged-json", f"it cannot be read ({error}): it is cut off or damaged.", file=path,
                       cure=cure) from None
    if not isinstance(content, dict):
        raise BadInput("damaged-json", "the file holds no object with fields.", file=path, cure=cure)
    for name, kind in (needs or {}).items():
        if not isinstance(content.get(name), kind):
            raise BadInput("damaged-json", f"its field {name!r} is missing, or is not {_TYPES[kind]}.", file=path,
                           cure=cure)
    return content


def whole_json(path: Path, *, needs: Mapping[str, type] | None = None) -> dict[str, Any] | None:
    """As `own_json`, of a file that can be made again: None where it is missing or damaged."""
    try:
        return own_json(path, cure="", needs=needs)
    except (FileNotFoundError, BadInput):
        return None
