"""VPQ in one pass against the definition taken literally: every window stacked, every stack counted in pairs of ids.

    python -m benchmarks.metrics

One video at 1280x720 with about 12 segments a frame, moving, and a prediction that is the truth shifted by a few
pixels with two identities switched halfway. Both take the same maps from memory and must give the same scores.
"""

from __future__ import annotations

import numpy as np

from benchmarks.harness import compare
from model.contracts import PanopticVideo, VideoSegment
from model.labels import VOID, ClassInfo, ClassTable, panoptic_id
from pipeline.metrics.vpq import VPQ
from pipeline.metrics.vpq_scores import PROTOCOLS

FRAMES, HEIGHT, WIDTH, THINGS = 12, 720, 1280, 8
CLASSES = ClassTable("bench", tuple(ClassInfo(i, f"class {i}", i < 4, (20 * i, 90, 200)) for i in range(8)))
WINDOWS = PROTOCOLS[0]


def main() -> None:
    """Print and keep the ratio."""
    truth, prediction = some_video(shift=0), some_video(shift=6)
    assert abs(one_pass(prediction, truth) - window_by_window(prediction, truth)) < 1e-12
    compare(f"VPQ {WINDOWS} of {FRAMES} frames at 720p", ours=lambda: one_pass(prediction, truth),
            baseline=lambda: window_by_window(prediction, truth))


def some_video(*, shift: int) -> PanopticVideo:
    """Discs over four wavy bands, and a strip of void; shift: pixels to the right, above 0 also switches two discs."""
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    columns = columns - shift
    maps = []
    for frame in range(FRAMES):
        waves = 40 * np.sin(columns / 90 + frame / 5)
        bands = (4 * (rows + waves) // HEIGHT).clip(0, 3).astype(np.int32) + 4
        ids = panoptic_id(bands, 0)
        for disc in range(THINGS):
            y, x = 90 + 80 * disc, (150 * disc + 25 * frame) % WIDTH
            switched = disc ^ 4 if shift and frame >= FRAMES // 2 and disc in (0, 4) else disc
            ids[(rows - y) ** 2 + (columns - x) ** 2 < 70**2] = panoptic_id(switched % 4, 1 + switched // 4)
        if not shift:
            ids[:, :30] = VOID
        maps.append(ids.astype(np.int32))
    present = [i for i in np.unique(maps).tolist() if i != VOID]
    return PanopticVideo(video_id="bench", frame_names=tuple(map(str, range(FRAMES))), frames=maps,
                         segments={i: VideoSegment(class_index=i // 10_000, track=i % 10_000) for i in present})


def one_pass(prediction: PanopticVideo, truth: PanopticVideo) -> float:
    """Ours."""
    vpq = VPQ(CLASSES, windows=WINDOWS)
    vpq.update(prediction, truth)
    return vpq.result().mean(WINDOWS).all


def window_by_window(prediction: PanopticVideo, truth: PanopticVideo) -> float:
    """The definition, as the public script proceeds; no crowd in this video."""
    means = []
    for k in WINDOWS:
        iou, counts = np.zeros(len(CLASSES)), np.zeros((3, len(CLASSES)))
        for start in range(FRAMES - k + 1):
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
    """Adds one window to the sums of IoU and to the counts of tp, fp, fn."""
    true, predicted = {}, {}
    for (t, p), area in pairs.items():
        true[t], predicted[p] = true.get(t, 0) + area, predicted.get(p, 0) + area
    matched = set()
    for (t, p), area in pairs.items():
        union = true[t] + predicted[p] - area - pairs.get((VOID, p), 0)
        if t >= 0 and p >= 0 and t // 10_000 == p // 10_000 and 2 * area > union:
            matched |= {("true", t), ("predicted", p)}
            iou[t // 10_000] += area / union
            counts[0, t // 10_000] += 1
    for p, area in predicted.items():
        counts[1, p // 10_000] += p >= 0 and ("predicted", p) not in matched and 2 * pairs.get((VOID, p), 0) <= area
    for t in true:
        counts[2, t // 10_000] += t >= 0 and ("true", t) not in matched


if __name__ == "__main__":
    main()
