"""Merging whole videos: the streaming merger against the plain formula, which holds every mask of every frame.

The plain formula follows the public code: it resizes all mask logits, takes the softmax over queries, applies the
threshold, and then passes over the volume once per query. At 720p and 24 frames, one copy of the masks is 11 GB. Both
are therefore compared at half the height and width and a quarter of the frames, and the streaming merger is measured at
full size alone. Results are compared pixel by pixel. Peak memory is measured in a new process, above the level before
the first clip.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.harness import Results
from model.contracts import Geometry
from model.labels import VOID, panoptic_id
from model.layers.resize import is_odd
from model.postprocess.panoptic import PanopticConfig, PanopticMerger

QUERIES = 128
IS_THING = np.arange(124) < 58
CONFIG = PanopticConfig()


@dataclass(frozen=True, kw_only=True)
class Video:
    """A random video with smooth borders of masks, at which queries share pixels."""

    geometry: Geometry
    frames: int
    clip: int = 2

    @property
    def name(self) -> str:
        """Frames and size, for people."""
        height, width = self.geometry.source
        return f"{self.frames} frames of {height}x{width}"

    def clips(self) -> Iterator[Tensor]:
        """Mask logits n t h w, clip by clip."""
        generator = torch.Generator().manual_seed(0)
        h, w = (-(-side // 4) for side in self.geometry.padded)
        cells = 8 * torch.randn(QUERIES, 1, h // 16 + 1, w // 16 + 1, generator=generator)
        for _ in range(self.frames // self.clip):
            moved = cells + 2.4 * torch.randn(cells.shape, generator=generator)
            yield F.interpolate(moved.expand(-1, self.clip, -1, -1), size=(h, w), mode="bilinear")


SMALL = Video(geometry=Geometry.fit((360, 640), padded=(385, 673)), frames=6)
TOY = Video(geometry=Geometry.fit((90, 160), padded=(97, 161)), frames=4)
FULL = Video(geometry=Geometry.fit((720, 1280), padded=(769, 1345)), frames=24)

MEASURES = ("model/postprocess/panoptic.py", "model/postprocess/resize.py")


@dataclass(frozen=True, kw_only=True)
class Size:
    """The video of the comparison, and the one that only the merger reads."""

    compared: Video
    alone: Video


SIZES = {"toy": Size(compared=TOY, alone=replace(TOY, frames=8)), "full": Size(compared=SMALL, alone=FULL)}


def run(size: Size, results: Results) -> None:
    """Compare the times, and keep the peaks of both and of the merger at full size."""
    named = size.compared.name
    results.compare(f"panoptic merging, {named}, {QUERIES} queries", ours=partial(streaming, size.compared),
                    baseline=partial(plain, size.compared), agree=np.testing.assert_array_equal)
    for name, work in ((f"streaming, {named}", partial(streaming, size.compared)),
                       (f"plain, {named}", partial(plain, size.compared)),
                       (f"streaming, {size.alone.name}", partial(streaming, size.alone))):
        results.add(f"peak memory, {name}", peak_megabytes(work), "MB")


def class_logits() -> Tensor:
    """n classes+1; some queries are confident and some are not."""
    return 4 * torch.randn(QUERIES, len(IS_THING) + 1, generator=torch.Generator().manual_seed(1))


def streaming(video: Video) -> np.ndarray:
    """T H W panoptic ids by the merger."""
    merger = PanopticMerger(CONFIG, is_thing=IS_THING, geometry=video.geometry)
    for masks in video.clips():
        merger.add(masks)
    return np.stack(list(merger.finish(class_logits()).frames))


def plain(video: Video) -> np.ndarray:
    """T H W panoptic ids by the plain formula, on all frames at once."""
    (height, width) = video.geometry.source
    padded = video.geometry.padded
    masks = torch.cat(list(video.clips()), dim=1)
    masks = F.interpolate(masks, size=padded, mode="bilinear", align_corners=is_odd(padded[1]))[..., :height, :width]
    scores, classes = class_logits().softmax(-1)[:, :-1].max(-1)
    shares = masks.softmax(0)
    claimed = shares > CONFIG.pixel
    areas = claimed.flatten(1).sum(1)
    means = (shares * claimed).flatten(1).sum(1) / areas.clamp(min=1)
    ids = torch.full(masks.shape[1:], VOID, dtype=torch.int32)
    tracks = np.zeros(len(IS_THING), dtype=int)
    for query in (scores * means).argsort(descending=True):
        label = int(classes[query])
        free = claimed[query] & (ids == VOID)
        enough = scores[query] > (CONFIG.thing if IS_THING[label] else CONFIG.stuff)
        if enough and free.sum() > CONFIG.overlap * areas[query]:
            tracks[label] += IS_THING[label]
            ids[free] = panoptic_id(label, int(tracks[label]))
    return ids.numpy()


def peak_megabytes(work: Callable[[], object]) -> int:
    """The peak memory that `work` adds in a new process."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_added_peak, (work,))


def _added_peak(work: Callable[[], object]) -> int:
    torch.set_num_threads(1)
    before = _peak_kilobytes()
    work()
    return (_peak_kilobytes() - before) // 1024


def _peak_kilobytes() -> int:
    """Read from the kernel's table, since `getrusage` of a child starts at the peak of its parent."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM:")).split()[1])
