"""Files and folders as every reader of a data set opens them; errors say how to put things right."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from model.labels import ClassTable
from pipeline.datasets.class_rows import table_of_rows
from pipeline.datasets.json_entries import Entry
from pipeline.errors import BadInput
from pipeline.file_names import PICTURES, at_home, composed, frame_name, is_companion, naturally, on_disk, video_name
from pipeline.foreign_files import LARGEST_JSON, inside, parse_json, read_file, read_text
from pipeline.frame_order import in_order_of_time
from pipeline.images import image_size


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


def read_list(path: Path) -> dict[str, str | BadInput]:
    """The videos on a list, by name: the folder of each, or why it cannot be read, which its reader raises.

    Quotation marks around a name and lines that begin with "# " are left out. A line that is no path inside the data
    set is a video "<file>, line <n>" that cannot be read, and so are two folders whose names become the same. Raises
    `BadInput` for a file that is no text.
    """
    cure = "Write one video per line, as its folder is named."
    try:
        lines = read_text(path, errors="surrogateescape").splitlines()
    except BadInput:
        raise
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput("bad-list", f"it cannot be read as text ({error}).", file=path, cure=cure) from None
    folders = []
    faults: dict[str, str | BadInput] = {}
    for index, line in enumerate(lines, start=1):
        name = f"{path.name}, line {index}"
        try:
            line = line.strip().strip("\"'")
            if line and not line.startswith("# "):
                listed = Entry({"line": line}, "the list", file=path, cure=cure, video=name)
                folders.append(listed.checked_path(listed.text("line"), "line"))
        except BadInput as error:
            faults[name] = error
    if faults and not folders:
        raise BadInput("bad-list", f"none of its {len(faults)} lines names a video; the first: "
                       f"{next(iter(faults.values())).what}", file=path, cure=cure)
    return videos_by_name(dict.fromkeys(folders), file=path) | faults


def videos_by_name(folders: Iterable[str], *, file: Path) -> dict[str, str | BadInput]:
    """Name of each video -> its folder, or the error of folders whose names become the same."""
    groups: dict[str, list[str]] = {}
    for folder in sorted(set(folders)):
        groups.setdefault(video_name(folder), []).append(folder)
    return {name: same[0] if len(same) == 1 else BadInput(
        "duplicate-id", f"the folders {same[0]!r} and {same[1]!r} both become the video {name!r}.", video=name,
        file=file, cure="Rename one of them.") for name, same in groups.items()}


def folder_of(videos: Mapping[str, str | BadInput], video: str) -> str:
    """The folder of a video among those that `read_list` gives. Raises the error of one that cannot be read."""
    folder = videos.get(video, video)
    if isinstance(folder, BadInput):
        raise folder
    return folder


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
    folder = on_disk(at_home(root))
    if not folder.is_dir():
        raise FileNotFoundError(f"data set {name!r}: {folder} is not a folder. Set dataset.root to the folder "
                                f"of the unpacked data set; docs/data.md shows its files.")
    return folder


def first_existing(candidates: list[Path], *, description: str) -> Path:
    """The first path that exists. Raises `FileNotFoundError` listing all of them."""
    for candidate in map(on_disk, candidates):
        if os.path.exists(candidate):
            return candidate
    tried = ", ".join(str(path) for path in candidates)
    raise FileNotFoundError(f"no {description}: looked for {tried}. Check dataset.root, and the splits that are "
                            f"read: train_split, evaluation.split, cache.splits; docs/data.md shows the layout.")


def files_by_stem(folder: Path, suffixes: tuple[str, ...], *, roots: Sequence[Path], video: str,
                  kind: str, faults: dict[str, BadInput] | None = None) -> dict[str, Path]:
    """Name of the frame -> path of every file of one kind in a folder. Lists the folder once.

    roots: the folders out of which neither the folder nor a link in it may lead. Raises `BadInput` when the folder is
    missing ("missing-<kind>") or may not be read ("unreadable"), when two files name the same frame ("frame-mismatch"),
    and for what leads out of the roots ("outside"). faults: gets this last fault of files, by the name of the frame.
    """
    try:
        folder = on_disk(folder)
        names = naturally(name for name in os.listdir(inside(folder, *roots))
                          if name.lower().endswith(suffixes) and not is_companion(name))
        for name in names:
            if os.path.islink(folder / name):
                _follow(folder / name, roots, video, faults)
    except BadInput as error:
        raise BadInput(error.reason, error.what, video=video, file=error.file or folder, cure=error.cure) from None
    except FileNotFoundError:
        raise BadInput(f"missing-{kind}", f"the {kind} folder of this video does not exist.", video=video, file=folder,
                       cure="Copy it again, or remove the video from the split list.") from None
    except (OSError, ValueError) as error:      # ValueError: a name that no file system allows
        raise BadInput("unreadable", f"{getattr(error, 'strerror', error)}.", video=video, file=folder,
                       cure="Give this user read permission, or correct the name.") from None
    files = {frame_name(os.path.splitext(name)[0]): folder / name for name in names}
    if twice := [name for name in names if files[frame_name(os.path.splitext(name)[0])] != folder / name]:
        raise BadInput("frame-mismatch", f"{len(twice)} frames have two {kind} files, such as {twice[0]!r}.",
                       video=video, file=folder, cure="Keep one file of each frame.")
    return files


def _follow(link: Path, roots: Sequence[Path], video: str, faults: dict[str, BadInput] | None) -> None:
    try:
        inside(link, *roots)
    except BadInput as error:
        if faults is None:
            raise
        faults[frame_name(link.stem)] = BadInput(error.reason, error.what, video=video, file=link, cure=error.cure)


def pictures_by_name(folder: Path, *, roots: Sequence[Path], video: str) -> dict[str, Path]:
    """Name of the frame -> picture of every frame in a folder, in the order of time.

    Raises `BadInput` as `files_by_stem` does, and for names that tell no order.
    """
    pictures = files_by_stem(folder, PICTURES, roots=roots, video=video, kind="image")
    stems = [composed(os.path.splitext(path.name)[0]) for path in pictures.values()]
    try:
        return {frame_name(stem): pictures[frame_name(stem)] for stem in in_order_of_time(stems)}
    except BadInput as error:
        raise BadInput(error.reason, error.what, video=video, file=folder, cure=error.cure) from None


def size_of_pictures(images: Iterable[Path], video: str) -> tuple[int, int]:
    """The (height, width) of the first picture of a video that can be read. Raises `BadInput` where none can."""
    faults = []
    for image in images:
        try:
            return image_size(read_file(image))
        except OSError as error:
            faults.append(BadInput("unreadable", f"{error.strerror}.", video=video, file=image,
                                   cure="Copy it again, or give this user read permission."))
        except BadInput as error:
            faults.append(BadInput(error.reason, error.what, video=video, file=image, cure=error.cure))
    raise faults[0]
