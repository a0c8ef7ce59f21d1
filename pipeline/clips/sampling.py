"""Which frames make a clip, in training and at test time."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np


def sample_clip(num_frames: int, clip_frames: int, rng: np.random.Generator, *, reverse: float = 0.0,
                official_compat: bool = False) -> tuple[int, ...]:
    """Draw `clip_frames` neighbouring frames of a video; a video that is too short repeats its last frame.

    reverse: probability that time runs backwards.
    official_compat: never draw the last possible window, as the released MaXTron code does.
    """
    windows = max(num_frames - clip_frames + 1, 1)
    start = int(rng.integers(max(windows - official_compat, 1)))
    frames = _window(start, num_frames, clip_frames)
    return frames[::-1] if rng.random() < reverse else frames


def sample_around(num_frames: int, clip_frames: int, rng: np.random.Generator, *, reach: int,
                  reverse: float = 0.0) -> tuple[int, ...]:
    """Draw one frame of a video and others at most `reach` frames away from it, which may come twice; in order of time.

    A video of one frame repeats it. reverse: as for `sample_clip`. Source: the released VITA code's data set mapper.
    """
    middle = int(rng.integers(num_frames))
    near = [frame for frame in range(max(middle - reach, 0), min(middle + reach + 1, num_frames)) if frame != middle]
    others = rng.choice(near or [middle], clip_frames - 1).tolist()
    frames = tuple(sorted([middle, *others]))
    return frames[::-1] if rng.random() < reverse else frames


def neighbours(frames: Iterable[int]) -> list[tuple[int, int]]:
    """The runs (start, stop) of neighbouring frames that hold all of `frames` and no other."""
    runs: list[tuple[int, int]] = []
    for frame in sorted(set(frames)):
        if runs and runs[-1][1] == frame:
            runs[-1] = runs[-1][0], frame + 1
        else:
            runs.append((frame, frame + 1))
    return runs


def split_clips(num_frames: int, clip_frames: int, *, overlap: int = 0) -> list[tuple[tuple[int, ...], int]]:
    """Cut a video into neighbouring clips: frame indices, and how many of them are not repeats of the last frame.

    overlap: frames that each clip shares with the one before. Every clip brings at least one new frame.
    """
    if not 0 <= overlap < clip_frames:
        raise ValueError(f"clips of {clip_frames} frames cannot overlap by {overlap}; choose 0 ... {clip_frames - 1}")
    return [(_window(start, num_frames, clip_frames), min(clip_frames, num_frames - start))
            for start in range(0, max(num_frames - overlap, min(num_frames, 1)), clip_frames - overlap)]


def split_tubes(num_frames: int, interval: int) -> list[tuple[tuple[int, ...], int]]:
    """The same as `split_clips` gives, with lengths by `tube_lengths`: no frame is repeated."""
    found = []
    start = 0
    for length in tube_lengths(num_frames, interval):
        found.append((tuple(range(start, start + length)), length))
        start += length
    return found


def tube_lengths(num_frames: int, interval: int) -> tuple[int, ...]:
    """Cut a video into clips without repeating frames, as Tube-Link does for instances (`video_split` in its code).

    As few clips as possible of at most `interval` frames. What is left over is taken from the last clips, one frame
    each, or all from the last one when it is as many frames as there are clips or more.
    """
    if num_frames < 1 or interval < 1:
        raise ValueError(f"a video of {num_frames} frames cannot be cut into clips of {interval}; both must be at "
                         "least 1")
    tubes = -(-num_frames // interval)
    surplus = tubes * interval - num_frames
    if surplus < tubes:
        return (interval,) * (tubes - surplus) + (interval - 1,) * surplus
    return (interval,) * (tubes - 1) + (interval - surplus,)


def _window(start: int, num_frames: int, clip_frames: int) -> tuple[int, ...]:
    return tuple(min(start + frame, num_frames - 1) for frame in range(clip_frames))
