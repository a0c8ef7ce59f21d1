"""Videos in, rows of tracks out: what the handed-over model does with each video of a request."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pipeline.datasets.excerpt import Excerpt
from pipeline.datasets.raw_video import open_video
from pipeline.errors import BadInput
from pipeline.predictions import Selection, track_rows
from pipeline.system import System

SERVER = "__pyfunc_model_path__"        # variable that MLflow sets in the processes of its server
FPS = 6.0                               # of folders of frames, as `predict.fps`

# Column of the answer -> MLflow's type of it. `masks`, `frames` and `times` are JSON.
COLUMNS = {"video": "string", "result": "string", "track": "long", "class": "string", "category_id": "long",
           "is_thing": "boolean", "score": "double", "masks": "string", "frames": "string", "times": "string",
           "error": "string"}
EMPTY = {"result": "", "track": -1, "class": "", "category_id": -1, "is_thing": False, "score": 0.0, "masks": "[]",
         "frames": "[]", "times": "[]", "error": ""}


def answers(system: System, videos: list[Mapping[str, Any]], *, every: int = 1, threshold: float = 0.0
            ) -> Iterator[dict[str, Any]]:
    """Yield the rows of `track_rows` for every video. Their masks, frames and times are JSON.

    videos: each has `video`, the path of a file or a folder, or `content`, the bytes of a file, and its `name`. every,
    threshold: as `predict.every` and `predict.threshold`. A video that cannot be read gives one row with its `error`.
    """
    for given in videos:
        path = str(_value(given, "video") or "")
        content = _value(given, "content")
        name = Path(str(_value(given, "name") or path or "video.mp4")).name
        try:
            if content is None:
                yield from _rows(system, _path_here(path), Path(name).stem, every, threshold)
                continue
            with tempfile.TemporaryDirectory() as folder:
                file = Path(folder) / f"content{Path(name).suffix}"
                file.write_bytes(content)
                yield from _rows(system, file, Path(name).stem, every, threshold)
        except (BadInput, FileNotFoundError) as error:
            yield {"video": Path(name).stem, **EMPTY, "error": str(error)}


def _value(given: Mapping[str, Any], column: str) -> Any:
    """The value of a column; None where it is absent or, as in a table of several rows, not a number."""
    value = given.get(column)
    return None if value is None or value != value else value


def _path_here(path: str) -> Path:
    """The path of a request. Raises BadInput without one, and on a server, which would open its own files to others."""
    if not path:
        raise BadInput("no-video", "a row has neither `video` nor `content`.",
                       cure="Give the path of a video, or the bytes of its file.")
    if os.environ.get(SERVER):
        raise BadInput("path-on-server", "a server opens no file of its own.", file=path,
                       cure="Send the bytes of the file in `content`, as base64, and its name in `name`.")
    return Path(path)


def _rows(system: System, path: Path, video_id: str, every: int, threshold: float) -> Iterator[dict[str, Any]]:
    source = Excerpt(open_video(path), video_id=video_id, every=every, fps=FPS)
    results = Selection(threshold=threshold).applied_to(system.predict(source))
    for row in track_rows(results, system.classes, times=source.times):
        yield row | {column: json.dumps(row[column]) for column in ("masks", "frames", "times")} | {"error": ""}
