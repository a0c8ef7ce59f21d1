"""The videos in what people give to `predict`: files, folders, globs and lists, each under a name of its own."""

from __future__ import annotations

import glob
import hashlib
import json
import os
import shlex
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Self

from pipeline.clips import pictures_in
from pipeline.errors import BadInput
from pipeline.file_names import PICTURES, UNICODE_FORMS, is_companion, natural, naturally, on_disk, safe_name
from pipeline.foreign_files import read_text

VIDEO_SUFFIXES = (".mp4", ".mov", ".mkv", ".avi", ".webm", ".m4v", ".ts", ".mts", ".m2ts", ".mpg", ".mpeg", ".vob",
                  ".3gp", ".wmv", ".flv", ".ogv", ".gif")
LIST_SUFFIX = ".txt"
NO_VIDEO = ("is neither a video nor a picture by its name",
            f"Videos end in {', '.join(VIDEO_SUFFIXES)}, pictures in {', '.join(PICTURES)}; a video with "
            "another name is read if you name the file itself.")


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnVideo:
    """A video file, a folder of frames or a single picture."""

    name: str       # of its results; can name a file on any system
    path: str

    def to_text(self) -> str:
        """The fields as ASCII: names of files need not be valid Unicode, which tables of other libraries ask for."""
        return json.dumps(asdict(self))

    @classmethod
    def from_text(cls, text: str) -> Self:
        """What `to_text` was called on."""
        return cls(**json.loads(text))


@dataclass(frozen=True, slots=True)
class OwnVideos:
    """All videos that were given, and one error for every file and folder, or group of them, that is left out."""

    videos: list[OwnVideo] = field(default_factory=list)
    left_out: list[BadInput] = field(default_factory=list)


def find_videos(given: str | Sequence[str], *, taken: Mapping[str, str] | None = None) -> OwnVideos:
    """The videos of one or several files, folders, globs or lists (.txt, one of these a line).

    A folder that holds videos and folders of frames gives each of them; a folder of pictures is one video. A picture
    that is named itself, or by a glob, is a video of one frame. What two paths lead to is one video, of the first path.
    taken: names of earlier results -> path of their video; another video gets another name.
    Raises FileNotFoundError where there is nothing to predict.
    """
    entries = list(filter(None, [given] if isinstance(given, str) else given))
    left_out: list[BadInput] = []
    paths: list[Path] = []
    for entry in entries:
        for path in _expanded(entry, left_out):
            paths += _videos_of(path, left_out)
    paths = _once(paths, left_out)
    if not paths:
        why = f": {left_out[0]}" if left_out else "."
        raise FileNotFoundError(f"predict.input={given!r} holds nothing to predict{why} Give a video file, a picture, "
                                "a folder of frames, a folder of videos, a glob, or a list of them: "
                                "--set predict.input=my_video.mp4")
    names = distinct_names(paths, taken or {})
    return OwnVideos([OwnVideo(name=name, path=str(path)) for name, path in zip(names, paths)], left_out)


def distinct_names(paths: Sequence[Path], taken: Mapping[str, str]) -> list[str]:
    """A name for the results of each path: its own without suffix; more of the path where another has that name."""
    choices = [_names(path) for path in paths]
    counts = Counter(name for names in choices for name in set(names))
    chosen: list[str] = []
    for path, names in zip(paths, choices):
        free = [name for name in names if _is_of(path, taken.get(name)) and name not in chosen]
        chosen.append(next((name for name in free if name in taken or counts[name] == 1), free[-1]))
    return chosen


def _is_of(path: Path, earlier: str | None) -> bool:
    """Whether results of this path may have the name that `earlier` has, or nothing."""
    return not earlier or earlier == str(path) or os.path.realpath(earlier) == os.path.realpath(path)


def _once(paths: Iterable[Path], left_out: list[BadInput]) -> list[Path]:
    """The paths without repeats; another path to the same file or folder is named."""
    kept: dict[str, Path] = {}
    for path in dict.fromkeys(paths):
        first = kept.setdefault(os.path.realpath(path), path)
        if first != path:
            left_out.append(BadInput("named-twice", f"it is the same as {first}, which is predicted once.", file=path,
                                     cure="Copy it under another name if you want it twice."))
    return list(kept.values())


def _names(path: Path) -> list[str]:
    """Possible names, the best first; the last one belongs to this path alone."""
    own = path.name if path.is_dir() else path.stem
    with_suffix = path.name.replace(".", "_")
    code = hashlib.sha256(os.fsencode(path)).hexdigest()[:8]
    return [safe_name(name) for name in (own, with_suffix, f"{path.parent.name}_{with_suffix}", f"{own}_{code}")]


def _expanded(entry: str, left_out: list[BadInput], *, lists: tuple[Path, ...] = ()) -> Iterator[Path]:
    """The paths that a path, a glob or a list names; what does not exist is left out. lists: that led to the entry."""
    path = on_disk(Path(os.path.expanduser(entry)).absolute())
    if entry and path.suffix.lower() == LIST_SUFFIX and path.is_file():
        for line in _lines(path, left_out, lists=lists):
            yield from _expanded(str(path.parent / os.path.expanduser(line)), left_out, lists=(*lists, path.resolve()))
    elif entry and os.path.lexists(path):
        yield path
    elif entry and (matches := _matches(str(path))):
        paths = list(map(Path, naturally(matches)))
        others = [path for path in paths
                  if not path.name.lower().endswith((*VIDEO_SUFFIXES, *PICTURES)) and not path.is_dir()]
        _leave_out(left_out, "not-a-video", others, *NO_VIDEO)
        yield from (path for path in paths if path not in others)
    else:
        left_out.append(BadInput("missing-file", "it does not exist, and no file fits it as a glob.", file=path,
                                 cure="Check the path."))


def _matches(pattern: str) -> set[str]:
    """What fits a glob, in whichever Unicode form it is named."""
    patterns = {pattern, *(unicodedata.normalize(form, pattern) for form in UNICODE_FORMS)}
    return {match for each in patterns for match in glob.glob(each, recursive=True)
            if not is_companion(os.path.basename(match))}


def _lines(file: Path, left_out: list[BadInput], *, lists: Sequence[Path]) -> list[str]:
    """The entries of a list, without comments and quotation marks; none of one that cannot be read or names itself."""
    if file.resolve() in lists:
        left_out.append(BadInput("list-in-itself", f"the list {lists[-1].name} names it, and so the lists lead in a "
                                 "circle.", file=file, cure="Remove that line."))
        return []
    try:
        lines = [line.strip() for line in read_text(file, errors="surrogateescape").splitlines()]
    except (OSError, ValueError) as error:
        left_out.append(BadInput("unreadable", f"the list cannot be read: {error}.", file=file,
                                 cure="Write one path per line, and give this user read permission."))
        return []
    exist = [os.path.lexists(on_disk(file.parent / line)) for line in lines]
    return [line if is_there else line.strip("\"'") for line, is_there in zip(lines, exist)
            if line and (is_there or not line.startswith("#"))]


def _videos_of(path: Path, left_out: list[BadInput]) -> list[Path]:
    """The videos that one path stands for."""
    if not path.is_dir():
        return [path]
    try:
        names = naturally(name for name in os.listdir(path) if not is_companion(name))
        folders = [path / name for name in names if (path / name).is_dir()]
        of_frames = [folder for folder in folders if _holds_pictures(folder)]
        pictures = [picture for picture in pictures_in(path) if not picture.name.lower().endswith(VIDEO_SUFFIXES)]
    except OSError as error:
        left_out.append(BadInput("unreadable", f"it cannot be listed: {error.strerror}.", file=path,
                                 cure="Give this user read permission."))
        return []
    films = [path / name for name in names if name.lower().endswith(VIDEO_SUFFIXES) and path / name not in folders]
    others = [path / name for name in names if path / name not in {*folders, *films, *pictures}]
    if films or (of_frames and len(pictures) < 2):
        _leave_out(left_out, "picture-beside-videos", pictures, "lies beside videos and is not predicted",
                   lambda picture: _to_predict("pictures", path, f"*{picture.suffix}"))
        videos = sorted([*films, *of_frames], key=lambda file: natural(file.name))
    elif pictures:
        _leave_out(left_out, "folder-beside-frames", of_frames, "lies beside frames and is not predicted",
                   _to_predict("folders", path, "*/"))
        videos = [path]
    else:
        videos = []
    _leave_out(left_out, "not-a-video", [folder for folder in folders if folder not in of_frames],
               "is a folder without frames, and folders in it are not searched",
               _to_predict("the videos of all folders", path, "**/*.mp4"))
    _leave_out(left_out, "not-a-video", others, *NO_VIDEO)
    return videos


def _holds_pictures(folder: Path) -> bool:
    """Whether a folder is a video; one that cannot be listed counts as such, so that opening it names the reason.

    A folder of animated pictures is none, but one of videos.
    """
    try:
        return any(not picture.name.lower().endswith(VIDEO_SUFFIXES) for picture in pictures_in(folder))
    except OSError:
        return True


def _to_predict(kind: str, folder: Path, pattern: str) -> str:
    """The words for a shell that give what fits a pattern in a folder, whatever its name holds."""
    return f"To predict {kind}: --set predict.input={shlex.quote(f'{glob.escape(str(folder))}/{pattern}')}"


def _leave_out(left_out: list[BadInput], reason: str, paths: Iterable[Path], why: str,
               cure: str | Callable[[Path], str]) -> None:
    """Name what is left out, in one line for all files of one suffix. cure: may depend on the first of them."""
    groups: dict[str, list[Path]] = {}
    for path in paths:
        groups.setdefault(path.suffix.lower(), []).append(path)
    for group in groups.values():
        more = f", like {len(group) - 1} more" if len(group) > 1 else ""
        left_out.append(BadInput(reason, f"it {why}{more}.", file=group[0],
                                 cure=cure if isinstance(cure, str) else cure(group[0])))
