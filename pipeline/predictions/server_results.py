"""Tracks as the evaluation servers of YouTube-VIS and OVIS accept them: a zip that holds `results.json`.

    [{video_id, category_id, score, segmentations: [compressed run lengths or null, one per frame]}, ...]

video_id is the number of the video in the json of the data set, and category_id the data set's own (from 1). Entries
that the server would refuse, or score as nothing without a message, are refused here, both written and read.
"""

from __future__ import annotations

import lzma
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from model.contracts import Track, Tracks
from model.labels import ClassTable
from pipeline.datasets.folders import load_json
from pipeline.datasets.json_entries import is_finite, shown
from pipeline.datasets.run_lengths import runs_of
from pipeline.datasets.youtube_vis import Listed, YouTubeVis
from pipeline.errors import BadInput
from pipeline.file_names import frame_name
from pipeline.files import atomic_file, canonical_json, digest
from pipeline.foreign_files import LARGEST_JSON, open_regular, parse_json, read_file
from pipeline.frame_order import in_order_of_time
from pipeline.predictions.video_to_write import mask_as_text
from pipeline.records import Dataset

RESULTS = "results.json"    # the name the servers look for, inside any zip
MASK = {"size": list, "counts": str}
SMALL_RESULTS = 2**26       # bytes of unpacked results that are always read
LARGEST_RATIO = 100         # of unpacked to packed bytes beyond that; written results have less than 10
# What a zip raises that is damaged, encrypted, or packed by a method that Python lacks.
_ZIP_ERRORS = (zipfile.BadZipFile, RuntimeError, NotImplementedError, EOFError, OSError, zlib.error, lzma.LZMAError)
WRITE_AGAIN = "Correct the program that wrote the file, and write it again."


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedVideo:
    """One video as the json of a split lists it."""

    number: int                     # its id in the json
    video_id: str                   # its folder
    frame_names: tuple[str, ...]    # T
    size: tuple[int, int]           # H W


def listed_videos(dataset: Dataset) -> dict[str, ListedVideo] | None:
    """The videos that the evaluation server of a split lists; None for a data set that no server scores.

    Such are other layouts than YouTube-VIS, and your own data whose ids are no numbers, whose frames are not listed in
    the order of time, or of which a video cannot be read.
    """
    if not isinstance(dataset, YouTubeVis):
        return None
    try:
        videos = {name: _listed_video(name, video) for name, video in dataset.listed().items()}
        served = videos.keys() == set(dataset.video_ids()) and all(map(_is_served, videos.values()))
    except BadInput:
        return None
    return videos if served else None


def _is_served(video: ListedVideo) -> bool:
    names = list(video.frame_names)
    return isinstance(video.number, int) and names == in_order_of_time(names, listed=True)


def _listed_video(name: str, video: Listed) -> ListedVideo:
    return ListedVideo(number=video.entry.key("id"), video_id=name, size=video.entry.size(),
                       frame_names=tuple(frame_name(PurePosixPath(file).stem) for file in video.files))


def read_listed_videos(annotations: Path) -> dict[str, ListedVideo]:
    """The videos of a json in YouTube-VIS form, by folder. The json need not have annotations.

    Raises BadInput for a file that is missing or not such a json, and for ids or folders used twice.
    """
    videos: dict[str, ListedVideo] = {}
    try:
        for entry in load_json(annotations)["videos"]:
            names = [PurePosixPath(name) for name in entry["file_names"]]
            video = ListedVideo(number=entry["id"], frame_names=tuple(name.stem for name in names),
                                video_id=str(names[0].parent) if names else f"video_{entry['id']}",
                                size=(entry["height"], entry["width"]))
            if video.video_id in videos or any(video.number == other.number for other in videos.values()):
                raise BadInput("duplicate-id", f"the id {video.number} or its folder is listed twice.",
                               file=annotations, video=video.video_id, cure="Give every video its own id and folder.")
            videos[video.video_id] = video
    except (KeyError, TypeError) as error:
        raise BadInput("bad-json", f"an entry of its videos lacks or mistypes {error}.", file=annotations,
                       cure="Copy the json of this split again.") from None
    return videos


def write_results(path: Path, tracks: Iterable[Tracks], *, videos: Mapping[str, ListedVideo],
                  classes: ClassTable) -> Path:
    """Write the zip for the evaluation server, one video in memory at a time; it appears complete or not at all.

    Equal tracks in equal order give equal bytes. Raises ValueError when a listed video is missing (a video without
    objects is a `Tracks` without tracks), and BadInput for everything that `read_results` refuses.
    """
    missing = dict(videos)
    separator = b""
    seen = {}
    entry = zipfile.ZipInfo(RESULTS)    # its date is always in 1980
    entry.compress_type = zipfile.ZIP_DEFLATED
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(Path(path)) as file:
        with zipfile.ZipFile(file, "w") as archive, archive.open(entry, "w", force_zip64=True) as results:
            results.write(b"[")
            for video in tracks:
                listed = missing.pop(video.video_id, None)
                _refuse_video(video, listed, videos, Path(path))
                for position, row in enumerate(_entries(video, listed, classes)):
                    _check(row, f"track {position}", {listed.number: listed}, classes, Path(path))
                    _refuse_again(row, position, seen, video.video_id, Path(path))
                    results.write(separator + canonical_json(row))
                    separator = b","
            results.write(b"]")
        if missing:
            raise ValueError(f"{path}: {len(missing)} of {len(videos)} videos have no tracks, first {min(missing)!r}. "
                             "Predict every video of the split; give Tracks without tracks for one without objects.")
    return Path(path)


@dataclass(frozen=True, kw_only=True, eq=False)
class ServerTracks(Mapping[str, Tracks]):
    """The tracks of every listed video, by folder, as a results file gives them. A wrong entry costs its video alone.

    A video that no entry mentions has no tracks, as on the server.
    """

    tracks: Mapping[str, Tracks]            # of the videos without a wrong entry
    faults: Mapping[str, BadInput]          # of the other videos: the first wrong entry
    strays: Sequence[BadInput]              # entries that belong to no listed video

    @property
    def has_entries(self) -> bool:
        """Whether an entry belongs to a listed video."""
        return bool(self.faults) or any(video.tracks for video in self.tracks.values())

    def __getitem__(self, video_id: str) -> Tracks:
        """Raises KeyError for a video that is not listed, BadInput for one with a wrong entry."""
        if video_id in self.faults:
            raise self.faults[video_id]
        return self.tracks[video_id]

    def __iter__(self) -> Iterator[str]:
        return iter([*self.tracks, *self.faults])

    def __len__(self) -> int:
        return len(self.tracks) + len(self.faults)


def read_results(path: Path, *, videos: Mapping[str, ListedVideo], classes: ClassTable) -> dict[str, Tracks]:
    """A results.json, or the zip that holds it, in which every entry is right: the tracks of all listed videos.

    Raises the errors of `read_server_tracks`, and those that it collects.
    """
    read = read_server_tracks(path, videos=videos, classes=classes)
    for error in (*read.strays, *read.faults.values()):
        raise error
    return dict(read.tracks)


def read_server_tracks(path: Path, *, videos: Mapping[str, ListedVideo], classes: ClassTable) -> ServerTracks:
    """A results.json, or the zip that holds it, entry by entry.

    Raises BadInput for a file that is no list of tracks. Collects BadInput naming video, entry and cure: "bad-json",
    "missing-id", "unknown-video", "unknown-category", "bad-score", "frame-mismatch", "size-differs", "corrupt-mask",
    "track-without-frames", "duplicate-track".
    """
    numbers = {video.number: video for video in videos.values()}
    tracks: dict[str, list[Track]] = {video_id: [] for video_id in videos}
    faults: dict[str, BadInput] = {}
    strays: list[BadInput] = []
    seen: dict[str, int] = {}
    for position, row in enumerate(_load(Path(path))):
        try:
            _check(row, f"entry {position}", numbers, classes, Path(path))
            video = numbers[row["video_id"]]
            _refuse_again(row, position, seen, video.video_id, Path(path))
        except BadInput as error:
            if error.video is None:
                strays.append(error)
            else:
                faults.setdefault(error.video, error)
            continue
        masks = tuple(None if not mask else {"size": list(video.size), "counts": mask["counts"].encode()}
                      for mask in row["segmentations"])
        tracks[video.video_id].append(Track(class_index=classes.index_of[row["category_id"]], masks=masks,
                                            score=float(row["score"])))
    whole = {name: Tracks(video_id=name, frame_names=video.frame_names, size=video.size, tracks=tuple(tracks[name]))
             for name, video in videos.items() if name not in faults}
    return ServerTracks(tracks=whole, faults=faults, strays=strays)


def _entries(video: Tracks, listed: ListedVideo, classes: ClassTable) -> Iterator[dict[str, Any]]:
    for track in video.tracks:
        in_table = 0 <= track.class_index < len(classes)
        yield {"video_id": listed.number, "score": float(track.score),
               "category_id": classes.classes[track.class_index].dataset_id if in_table else -1,
               "segmentations": [mask_as_text(mask) for mask in track.masks]}


def _check(row: Any, where: str, numbers: Mapping[int, ListedVideo], classes: ClassTable, path: Path) -> None:
    """Raise BadInput for an entry that the server would refuse or misread."""
    video = None

    def bad(reason: str, problem: str, cure: str = WRITE_AGAIN) -> BadInput:
        return BadInput(reason, f"{where} {problem}", video=video.video_id if video else None, file=path, cure=cure)

    if not isinstance(row, dict) or not isinstance(row.get("segmentations"), list):
        raise bad("bad-json", f"is not an object with a list of segmentations, but {shown(row)}.")
    if missing := [key for key in ("video_id", "category_id") if type(row.get(key)) is not int]:
        raise bad("missing-id", f"lacks a whole number as {' and '.join(missing)}.")
    video = numbers.get(row["video_id"])
    if video is None:
        raise bad("unknown-video", f"is of video_id {shown(row['video_id'])}, which the json of the split does not "
                  "list.", "Use the ids of exactly this split.")
    score = row.get("score")
    masks = row["segmentations"]
    if row["category_id"] not in classes.index_of:
        raise bad("unknown-category", f"has the category_id {shown(row['category_id'])}; {classes.name!r} has "
                  f"{min(classes.index_of)} to {max(classes.index_of)}.")
    if not is_finite(score):
        raise bad("bad-score", f"has the score {shown(score)}, which is not a finite number.")
    if len(masks) != len(video.frame_names):
        raise bad("frame-mismatch", f"has {len(masks)} masks, the video {len(video.frame_names)} frames.")
    if not sum([_pixels(mask, frame, video, bad) for frame, mask in zip(video.frame_names, masks)]):
        raise bad("track-without-frames", "has no pixel in any frame.", "Leave such tracks out.")


def _pixels(mask: Any, frame: str, video: ListedVideo, bad: Callable[..., BadInput]) -> int:
    """Pixels of a mask, 0 where it is absent. Raises the error that `bad` builds for a mask that does not fit."""
    if not mask:
        return 0
    if not isinstance(mask, dict) or not all(isinstance(mask.get(k), kind) for k, kind in MASK.items()):
        raise bad("corrupt-mask", f"has in frame {frame!r} a mask that is not an object of size and compressed counts.")
    if mask["size"] != list(video.size):
        raise bad("size-differs", f"has in frame {frame!r} a mask of size {_told(mask['size'])} (height, width), the "
                  f"video is {list(video.size)}.", "Give masks at the size of the frames.")
    runs = runs_of(mask["counts"])
    if runs is None or runs.sum() != video.size[0] * video.size[1]:
        described = "cannot be read" if runs is None else f"describe {runs.sum()} pixels"
        raise bad("corrupt-mask", f"has in frame {frame!r} run lengths that {described}; a frame has "
                  f"{video.size[0] * video.size[1]}.")
    return int(runs[1::2].sum())


def _told(size: list[Any]) -> str:
    return f"[{', '.join(map(shown, size))}]" if len(size) == 2 else shown(size)


def _refuse_again(row: Mapping[str, Any], position: int, seen: dict[str, int], video: str, path: Path) -> None:
    """Raise BadInput for an entry that is in `seen` (digest -> position) already; otherwise add it there."""
    masks = [mask and mask["counts"] for mask in row["segmentations"]]
    first = seen.setdefault(digest([row["video_id"], row["category_id"], row["score"], masks]), position)
    if first != position:
        raise BadInput("duplicate-track", f"entries {first} and {position} are the same track.", video=video, file=path,
                       cure=WRITE_AGAIN)


def _refuse_video(video: Tracks, listed: ListedVideo | None, videos: Mapping[str, ListedVideo], path: Path) -> None:
    if listed is None:
        again = video.video_id in videos
        raise BadInput("duplicate-video" if again else "unknown-video", "its tracks were given before." if again else
                       "the json of the split does not list it.", video=video.video_id, file=path,
                       cure="Give the tracks of exactly the videos of the split, each once.")
    if (tuple(video.frame_names), tuple(video.size)) != (listed.frame_names, tuple(listed.size)):
        raise BadInput("frame-mismatch", f"the tracks are of {len(video.frame_names)} frames of {tuple(video.size)} "
                       f"(height, width), the json lists {len(listed.frame_names)} of {tuple(listed.size)}.",
                       video=video.video_id, file=path, cure="Predict every frame of the json, at its own size.")


def _unzipped(path: Path) -> bytes:
    """The results in a zip. Raises BadInput for a member that claims far more bytes than a zip of this size holds."""
    with open_regular(path) as file, zipfile.ZipFile(file) as archive:
        entry = archive.getinfo(RESULTS)
        largest = min(LARGEST_JSON, SMALL_RESULTS + LARGEST_RATIO * path.stat().st_size)
        if entry.file_size > largest:
            raise BadInput("too-large", f"{RESULTS} in it claims {entry.file_size:,} bytes; of a zip of "
                           f"{path.stat().st_size:,} bytes, at most {largest:,} are read.", file=path,
                           cure=f"Unpack it, look at it, and give {RESULTS} itself.")
        return archive.read(entry)


def _load(path: Path) -> list[Any]:
    try:
        with open_regular(path) as file:
            is_zip = zipfile.is_zipfile(file)
        rows = parse_json(_unzipped(path) if is_zip else read_file(path, largest=LARGEST_JSON))
    except FileNotFoundError:
        raise FileNotFoundError(f"no results at {path}; write_results makes them") from None
    except BadInput:
        raise
    except (*_ZIP_ERRORS, KeyError, ValueError) as error:
        raise BadInput("bad-json", f"not a results file ({error}).", file=path, cure=f"Give {RESULTS}, or a zip with "
                       "exactly that file at its top.") from None
    if not isinstance(rows, list):
        raise BadInput("bad-json", "the file is not a list of tracks.", file=path, cure=WRITE_AGAIN)
    return rows
