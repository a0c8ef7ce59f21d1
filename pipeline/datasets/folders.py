"""What every dataset reader asks of the disk, with errors that name the cure."""

from __future__ import annotations

import json
import os
from functools import lru_cache
from pathlib import Path
from typing import Any

from model.labels import ClassInfo, ClassTable
from pipeline.errors import BadInput


def load_json(path: Path) -> Any:
    """A json file, parsed once per process and again only when the file changes. Callers must not change the result.

    Raises `BadInput` for a file that is missing, unreadable or not json.
    """
    try:
        stat = path.stat()
        return _parsed(path, stat.st_mtime_ns, stat.st_size)
    except FileNotFoundError:
        raise BadInput("missing-json", "the annotation file does not exist.", file=path,
                       cure="Check root and split; docs/data.md shows the expected folder.") from None
    except OSError as error:
        raise BadInput("unreadable", f"{error.strerror}.", file=path, cure="Give this user read permission.") from None
    except ValueError as error:    # also UnicodeDecodeError
        raise BadInput("bad-json", f"not valid json ({error}).", file=path, cure="Copy the file again.") from None


@lru_cache(maxsize=8)
def _parsed(path: Path, _changed: int, _size: int) -> Any:
    return json.loads(path.read_text())


def class_table(name: str, path: Path, *, only_stuff: bool = False) -> ClassTable:
    """The classes a json file lists, by itself or under "categories": rows of id, name, isthing and color (r, g, b).

    only_stuff: whatever isthing says. Raises `BadInput` for rows that lack or mistype one, `ValueError` for equal ids.
    """
    found = load_json(path)
    try:
        rows = found["categories"] if isinstance(found, dict) else found
        return ClassTable(name, tuple(ClassInfo(row["id"], row["name"], bool(row["isthing"]) and not only_stuff,
                                                tuple(row["color"])) for row in rows))
    except (KeyError, TypeError) as error:
        raise BadInput("bad-json", f"a category lacks or mistypes {error}.", file=path,
                       cure="Each category needs id, name, isthing and color.") from None


def root_folder(root: str, *, name: str) -> Path:
    """The folder of a data set. Raises `FileNotFoundError` when it is not one."""
    folder = Path(root).expanduser()
    if not folder.is_dir():
        raise FileNotFoundError(f"data set {name!r}: {folder} is not a folder. Set root to where the data set was "
                                f"unpacked; docs/data.md shows what it must hold.")
    return folder


def first_existing(candidates: list[Path], *, what: str) -> Path:
    """The first path that exists. Raises `FileNotFoundError` listing all of them."""
    for candidate in candidates:
        if candidate.exists():
            return candidate
    tried = ", ".join(str(path) for path in candidates)
    raise FileNotFoundError(f"no {what}: looked for {tried}. Check root and split; docs/data.md shows the layout.")


def files_by_stem(folder: Path, suffixes: tuple[str, ...], *, video: str, what: str) -> dict[str, Path]:
    """Name without suffix -> path of every file of one kind in a folder, sorted by name; one look at the disk.

    Raises `BadInput` when the folder is missing ("missing-<what>") or may not be read ("unreadable"), and where two
    files would be the same frame ("frame-mismatch").
    """
    try:
        names = sorted(name for name in os.listdir(folder) if name.lower().endswith(suffixes))
    except FileNotFoundError:
        raise BadInput(f"missing-{what}", f"the {what} folder of this video does not exist.", video=video, file=folder,
                       cure="Copy it again, or take the video off the split list.") from None
    except OSError as error:
        raise BadInput("unreadable", f"{error.strerror}.", video=video, file=folder,
                       cure="Give this user read permission.") from None
    files = {os.path.splitext(name)[0]: folder / name for name in names}
    if twice := [name for name in names if files[os.path.splitext(name)[0]] != folder / name]:
        raise BadInput("frame-mismatch", f"{len(twice)} frames have two {what} files, such as {twice[0]!r}.",
                       video=video, file=folder, cure="Keep one file of each frame.")
    return files
