"""What several systems made of one video, as a grid: a row for each, a column for each frame, identity switches marked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import cv2
import numpy as np

from jobs.reporting.evaluations import Evaluation
from jobs.reporting.gallery import outlined
from jobs.reporting.pictures import chosen_maps, fitted
from jobs.reporting.scenes import Scene, counted_switches
from model.labels import ClassTable
from pipeline.clips import StoredVideoSource
from pipeline.metrics.identity import Switch
from pipeline.shards import ShardSet
from pipeline.visualise.overlay import GAP, beside, overlay

SIDE = 240              # pixels of the longer side of a frame
MARK = (255, 0, 0)      # of the box around a thing whose identity switches
MARGIN = 4              # pixels between the thing and its box


def grid(scenes: Mapping[str, Scene], shards: ShardSet, *, columns: int) -> np.ndarray:
    """scenes: of one video, by title -> a picture of its truth and of every scene below it.

    columns: frames of the video, at most. In the frame of a switch, a red box marks the thing, whose true mask has a
    white outline.
    """
    first = next(iter(scenes.values()))
    switches = [switch for scene in scenes.values() for switch in scene.timeline.switches]
    chosen = chosen_frames(switches, len(first.stored.frames), most=columns)
    source = StoredVideoSource(shards, first.stored)
    frames = [fitted(source.frames(index, index + 1)[0], side=SIDE) for index in chosen]
    true_maps = chosen_maps(first.truth.frames, chosen)
    truth = [overlay(frame, fitted(ids, nearest=True, side=SIDE), first.truth.segments, shards.classes)
             for frame, ids in zip(frames, true_maps)]
    rows = [beside(truth, titles=[f"truth, frame {index}" for index in chosen])]
    rows += [_row(title, scene, chosen, frames, true_maps, shards.classes) for title, scene in scenes.items()]
    gap = np.full((GAP, rows[0].shape[1], 3), 255, np.uint8)
    return np.concatenate([part for row in rows for part in (gap, row)][1:])


def chosen_frames(switches: Sequence[Switch], count: int, *, most: int) -> list[int]:
    """The frames before and after the first switches, and others that are evenly spread over the video; `most` at most.

    count: frames of the video.
    """
    ordered = sorted(switches, key=lambda switch: switch.frame)
    around = list(dict.fromkeys(frame for switch in ordered for frame in (switch.before_frame, switch.frame)))[:most]
    even = np.linspace(0, count - 1, most - len(around)).round().astype(int).tolist()
    return sorted({*around, *even})


def differing_videos(first: Evaluation, second: Evaluation) -> list[str]:
    """The videos that both have scored, those first whose identity switches differ most in number."""
    switches = {video: [counted_switches(evaluation, video) for evaluation in (first, second)]
                for video in first.cards.keys() & second.cards.keys()}
    return sorted(switches, key=lambda video: (-abs(switches[video][0] - switches[video][1]), -sum(switches[video]),
                                               video))


def _row(title: str, scene: Scene, chosen: Sequence[int], frames: Sequence[np.ndarray],
         true_maps: Sequence[np.ndarray], classes: ClassTable) -> np.ndarray:
    """One system's frames, each under a title that counts its switches."""
    panes = []
    titles = []
    for index, frame, true_ids, ids in zip(chosen, frames, true_maps, chosen_maps(scene.predicted.frames, chosen)):
        switched = [switch.thing for switch in scene.timeline.switches if switch.frame == index]
        pane = overlay(frame, fitted(ids, nearest=True, side=SIDE), scene.predicted.segments, classes)
        for thing in switched:
            pane = marked(pane, fitted((true_ids == thing).astype(np.uint8), nearest=True, side=SIDE))
        panes.append(pane)
        titles.append(f"{title}, frame {index}" + (f", switches: {len(switched)}" if switched else ""))
    return beside(panes, titles=titles)


def marked(picture: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The picture with an outline of a mask, H W uint8, and a red box around it."""
    left, top, width, height = cv2.boundingRect(mask)
    result = outlined(picture, mask)
    cv2.rectangle(result, (left - MARGIN, top - MARGIN), (left + width + MARGIN, top + height + MARGIN), MARK, 2)
    return result
