"""Folders of data that people label with a tool: <split>/<video>/..., and classes that are listed or counted."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

from model.labels import ClassTable
from pipeline.datasets.classes_youtube_vis import thing_table
from pipeline.datasets.folders import class_table, first_existing
from pipeline.errors import BadInput
from pipeline.file_names import PICTURES, composed, is_companion, naturally
from pipeline.foreign_files import read_text

CATEGORIES = "categories.json"
LABELS = "labels.txt"
NO_CLASSES = ("__ignore__", "_background_")     # of LabelMe's labels.txt


def videos_of(root: Path, split: str) -> dict[str, Path]:
    """Name -> folder of every video of a split. Raises FileNotFoundError without them."""
    folder = first_existing([root / split], description=f"folder of the split {split!r}")
    videos = {composed(name): folder / name for name in naturally(subfolders(folder))}
    if not videos:
        raise FileNotFoundError(f"{folder} holds no folders; give every video a folder of its own in it, as "
                                "docs/own_data.md shows")
    return videos


def all_videos(root: Path) -> list[Path]:
    """The folders of the videos of all splits."""
    return [root / split / video for split in naturally(subfolders(root))
            for video in naturally(subfolders(root / split))]


def subfolders(folder: Path) -> list[str]:
    """The names of the folders in a folder, without those of tools and systems.

    Links that lead nowhere count as folders, so that reading one names it.
    """
    return [name for name in os.listdir(folder) if not is_companion(name)
            and (os.path.isdir(folder / name) or not os.path.exists(folder / name))]


def files_beside(folder: Path) -> dict[str, int]:
    """The remark on files beside the folders of videos, which are left out."""
    files = sum(os.path.isfile(folder / name) for name in os.listdir(folder) if not is_companion(name))
    return {"files beside the folders of videos": files} if files else {}


def files_in(folder: Path, video: str) -> list[str]:
    """The names in a folder without companions, in natural order; none where it is no folder.

    Raises BadInput "unreadable" for one that may not be listed.
    """
    try:
        return naturally(name for name in os.listdir(folder) if not is_companion(name))
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise BadInput("unreadable", f"{error.strerror}.", video=video, file=folder,
                       cure="Give this user read permission, or remove it.") from None


def folder_of_pictures(video: str, candidates: Iterable[Path]) -> Path:
    """The first folder that holds pictures. Raises BadInput "empty-video" where none does."""
    candidates = list(candidates)
    for folder in candidates:
        if any(name.lower().endswith(PICTURES) for name in files_in(folder, video)):
            return folder
    raise BadInput("empty-video", f"it holds no pictures, nor do {', '.join(path.name for path in candidates[:-1])} "
                   "in it." if len(candidates) > 1 else "it holds no pictures.", video=video, file=candidates[-1],
                   cure="Put its frames there as JPEG or PNG files, or remove the folder.")


def own_classes(name: str, root: Path, names: Callable[[], Iterable[str]]) -> ClassTable:
    """The classes in categories.json (rows as in VIPSeg) or labels.txt (a name per line) of the folder `root`.

    names: gives those that the annotations of all splits use, for a folder without either; they are things, in the
    order of the alphabet. Raises BadInput for a list that cannot be read, and where there is no class.
    """
    if (root / CATEGORIES).is_file():
        return _told_apart(class_table(name, root / CATEGORIES), root / CATEGORIES)
    listed = _lines(root / LABELS) if (root / LABELS).is_file() else sorted(set(names()))
    classes = [label for label in listed if label not in NO_CLASSES]
    if not classes:
        raise BadInput("unknown-category", "no annotation names a class.", file=root,
                       cure=f"Label a frame, or list the classes in {LABELS}, a name on each line.")
    return thing_table(name, dict(enumerate(classes, start=1)))


def _told_apart(classes: ClassTable, file: Path) -> ClassTable:
    """The classes, whose names tell them apart in the annotations. Raises BadInput for a name that occurs twice."""
    names = Counter(info.name for info in classes.classes)
    if twice := sorted(name for name, times in names.items() if times > 1):
        raise BadInput("bad-list", f"it lists the classes {twice[:5]} twice.", file=file, cure="List each class once.")
    return classes


def _lines(file: Path) -> list[str]:
    try:
        lines = [composed(line.strip()) for line in read_text(file).splitlines()]
    except (OSError, BadInput, UnicodeDecodeError) as error:
        raise BadInput("bad-list", f"it cannot be read as text ({error}).", file=file,
                       cure="Write the name of a class on each line.") from None
    if twice := sorted({line for line in lines if line and lines.count(line) > 1}):
        raise BadInput("bad-list", f"it lists the classes {twice[:5]} twice.", file=file, cure="List each class once.")
    return [line for line in lines if line]
