"""The finished videos of one run, as the formats join them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model.labels import ClassTable
from pipeline.predictions.server_results import ListedVideo


@dataclass(frozen=True, kw_only=True)
class AllVideos:
    """What a format is given to join all videos of a run.

    parts: video id -> the json that was written for it, sorted by id.
    listed: returns the videos that an evaluation server expects, or None where the data set has no such server. It
    raises FileNotFoundError where the data set is not on this machine, and is called only when it is needed.
    """

    folder: Path
    classes: ClassTable
    parts: Mapping[str, Mapping[str, Any]]
    listed: Callable[[], Mapping[str, ListedVideo] | None]
