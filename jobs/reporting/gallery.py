"""Identity switches, each as the frame before and the frame after it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from jobs.reporting.pictures import as_uri, chosen_maps, fitted, name_of
from jobs.reporting.scenes import Scene
from model.labels import VOID, ClassTable
from pipeline.clips import StoredVideoSource
from pipeline.metrics.identity import Switch
from pipeline.shards import ShardSet
from pipeline.visualise.overlay import overlay

MOST = 12           # switches of a page
MARGIN = 1.0        # around the true object, as part of its longer side
SMALLEST = 0.3      # of the frame, that a picture shows at least
SIDE = 220          # pixels of the longer side of a picture
OUTLINE = (255, 255, 255)


@dataclass(frozen=True, kw_only=True)
class SwitchPictures:
    """One identity switch: two pictures, in which both predicted masks are coloured and the truth is outlined."""

    title: str
    before: str             # data URIs
    after: str
    before_words: str
    after_words: str


def gallery(scenes: Sequence[Scene], shards: ShardSet) -> list[SwitchPictures]:
    """Pictures of the switches of some scenes, in their order, up to `MOST`."""
    pictures: list[SwitchPictures] = []
    for scene in scenes:
        switches = scene.timeline.switches[:MOST - len(pictures)] if scene.timeline is not None else ()
        frames = sorted({frame for switch in switches for frame in (switch.before_frame, switch.frame)})
        true_maps = dict(zip(frames, chosen_maps(scene.truth.frames, frames)))
        maps = dict(zip(frames, chosen_maps(scene.predicted.frames, frames)))
        pictures += [_pictures(scene, switch, shards, true_maps, maps) for switch in switches]
    return pictures


def _pictures(scene: Scene, switch: Switch, shards: ShardSet, true_maps: dict[int, np.ndarray],
              maps: dict[int, np.ndarray]) -> SwitchPictures:
    source = StoredVideoSource(shards, scene.stored)
    thing = name_in(scene.truth, switch.thing, shards.classes)
    names = [name_in(scene.predicted, predicted, shards.classes) for predicted in (switch.before, switch.after)]
    box = box_around([true_maps[frame] == switch.thing for frame in (switch.before_frame, switch.frame)])
    drawn = []
    for frame in (switch.before_frame, switch.frame):
        both = np.where(np.isin(maps[frame], (switch.before, switch.after)), maps[frame], VOID)
        picture = fitted(source.frames(frame, frame + 1)[0][box], side=SIDE)
        picture = overlay(picture, fitted(both[box], nearest=True, side=SIDE), scene.predicted.segments, shards.classes)
        drawn.append(as_uri(outlined(picture, fitted((true_maps[frame] == switch.thing)[box].astype(np.uint8),
                                                     nearest=True, side=SIDE))))
    title = f"{scene.evaluation.title}, video {scene.stored.video_id}: {thing} was {names[0]}, becomes {names[1]}"
    words = [f"Frame {frame}: the true {thing}, outlined in white, is covered by the predicted {name}."
             for frame, name in zip((switch.before_frame, switch.frame), names)]
    return SwitchPictures(title=title, before=drawn[0], after=drawn[1], before_words=words[0], after_words=words[1])


def name_in(video, panoptic: int, classes: ClassTable) -> str:
    """The name of a segment of a panoptic video, as on an overlay."""
    segment = video.segments[panoptic]
    return name_of(segment.class_index, segment.track, classes)


def box_around(masks: Sequence[np.ndarray]) -> tuple[slice, slice]:
    """Rows and columns of a square around masks of one size, as far as the frame goes; never a tiny part of it."""
    mask = np.logical_or.reduce(masks)
    spans = [np.flatnonzero(mask.any(1 - axis))[[0, -1]] for axis in (0, 1)]
    side = max(*((1 + MARGIN) * (last + 1 - first) for first, last in spans), SMALLEST * max(mask.shape))
    slices = []
    for (first, last), length in zip(spans, mask.shape):
        shown = min(length, int(np.ceil(side)))
        start = int(np.clip((first + last + 1 - shown) // 2, 0, length - shown))
        slices.append(slice(start, start + shown))
    return slices[0], slices[1]


def outlined(picture: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The picture with a white line on black around a mask, H W uint8."""
    result = picture.copy()
    lines, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(result, lines, -1, (0, 0, 0), 3)
    cv2.drawContours(result, lines, -1, OUTLINE, 1)
    return result
