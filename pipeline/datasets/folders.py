"""Files and folders as every reader of a data set opens them; errors say how to put things right."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from model.labels import ClassTable
from pipeline.datasets.class_rows import table_of_rows
from pipeline.datasets.json_entries import Entry
from pipeline.errors import BadInput
from pipeline.file_names import at_home, is_companion, naturally, video_name
from pipeline.foreign_files import LARGEST_JSON, inside, parse_json, read_file, read_text


def load_json(path: Path) -> Any:
    """A json file, parsed once per process and again only when the file changes. Callers must not change the result.

    Raises `BadInput` for a file that is missing, unreadable, no regular file, too large, or not valid json.
    """
    try:
        stat = path.stat()
        return _parsed(path, stat.st_mtime_ns, stat.st_size)
    except BadInput:
        raise
    except FileNotFoundError:
        raise BadInput("missing-json", "the annotation file does not exist.", file=path,
                       cure="Check dataset.root and the split; docs/data.md shows the expected files.") from None
    except OSError as error:
        raise BadInput("unreadable", f"{error.strerror}.", file=path, cure="Give this user read permission.") from None
    except ValueError as error:     # also UnicodeDecodeError
        raise BadInput("bad-json", f"the file is not valid json ({error}).", file=path,
                       cure="Copy the file again, or correct it at this place.") from None


@lru_cache(maxsize=8)
def _parsed(path: Path, _changed: int, _size: int) -> Any:
    return parse_json(read_file(path, largest=LARGEST_JSON))     # bytes: also with a byte order mark, and in UTF-16


def load_entry(path: Path, *, cure: str) -> Entry:
    """The object that a json file holds. Raises `BadInput` as `load_json` does, and where it holds something else."""
    return Entry(load_json(path), "the file", file=path, cure=cure)


def read_list(path: Path) -> list[str]:
    """The lines of a list of videos that are not empty, each once, sorted; paths have slashes.

    Raises `BadInput` for a file that is no text, and for a line that is no path inside the data set.
    """
    cure = "Write one video per line, as its folder is named."
    try:
        lines = read_text(path).splitlines()
    except BadInput:
        raise
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput("bad-list", f"it cannot be read as text ({error}).", file=path, cure=cure) from None
    listed = Entry({"line": ""}, "the list", file=path, cure=cure)
    return sorted({listed.checked_path(line.strip(), "line") for line in lines if line.strip()})


def videos_by_name(folders: Iterable[str], *, file: Path) -> dict[str, str]:
    """Name of each video -> its folder. Raises `BadInput` for two folders whose names become the same."""
    names: dict[str, str] = {}
    for folder in folders:
        if (other := names.setdefault(video_name(folder), folder)) != folder:
            raise BadInput("duplicate-id", f"the folders {other!r} and {folder!r} both become the video "
                           f"{video_name(folder)!r}.", file=file, cure="Rename one of them.")
    return names


def class_table(name: str, path: Path, *, only_stuff: bool = False, highest: int | None = None) -> ClassTable:
    """The classes that a json lists at its top level or under "categories", as rows of id, name, isthing and color.

    only_stuff: every class is stuff, and isthing is ignored. highest: the largest id that the label maps can store.
    Raises `BadInput` for rows in which a field is missing or has the wrong type, and for ids that occur twice.
    """
    cure = "Each category needs id, name, isthing and color."
    content = load_json(path)
    file = Entry({"categories": content} if isinstance(content, list) else content, "the file", file=path, cure=cure)
    if not file.list("categories"):
        raise file.bad("the file lists no categories.")
    table = table_of_rows(name, file.entries("categories", "category"), only_stuff=only_stuff)
    if highest is not None and (above := [info for info in table.classes if info.dataset_id > highest]):
        raise BadInput("unknown-category", f"category {above[0].name!r} has the id {above[0].dataset_id}, but label "
                       f"maps in this layout store ids up to {highest}.", file=path,
                       cure=f"Number the classes from 0 to {highest}, in the label maps too.")
    return table


def root_folder(root: str, *, name: str) -> Path:
    """The folder of a data set. Raises `FileNotFoundError` when `root` is not a folder."""
    folder = at_home(root)
    if not folder.is_dir():
        raise FileNotFoundError(f"data set {name!r}: {folder} is not a folder. Set dataset.root to the folder "
                                f"of the unpacked data set; docs/data.md shows its files.")
    return folder


def first_existing(candidates: list[Path], *, description: str) -> Path:
    """The first path that exists. Raises `FileNotFoundError` listing all of them."""
    for candidate in candidates:
        if os.path.exists(candidate):
            return candidate
    tried = ", ".join(str(path) for path in candidates)
    raise FileNotFoundError(f"no {description}: looked for {tried}. Check dataset.root, and the splits that are "
                            f"read: train_split, evaluation.split, cache.splits; docs/data.md shows the layout.")


def files_by_stem(folder: Path, suffixes: tuple[str, ...], *, roots: Sequence[Path], video: str,
                  kind: str) -> dict[str, Path]:
    """Name without suffix -> path of every file of one kind in a folder, in natural order. Lists the folder once.

    roots: the folders out of which neither the folder nor a link in it may lead. Raises `BadInput` when the folder is
    missing ("missing-<kind>") or may not be read ("unreadable"), when two files name the same frame ("frame-mismatch"),
    and for what leads out of the roots ("outside").
    """
    try:
        names = naturally(name for name in os.listdir(inside(folder, *roots))
                          if name.lower().endswith(suffixes) and not is_companion(name))
        for name in names:
            if os.path.islink(folder / name):
                inside(folder / name, *roots)
    except BadInput as error:
        raise BadInput(error.reason, error.what, video=video, file=error.file or folder, cure=error.cure) from None
    except FileNotFoundError:
        raise BadInput(f"missing-{kind}", f"the {kind} folder of this video does not exist.", video=video, file=folder,
                       cure="Copy it again, or remove the video from the split list.") from None
    except (OSError, ValueError) as error:      # ValueError: a name that no file system allows
        raise BadInput("unreadable", f"{getattr(error, 'strerror', error)}.", video=video, file=folder,
                       cure="Give this user read permission, or correct the name.") from None
    files = {os.path.splitext(name)[0]: folder / name for name in names}
    if twice := [name for name in names if files[os.path.splitext(name)[0]] != folder / name]:
        raise BadInput("frame-mismatch", f"{len(twice)} frames have two {kind} files, such as {twice[0]!r}.",
                       video=video, file=folder, cure="Keep one file of each frame.")
    return files
