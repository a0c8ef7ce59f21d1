"""Which frames make a clip, in training and at test time."""

from __future__ import annotations

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


def split_clips(num_frames: int, clip_frames: int) -> list[tuple[tuple[int, ...], int]]:
    """Cut a video into neighbouring clips: frame indices, and how many of them are not repeats of the last frame."""
    return [(_window(start, num_frames, clip_frames), min(clip_frames, num_frames - start))
            for start in range(0, num_frames, clip_frames)]


def _window(start: int, num_frames: int, clip_frames: int) -> tuple[int, ...]:
    return tuple(min(start + frame, num_frames - 1) for frame in range(clip_frames))
