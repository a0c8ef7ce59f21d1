"""Where on the frame each query of a segmenter finds its segments.

Video-kMaX (arXiv 2304.04694), supplement, figure 1.
"""

from __future__ import annotations

from functools import partial

import numpy as np

from model.inference.linked import merge_clip
from model.postprocess.panoptic import PanopticMerger
from pipeline.clips import VideoSource
from pipeline.progress import Watch
from pipeline.system import System

STUFF = 0
THINGS = 1


def query_locations(system: System, source: VideoSource, *, watch: Watch | None = None) -> np.ndarray:
    """Sums over the frames of a video, kinds queries 3: of the x and of the y of the centres of a query's segments, in
    fractions of width and height, and how many segments there were. kinds: STUFF, THINGS.

    Every clip is merged by itself, so the number of a query is that of the segmenter. Raises ValueError for a system
    that paints tubes, and BadInput for a video that cannot be read.
    """
    if system.inference.panoptic.kind == "tube" or "panoptic" not in system.inference.results:
        raise ValueError(f"inference.results={list(system.inference.results)} with inference.panoptic of kind "
                         f"{system.inference.panoptic.kind!r}: locations are those of panoptic segments that are "
                         "merged query by query; choose a recipe of Video-kMaX or MaXTron on it")
    new_merger = partial(PanopticMerger, system.inference.panoptic, is_thing=system.classes.is_thing,
                         geometry=system.resize.geometry(source.size))
    clips = system.clip_predictions(source)
    if watch is not None:
        clips = watch.over("segmenting", clips, len(source.frame_names), frames=lambda pair: pair[0].valid)
    sums = np.zeros((2, system.segmenter.config.query_decoder.num_queries, 3))
    for clip, prediction in clips:
        merged = merge_clip(prediction, clip.valid, new_merger())
        for frame in merged.frames:
            for owner, (x, y) in centres(np.asarray(frame)).items():
                if owner in merged.queries:
                    kind = THINGS if merged.segments[owner].track else STUFF
                    sums[kind, merged.queries[owner]] += (x, y, 1)
    return sums


def centres(frame: np.ndarray) -> dict[int, tuple[float, float]]:
    """frame: H W ids -> id: the mean place of its pixels, x and y in fractions of width and height."""
    height, width = frame.shape
    ids, places = np.unique(frame, return_inverse=True)
    places = places.reshape(-1)
    sizes = np.bincount(places)
    x = np.bincount(places, weights=np.tile(np.arange(width) + 0.5, height)) / sizes / width
    y = np.bincount(places, weights=np.repeat(np.arange(height) + 0.5, width)) / sizes / height
    return {int(owner): (float(x[index]), float(y[index])) for index, owner in enumerate(ids)}
