"""Small instance videos for the tests of track AP: blocks of pixels, large enough for every range of areas."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st
from pycocotools import mask as run_lengths

from model.contracts import Track, Tracks

# a frame of 8 x 8 blocks has a large area, one of 7 blocks a small one
BLOCK = 48
GRID = 8


def track_of(blocks, **fields):
    """A track from masks of blocks, T GRID GRID bool; it is absent from frames without a set block."""
    masks = [run_lengths.encode(np.asfortranarray(np.kron(frame, np.ones((BLOCK, BLOCK))).astype(np.uint8)))
             if frame.any() else None for frame in np.asarray(blocks, bool)]
    return Track(masks=tuple(masks), **fields)


def video_of(tracks, *, frames, name="v"):
    """A video of such tracks."""
    return Tracks(video_id=name, frame_names=tuple(map(str, range(frames))), size=(GRID * BLOCK, GRID * BLOCK),
                  tracks=tuple(tracks))


def boxes(rng, frames):
    """A rectangle that moves a little and is sometimes absent: T GRID GRID bool."""
    masks = np.zeros((frames, GRID, GRID), bool)
    height, width = rng.integers(1, GRID + 1, 2)
    y = rng.integers(0, GRID - height + 1)
    x = rng.integers(0, GRID - width + 1)
    present = rng.random(frames) < 0.8
    present[rng.integers(frames)] = True
    masks[present, y:y + height, x:x + width] = True
    return masks


@st.composite
def scored_tracks(draw, least=1, most=3):
    """(prediction, truth) of some videos: true tracks damaged, relabelled, doubled or invented; scores may be equal."""
    pairs = []
    for video in range(draw(st.integers(least, most))):
        rng = np.random.default_rng(draw(st.integers(0, 2**32)))
        frames = int(rng.integers(1, 4))
        true = []
        predicted = []
        for _ in range(rng.integers(0, 5)):
            blocks = boxes(rng, frames)
            index = int(rng.integers(2))
            true.append(track_of(blocks, class_index=index, is_crowd=rng.random() < 0.2))
            for _ in range(rng.integers(0, 4)):
                damaged = np.where(rng.random(blocks.shape) < rng.choice([0.0, 0.05, 0.3]), ~blocks, blocks)
                other = int(rng.integers(3)) if rng.random() < 0.2 else index
                predicted.append(track_of(damaged, class_index=other, score=int(rng.integers(12)) / 12))
        pairs.append((video_of(predicted, frames=frames, name=str(video)),
                      video_of(true, frames=frames, name=str(video))))
    return pairs
