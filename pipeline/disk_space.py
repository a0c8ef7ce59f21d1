"""Errors of a disk without room or without the right to write: which file, how many bytes it needs, and the cure."""

from __future__ import annotations

import errno
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
UNWRITABLE = (errno.EROFS, errno.EACCES, errno.EPERM)
NO_TEMPORARY_FOLDER = "No usable temporary directory"       # Python's error
AGAIN = "then run the same command again: what is finished is kept."
# How libraries that do not raise OSError say it: safetensors, torch, SQLite, Ray.
_TEXTS = re.compile(r"no space left on device|disk quota exceeded|file too large|\(os error (28|122|27)\)|"
                    r"disk is full|out of disk|OutOfDisk", re.IGNORECASE)


def named(error: OSError, path: Path, needed: int | None = None) -> OSError:
    """The error of writing a file with the path of that file and a cure. needed: bytes of the file, where known."""
    result = OSError(error.errno, error.strerror, str(path))
    result.add_note(cure(error.errno, path, needed))
    return result


def cure(number: int, path: Path, needed: int | None = None) -> str:
    """What to do about an `errno` of writing a file, with the bytes that it needs and those that are free."""
    needs = "" if needed is None else f"The file needs {needed:,} bytes. "
    match number:
        case errno.ENOSPC:
            return f"{needs}{free_bytes(path):,} bytes are free on its disk. Make room, {AGAIN}"
        case errno.EDQUOT:
            return f"{needs}The quota of this user is used up. Make room, {AGAIN}"
        case errno.EFBIG:
            return (f"{needs}Files may not be so large here. Raise the limit (ulimit -f unlimited), or write to a file "
                    f"system that allows it, {AGAIN}")
        case errno.EROFS:
            return f"Its file system is read-only. Make it writable, or write elsewhere, {AGAIN}"
        case errno.EACCES | errno.EPERM:
            return f"This user may not write there. Get write permission, or write elsewhere, {AGAIN}"
    return f"{needs}Make room or get write permission, {AGAIN}"


def cannot_write(error: BaseException) -> bool:
    """Whether an error says that a file or folder cannot be written, and not that this user may not read it."""
    if not isinstance(error, OSError) or error.errno not in UNWRITABLE or error.filename is None:
        return False
    return error.errno == errno.EROFS or not os.path.exists(error.filename) or os.access(error.filename, os.R_OK)


def free_bytes(path: Path) -> int:
    """The bytes that this user may still write on the file system of a path, which need not exist; 0 if unknown."""
    for folder in (path, *path.parents):
        try:
            return shutil.disk_usage(folder).free
        except OSError:
            continue
    return 0


def explained(error: Exception, folder: Path) -> Exception:
    """An OSError with a cure where a full disk is behind the error, else the error itself. folder: that of the run.

    One of a file that this user may not write, or not read, or whose run was moved, gets its cure too.

    Libraries hide the reason in errors of their own, or do not name the file; then the free bytes of the folders are
    given in which it may lie.
    """
    full = next(filter(_is_full, _chain(error)), None)
    if getattr(error, "__notes__", None):
        return error
    if NO_TEMPORARY_FOLDER in str(error):       # Python tries to write into each
        error.add_note(f"Make room in one of them, or set TMPDIR to a folder with room, {AGAIN}")
    if full is None:
        if cannot_write(error):
            error.add_note(cure(error.errno, Path(os.fsdecode(error.filename))))
        elif isinstance(error, PermissionError) and error.filename is not None:
            error.add_note("This user may not read it. Get read permission, then run the same command again.")
        elif isinstance(error, FileNotFoundError) and _lost_its_folder(error, folder):
            error.add_note(f"{folder} was moved, renamed or removed while the verb ran. Start the verb again, with the "
                           "folder as it is called now: what is finished is kept.")
        return error
    if isinstance(full, OSError) and full.filename is not None:
        return named(full, Path(os.fsdecode(full.filename)))
    number = getattr(full, "errno", None) or errno.ENOSPC
    places = dict.fromkeys((folder, _temporary_folder()))
    detail = "" if isinstance(full, OSError) else f" ({str(full).splitlines()[0][:200]})"
    result = OSError(number, f"{os.strerror(number)}{detail}, in a file that the system does not name")
    result.add_note(f"Free are {' and '.join(f'{free_bytes(place):,} bytes in {place}' for place in places)}. "
                    f"Make room, or set TMPDIR to another folder where that is the full one, {AGAIN}")
    return result


def tells_of_full_disk(message: str) -> bool:
    """Whether the message of a library, or of a program, is that of a disk without room."""
    return _TEXTS.search(message) is not None


def _lost_its_folder(error: FileNotFoundError, folder: Path) -> bool:
    """Whether an error names a file of the run in `folder` whose own folder is not there either."""
    path = Path(os.fsdecode(error.filename or ""))
    return path.is_relative_to(folder) and path.parent != folder and not path.parent.exists()


def _is_full(error: BaseException) -> bool:
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in (*NO_ROOM, errno.EROFS)
    return tells_of_full_disk(str(error))


def _temporary_folder() -> Path:
    """The temporary folder, also where it is full."""
    try:
        return Path(tempfile.gettempdir())
    except FileNotFoundError:
        return Path(os.environ.get("TMPDIR", "/tmp"))


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error and those that led to it."""
    seen = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__
