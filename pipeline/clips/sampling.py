"""The choice of frames for clips, in training and at test time."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

import numpy as np


def count_windows(num_frames: int, clip_frames: int, *, stride: int = 1) -> int:
    """The number of frames of a video at which a clip can start without repeating a frame; 0 for a short video."""
    return max(num_frames - (clip_frames - 1) * stride, 0)


def starts_with_labels(starts: Sequence[int], labelled: Collection[int], num_frames: int, clip_frames: int, *,
                       stride: int = 1) -> Sequence[int]:
    """Those of `starts` whose clip holds at least one of the frames `labelled`; all of them if every frame has a label.
    """
    if len(labelled) == num_frames:
        return starts
    labelled = set(labelled)
    return [start for start in starts if not labelled.isdisjoint(_spaced(start, num_frames, clip_frames, stride))]


def sample_clip(num_frames: int, clip_frames: int, rng: np.random.Generator, *, stride: int = 1,
                start: int | None = None, reverse: float = 0.0, labelled: Sequence[int] | None = None,
                official_compat: bool = False) -> tuple[int, ...]:
    """Draw `clip_frames` frames of a video that are `stride` apart; a video that is too short repeats its last frame.

    start: the first frame; None: it is drawn. reverse: probability that time runs backwards.
    labelled: frames, of which a clip whose start is drawn holds at least one; None or empty: any clip will do. Where no
    clip without repeats does, the clip starts at a labelled frame.
    official_compat: never draw the last possible clip, as in the released MaXTron code.
    """
    if start is None:
        starts = range(max(count_windows(num_frames, clip_frames, stride=stride) - official_compat, 1))
        if labelled:
            starts = starts_with_labels(starts, labelled, num_frames, clip_frames, stride=stride) or labelled
        start = starts[rng.integers(len(starts))]
    frames = _spaced(start, num_frames, clip_frames, stride)
    return frames[::-1] if rng.random() < reverse else frames


def sample_around(num_frames: int, clip_frames: int, rng: np.random.Generator, *, reach: int,
                  reverse: float = 0.0, labelled: Sequence[int] | None = None) -> tuple[int, ...]:
    """Draw one frame of a video, and others at most `reach` frames away from it; returned in the order of time.

    The others may occur twice. A video of one frame repeats it. reverse: as for `sample_clip`. labelled: the first one
    is drawn from these frames; None or empty: from all. Source: the data set mapper of the released VITA code.
    """
    middles = labelled or range(num_frames)
    middle = middles[rng.integers(len(middles))]
    near = [frame for frame in range(max(middle - reach, 0), min(middle + reach + 1, num_frames)) if frame != middle]
    others = rng.choice(near or [middle], clip_frames - 1).tolist()
    frames = tuple(sorted([middle, *others]))
    return frames[::-1] if rng.random() < reverse else frames


def neighbours(frames: Iterable[int]) -> list[tuple[int, int]]:
    """Runs (start, stop) of consecutive frames that contain all of `frames` and no others."""
    runs: list[tuple[int, int]] = []
    for frame in sorted(set(frames)):
        if runs and runs[-1][1] == frame:
            runs[-1] = runs[-1][0], frame + 1
        else:
            runs.append((frame, frame + 1))
    return runs


def split_clips(num_frames: int, clip_frames: int, *, overlap: int = 0) -> list[tuple[tuple[int, ...], int]]:
    """Cut a video into consecutive clips. Returns the frames of each clip, and how many of them are not repeats.

    A last clip that is too short repeats the last frame. overlap: number of frames that a clip shares with the one
    before; every clip has at least one new frame.
    """
    if not 0 <= overlap < clip_frames:
        raise ValueError(f"clips of {clip_frames} frames cannot overlap by {overlap}; choose 0 ... {clip_frames - 1}")
    return [(_spaced(start, num_frames, clip_frames), min(clip_frames, num_frames - start))
            for start in range(0, max(num_frames - overlap, min(num_frames, 1)), clip_frames - overlap)]


def split_tubes(num_frames: int, interval: int) -> list[tuple[tuple[int, ...], int]]:
    """Like `split_clips`, but with the lengths of `tube_lengths`, so no frame is repeated."""
    tubes = []
    start = 0
    for length in tube_lengths(num_frames, interval):
        tubes.append((tuple(range(start, start + length)), length))
        start += length
    return tubes


def tube_lengths(num_frames: int, interval: int) -> tuple[int, ...]:
    """Cut a video into clips without repeating frames, as Tube-Link does for instances (`video_split` in its code).

    There are as few clips as possible, of at most `interval` frames each. The frames missing to full clips are taken
    from the last clips, one from each; if there are as many missing frames as clips or more, all are taken from the
    last.
    """
    if num_frames < 1 or interval < 1:
        raise ValueError(f"a video of {num_frames} frames cannot be cut into clips of {interval}; both must be at "
                         "least 1")
    tubes = -(-num_frames // interval)
    surplus = tubes * interval - num_frames
    if surplus < tubes:
        return (interval,) * (tubes - surplus) + (interval - 1,) * surplus
    return (interval,) * (tubes - 1) + (interval - surplus,)


def _spaced(start: int, num_frames: int, clip_frames: int, stride: int = 1) -> tuple[int, ...]:
    return tuple(min(start + frame * stride, num_frames - 1) for frame in range(clip_frames))
