"""Small label videos for the tests of metrics, and their predictions."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from model.contracts import PanopticVideo, SemanticVideo, VideoSegment
from model.labels import VOID, ClassInfo, ClassTable

CLASSES = ClassTable("three", (ClassInfo(7, "cat", True, (200, 0, 0)), ClassInfo(9, "dog", True, (0, 200, 0)),
                               ClassInfo(3, "sky", False, (0, 0, 200))))


def video_of(maps, classes, *, name="v", crowd=()):
    """A PanopticVideo of the ids that occur in the maps; classes: id -> class."""
    present = [i for i in np.unique(maps).tolist() if i != VOID]
    segments = {i: VideoSegment(class_index=classes[i], track=i, is_crowd=i in crowd) for i in present}
    return PanopticVideo(video_id=name, frame_names=tuple(map(str, range(len(maps)))), frames=list(maps),
                         segments=segments)


@st.composite
def scored_videos(draw, most=3, least=1):
    """Small videos with true positives, since a prediction is the truth with new ids and some damage."""
    pairs = []
    for video in range(draw(st.integers(least, most))):
        rng = np.random.default_rng(draw(st.integers(0, 2**32)))
        frames = rng.integers(1, 7)
        ids = [VOID, 0, 1, 2, 3]
        blocks = rng.choice(ids, (frames, 3, 3), p=[0.2, 0.2, 0.2, 0.2, 0.2])
        blocks[1:] = np.where(rng.random(blocks[1:].shape) < 0.6, blocks[:-1], blocks[1:])
        truth = blocks.repeat(2, 1).repeat(3, 2).astype(np.int32)
        predicted = np.where(rng.random(truth.shape) < rng.choice([0.05, 0.3]), rng.choice(ids, truth.shape), truth)
        predicted = np.where(predicted == VOID, VOID, 10 + predicted).astype(np.int32)
        classes = dict(enumerate(rng.integers(0, 3, 4).tolist()))
        other = {10 + i: c if rng.random() < 0.8 else int(rng.integers(3)) for i, c in classes.items()}
        crowd = {int(rng.integers(4))} if rng.random() < 0.4 else set()
        pairs.append((video_of(predicted, other, name=str(video)),
                      video_of(truth, classes, name=str(video), crowd=crowd)))
    return pairs


def semantic(video):
    """The same video without its objects."""
    def classes(ids):
        return np.vectorize(lambda i: VOID if i == VOID else video.segments[i].class_index, otypes=[np.int32])(ids)

    return SemanticVideo(video_id=video.video_id, frame_names=video.frame_names,
                         frames=[classes(ids) for ids in video.frames])
