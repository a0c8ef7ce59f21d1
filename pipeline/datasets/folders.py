"""Files and folders as every reader of a data set opens them; errors say how to put things right."""

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

    Raises `BadInput` for a file that is missing, unreadable or not valid json.
    """
    try:
        stat = path.stat()
        return _parsed(path, stat.st_mtime_ns, stat.st_size)
    except FileNotFoundError:
        raise BadInput("missing-json", "the annotation file does not exist.", file=path,
                       cure="Check root and split; docs/data.md shows the expected files.") from None
    except OSError as error:
        raise BadInput("unreadable", f"{error.strerror}.", file=path, cure="Give this user read permission.") from None
    except ValueError as error:    # also UnicodeDecodeError
        raise BadInput("bad-json", f"the file is not valid json ({error}).", file=path,
                       cure="Copy the file again.") from None


@lru_cache(maxsize=8)
def _parsed(path: Path, _changed: int, _size: int) -> Any:
    return json.loads(path.read_text())


def class_table(name: str, path: Path, *, only_stuff: bool = False) -> ClassTable:
    """The classes that a json file lists at its top level or under "categories", as rows of id, name, isthing and color
    (r, g, b).

    only_stuff: every class is stuff, and isthing is ignored. Raises `BadInput` for rows in which a field is missing or
    has the wrong type, `ValueError` for ids that occur twice.
    """
    content = load_json(path)
    try:
        rows = content["categories"] if isinstance(content, dict) else content
        return ClassTable(name, tuple(ClassInfo(row["id"], row["name"], bool(row["isthing"]) and not only_stuff,
                                                tuple(row["color"])) for row in rows))
    except (KeyError, TypeError) as error:
        raise BadInput("bad-json", f"a field of a category is missing or has the wrong type: {error}.", file=path,
                       cure="Each category needs id, name, isthing and color.") from None


def root_folder(root: str, *, name: str) -> Path:
    """The folder of a data set. Raises `FileNotFoundError` when `root` is not a folder."""
    folder = Path(root).expanduser()
    if not folder.is_dir():
        raise FileNotFoundError(f"data set {name!r}: {folder} is not a folder. Set root to the folder of the "
                                f"unpacked data set; docs/data.md shows its files.")
    return folder


def first_existing(candidates: list[Path], *, description: str) -> Path:
    """The first path that exists. Raises `FileNotFoundError` listing all of them."""
    for candidate in candidates:
        if candidate.exists():
            return candidate
    tried = ", ".join(str(path) for path in candidates)
    raise FileNotFoundError(f"no {description}: looked for {tried}. Check root and split; docs/data.md shows the "
                            f"layout.")


def files_by_stem(folder: Path, suffixes: tuple[str, ...], *, video: str, kind: str) -> dict[str, Path]:
    """Name without suffix -> path of every file of one kind in a folder, sorted by name. Lists the folder once.

    Raises `BadInput` when the folder is missing ("missing-<kind>") or may not be read ("unreadable"), and when two
    files name the same frame ("frame-mismatch").
    """
    try:
        names = sorted(name for name in os.listdir(folder) if name.lower().endswith(suffixes))
    except FileNotFoundError:
        raise BadInput(f"missing-{kind}", f"the {kind} folder of this video does not exist.", video=video, file=folder,
                       cure="Copy it again, or remove the video from the split list.") from None
    except OSError as error:
        raise BadInput("unreadable", f"{error.strerror}.", video=video, file=folder,
                       cure="Give this user read permission.") from None
    files = {os.path.splitext(name)[0]: folder / name for name in names}
    if twice := [name for name in names if files[os.path.splitext(name)[0]] != folder / name]:
        raise BadInput("frame-mismatch", f"{len(twice)} frames have two {kind} files, such as {twice[0]!r}.",
                       video=video, file=folder, cure="Keep one file of each frame.")
    return files
