"""VPQ, STQ, mIoU and mVC of a whole validation set in one pass, and the same scores from their definitions.

The official size is that of VIPSeg's validation set: 343 videos, 8255 frames of 1280x720; it takes minutes. Every frame
has about 12 moving segments; the prediction is the truth, shifted by a few pixels, with two identities switched
halfway. First, two processes score the set, a video at a time, and their parts are merged. Maps are drawn when they are
read, and the time includes this, as it would include decoding. Then one video is scored from memory: ours in one pass,
the baseline window by window and mask by mask. Both must agree.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache
from multiprocessing import get_context
from typing import Any

import numpy as np

from benchmarks.harness import Results
from model.contracts import PanopticVideo, VideoSegment
from model.labels import DIVISOR, VOID, ClassInfo, ClassTable, class_of, panoptic_id
from pipeline.metrics.frame_pass import score_video
from pipeline.metrics.miou import MeanIoU
from pipeline.metrics.stq import STQ
from pipeline.metrics.video_consistency import WINDOWS as STILL
from pipeline.metrics.video_consistency import VideoConsistency
from pipeline.metrics.vpq import PROTOCOLS, VPQ

VIDEOS = 343
FRAMES = 8255
HEIGHT = 720
WIDTH = 1280
THINGS = 8
RADIUS = 70
PROCESSES = 2
SHIFT = 6               # pixels
CLASSES = ClassTable("bench", tuple(ClassInfo(i, f"class {i}", i < 4, (20 * i, 90, 200)) for i in range(8)))
WINDOWS = PROTOCOLS[0]

MEASURES = tuple(f"pipeline/metrics/{name}.py" for name in (
    "frame_pass", "labelled_frames", "miou", "stq", "video_consistency", "vpq"))


@dataclass(frozen=True, kw_only=True)
class Size:
    """The videos of the set, 0 without it, and the frames of the video that both sides score."""

    videos: int
    compared: int = 18
    every: int = 1      # of the rows and columns of that video are scored


SIZES = {"toy": Size(videos=0, every=6), "full": Size(videos=40), "official": Size(videos=VIDEOS)}


def run(size: Size, results: Results) -> None:
    """Time the set, then compare."""
    if size.videos:
        whole_set(size.videos, results)
    truth, prediction = (in_memory(some_video("compared", size.compared, shift=shift), every=size.every)
                         for shift in (0, SHIFT))
    results.compare(f"VPQ {WINDOWS}, STQ, mIoU, mVC {STILL} of {size.compared} frames at 720p", repeats=3, agree=agree,
                    ours=lambda: one_pass(prediction, truth), baseline=lambda: by_definition(prediction, truth))
    results.compare(f"VPQ {WINDOWS} alone of {size.compared} frames at 720p", repeats=3, agree=agree,
                    ours=lambda: vpq_in_one_pass(prediction, truth),
                    baseline=lambda: vpq_by_definition(prediction, truth))


def agree(ours: Any, baseline: Any) -> None:
    """Both scores are the same to 1e-9."""
    np.testing.assert_allclose(ours, baseline, rtol=0, atol=1e-9)


def whole_set(videos: int, results: Results) -> None:
    """Score the set in two processes; keep the time, with the memory of the largest process."""
    frames = [FRAMES // VIDEOS + (index < FRAMES % VIDEOS) for index in range(videos)]
    started = time.perf_counter()
    metrics = all_metrics()
    with ProcessPoolExecutor(PROCESSES, mp_context=get_context("spawn")) as pool:
        for parts in pool.map(score_one, range(videos), frames):
            for metric, part in zip(metrics, parts, strict=True):
                metric.merge(type(metric).from_json(part))
    seconds = time.perf_counter() - started
    kilobytes = [resource.getrusage(kind).ru_maxrss for kind in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    megabytes = max(kilobytes) / 1e3
    print("\n".join(metric.result().table() for metric in metrics))
    print(f"at most {megabytes:.0f} MB in each of {PROCESSES} processes")
    results.add(f"one pass over {videos} videos, {sum(frames)} frames at 720p, {PROCESSES} processes", seconds, "s",
                megabytes_of_largest_process=megabytes)


def score_one(index: int, frames: int) -> list[dict]:
    """The counts of all metrics for one video, as JSON values."""
    metrics = all_metrics()
    score(metrics, *(some_video(f"video {index}", frames, shift=shift, phase=37 * index) for shift in (SHIFT, 0)))
    return [metric.to_json() for metric in metrics]


def all_metrics() -> list:
    """One metric of each kind."""
    return [VPQ(CLASSES, windows=WINDOWS), STQ(CLASSES), MeanIoU(CLASSES), VideoConsistency(CLASSES)]


def score(metrics: list, prediction: PanopticVideo, truth: PanopticVideo) -> list:
    """Score one video with all metrics, and return the metrics."""
    score_video(metrics, prediction, truth)
    return metrics


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """Maps of a video, drawn again in each iteration: discs over four wavy bands, and a strip of void."""

    frames: int
    shift: int    # pixels to the right; above 0, two discs also switch identities halfway, and no pixel is void
    phase: int    # pixels; tells videos apart

    def __iter__(self) -> Iterator[np.ndarray]:
        bands, disc = shapes()
        for frame in range(self.frames):
            left = (self.phase + 20 * frame - self.shift) % WIDTH
            ids = bands[:, left:left + WIDTH].copy()
            for thing in range(THINGS):
                switched = thing ^ 4 if self.shift and frame >= self.frames // 2 and thing in (0, 4) else thing
                y = 10 + 80 * thing
                x = (150 * thing + 25 * frame + self.phase) % (WIDTH - 2 * RADIUS) + self.shift
                box = ids[y:y + 2 * RADIUS, x:x + 2 * RADIUS]
                box[disc[:box.shape[0], :box.shape[1]]] = panoptic_id(switched % 4, 1 + switched // 4)
            if not self.shift:
                ids[:, :30] = VOID
            yield ids


@cache
def shapes() -> tuple[np.ndarray, np.ndarray]:
    """Panoptic ids of four wavy bands, H 2W, which repeat after one width, and the mask of a disc."""
    rows, columns = np.mgrid[:HEIGHT, :2 * WIDTH]
    waves = 40 * np.sin(columns * (2 * np.pi / WIDTH))
    bands = panoptic_id((4 * (rows + waves) // HEIGHT).clip(0, 3).astype(np.int32) + 4, 0)
    return bands, np.hypot(*np.mgrid[-RADIUS:RADIUS, -RADIUS:RADIUS]) < RADIUS


def some_video(name: str, frames: int, *, shift: int, phase: int = 0) -> PanopticVideo:
    """A video of `Drawn` maps."""
    segments = [(class_index, track) for class_index in range(4) for track in (1, 2)] + [(c, 0) for c in range(4, 8)]
    return PanopticVideo(video_id=name, frame_names=tuple(map(str, range(frames))),
                         frames=Drawn(frames=frames, shift=shift, phase=phase),
                         segments={panoptic_id(c, track): VideoSegment(class_index=c, track=track)
                                   for c, track in segments})


def in_memory(video: PanopticVideo, *, every: int) -> PanopticVideo:
    """The same video with its maps drawn, of which only every so many rows and columns are kept."""
    return PanopticVideo(video_id=video.video_id, frame_names=video.frame_names, segments=video.segments,
                         frames=[np.ascontiguousarray(ids[::every, ::every]) for ids in video.frames])


def one_pass(prediction: PanopticVideo, truth: PanopticVideo) -> list[float]:
    """Ours: VPQ, SQ, AQ, mIoU and mVC."""
    vpq, stq, miou, mvc = (metric.result() for metric in score(all_metrics(), prediction, truth))
    return [vpq.mean(WINDOWS).all, stq.all.sq, stq.all.aq, miou.miou, *mvc.mvc.values()]


def vpq_in_one_pass(prediction: PanopticVideo, truth: PanopticVideo) -> float:
    """Ours: VPQ alone."""
    (vpq,) = score([VPQ(CLASSES, windows=WINDOWS)], prediction, truth)
    return vpq.result().mean(WINDOWS).all


def by_definition(prediction: PanopticVideo, truth: PanopticVideo) -> list[float]:
    """The same scores from the definitions, computed as in the public scripts."""
    true = np.stack(truth.frames)
    predicted = np.stack(prediction.frames)
    ious, occurs = ious_by_definition(class_of(true), class_of(predicted))
    return [vpq_by_definition(prediction, truth), ious.mean(), association_by_definition(true, predicted),
            ious[occurs].mean(), *consistency_by_definition(class_of(true), class_of(predicted))]


def vpq_by_definition(prediction: PanopticVideo, truth: PanopticVideo) -> float:
    """VPQ from the pairs of ids in every stacked window; this video has no crowd."""
    means = []
    for k in WINDOWS:
        iou = np.zeros(len(CLASSES))
        counts = np.zeros((3, len(CLASSES)))
        for start in range(len(truth.frames) - k + 1):
            pairs = areas_of_pairs(truth.frames[start:start + k], prediction.frames[start:start + k])
            count_window(pairs, iou, counts)
        occurs = counts.sum(0) > 0
        means.append((iou / np.maximum(counts[0] + counts[1] / 2 + counts[2] / 2, 1))[occurs].mean())
    return float(np.mean(means))


def areas_of_pairs(trues: list[np.ndarray], predicteds: list[np.ndarray]) -> dict[tuple[int, int], int]:
    """Pixels of every pair of true and predicted id in a window."""
    joint = (np.stack(trues).astype(np.int64) + 1) * 2**24 + np.stack(predicteds) + 1
    keys, areas = np.unique(joint, return_counts=True)
    return {(int(key >> 24) - 1, int(key & 0xFFFFFF) - 1): int(area) for key, area in zip(keys, areas)}


def count_window(pairs: dict[tuple[int, int], int], iou: np.ndarray, counts: np.ndarray) -> None:
    """Add one window to the sums of IoU and to the counts of tp, fp, fn."""
    true = {}
    predicted = {}
    for (t, p), area in pairs.items():
        true[t] = true.get(t, 0) + area
        predicted[p] = predicted.get(p, 0) + area
    matched = set()
    for (t, p), area in pairs.items():
        union = true[t] + predicted[p] - area - pairs.get((VOID, p), 0)
        if t >= 0 and p >= 0 and t // DIVISOR == p // DIVISOR and 2 * area > union:
            matched |= {("true", t), ("predicted", p)}
            iou[t // DIVISOR] += area / union
            counts[0, t // DIVISOR] += 1
    for p, area in predicted.items():
        counts[1, p // DIVISOR] += p >= 0 and ("predicted", p) not in matched and 2 * pairs.get((VOID, p), 0) <= area
    for t in true:
        counts[2, t // DIVISOR] += t >= 0 and ("true", t) not in matched


def ious_by_definition(true: np.ndarray, predicted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """IoU of every class from two masks, and whether the truth has the class. true, predicted: T H W classes."""
    masks = [(true == c, (predicted == c) & (true != VOID)) for c in range(len(CLASSES))]
    return (np.array([(t & p).sum() / max((t | p).sum(), 1) for t, p in masks]), np.array([t.any() for t, _ in masks]))


def association_by_definition(true: np.ndarray, predicted: np.ndarray) -> float:
    """AQ from masks of every pair of tracks. true, predicted: T H W panoptic ids."""
    tracks = [[i for i in np.unique(ids).tolist() if i != VOID and CLASSES.is_thing[class_of(i)]]
              for ids in (true, predicted)]
    quality = []
    for t in tracks[0]:
        mask = true == t
        pairs = [((mask & (predicted == p)).sum(), (mask | (predicted == p)).sum()) for p in tracks[1]]
        quality.append(sum(common / union * common for common, union in pairs) / mask.sum())
    return float(np.mean(quality))


def consistency_by_definition(true: np.ndarray, predicted: np.ndarray) -> list[float]:
    """mVC of every window length, each window compared frame by frame. true, predicted: T H W classes."""
    means = []
    for k in STILL:
        values = []
        for start in range(len(true) - k + 1):
            still = (true[start:start + k] == true[start]).all(0) & (true[start] != VOID)
            same = (predicted[start:start + k] == predicted[start]).all(0)
            values.append((still & same).sum() / still.sum())
        means.append(float(np.mean(values)))
    return means
