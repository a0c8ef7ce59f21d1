"""The ways to make a result, each as one call on the clips of a whole video."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from model.association.linker import Linker
from model.contracts import VideoQueries
from model.cross_clip import CrossClipHead
from model.inference import (
    Aligned,
    Clips,
    LinkedPanoptic,
    Merger,
    NearOnline,
    Offline,
    QueryCollector,
    ResultMaker,
    make_results,
)


def made(clips: Clips, *makers: ResultMaker, classes: int) -> dict[str, Any]:
    """All results of a video."""
    return make_results(clips, makers, num_classes=classes)


def near_online(clips: Clips, *, merger: Merger, official_compat: bool = False) -> Any:
    """The result of one merger, near-online."""
    maker = NearOnline({"panoptic": lambda: merger}, repeats_count=official_compat)
    return made(clips, Aligned([maker]), classes=len(merger.is_thing))["panoptic"]


def offline(clips: Clips, head: CrossClipHead, *, merger: Merger, spool: Any = None) -> Any:
    """The result of one merger, through a cross-clip head."""
    maker = Offline(head, {"panoptic": lambda: merger}, spool=spool)
    return made(clips, Aligned([maker]), classes=len(merger.is_thing))["panoptic"]


def collected(clips: Clips, *, classes: int) -> VideoQueries:
    """What a cross-clip head reads, and the query cache keeps."""
    return made(clips, Aligned([QueryCollector()]), classes=classes)["queries"]


def linked(clips: Clips, linker: Linker, *, new_merger: Any, overlap: int = 0,
           is_thing: Sequence[bool]) -> Any:
    """The panoptic video of segments that are linked."""
    maker = LinkedPanoptic(linker, new_merger=new_merger, overlap=overlap)
    return made(clips, maker, classes=len(is_thing))["panoptic"]
