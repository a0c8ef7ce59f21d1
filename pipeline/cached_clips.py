"""One view of one video, as the rows of the query cache: aligned queries beside sampled pixels and exact tube areas."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from torch import Tensor

from model.contracts import VideoQueries
from model.labels import VOID, ClassTable
from pipeline.pixel_evidence import EvidenceConfig, draw_evidence, tube_areas
from pipeline.query_cache import CachedClip
from pipeline.records import Segment
from pipeline.sample_plan import EVIDENCE, random_stream
from pipeline.shards import StoredVideo


class VideoTubes:
    """Ground-truth tubes of a whole video in one numbering: one per thing, one per stuff class; crowd is void."""

    def __init__(self, segments: Sequence[Segment], classes: ClassTable) -> None:
        self.ids: list[int] = []
        self.classes: list[int] = []
        stuff: dict[int, int] = {}
        self._tube_of = np.full(max((s.id for s in segments), default=0) + 1, VOID, dtype=np.int32)
        for segment in segments:
            if segment.is_crowd:
                continue
            tube = len(self.ids)
            if not classes.is_thing[segment.class_index]:
                tube = stuff.setdefault(segment.class_index, tube)
            if tube == len(self.ids):
                self.ids.append(segment.id)
                self.classes.append(segment.class_index)
            self._tube_of[segment.id] = tube

    def of(self, ids: np.ndarray) -> np.ndarray:
        """Stored ids (0 void) -> int32 tubes, -1 void."""
        return self._tube_of[ids]


class EvidenceRecorder:
    """Draws the pixels of each clip as it passes, so that no clip's pixel features have to be kept."""

    def __init__(self, video: StoredVideo, classes: ClassTable, *, view: int, config: EvidenceConfig,
                 seed: int) -> None:
        self.video, self.view, self.config, self.seed = video, view, config, seed
        self.tubes = VideoTubes(video.segments, classes)
        self.rows: list[dict] = []

    def add(self, ids: np.ndarray, pixel_features: Tensor, *, start: int, valid: int) -> None:
        """ids: t h w stored ids at stride 4, pixel_features: d t h w. Frames from `valid` on are repeats."""
        tubes = self.tubes.of(ids[:valid])
        rng = random_stream(self.seed, EVIDENCE, epoch=self.view, index=self.video.index << 20 | len(self.rows))
        positions, drawn, weights = draw_evidence(tubes, rng=rng, config=self.config)
        t, y, x = positions.T.astype(np.int64)
        features = pixel_features[:, t, y, x].T.float().cpu().numpy()                           # p d
        missing = (ids.size if self.config.strategy == "dense" else min(self.config.pixels, ids.size)) - len(drawn)
        self.rows.append({
            "clip_index": len(self.rows), "start_frame": start, "num_frames": valid,
            "pixel_features": np.pad(features, ((0, missing), (0, 0))),
            "pixel_positions": np.pad(positions, ((0, missing), (0, 0))),
            "pixel_tubes": np.pad(drawn, (0, missing), constant_values=VOID),
            "pixel_weights": np.pad(weights, (0, missing)),                 # 0: stands for nothing
            "tube_areas": tube_areas(tubes, count=len(self.tubes.ids)).astype(np.int32)})

    def clips(self, queries: VideoQueries) -> Iterator[CachedClip]:
        """Rows of the cache, once all clips have passed. queries: of this view, b = 1."""
        shared = {"video_id": self.video.video_id, "view": self.view, "height": self.video.height,
                  "width": self.video.width, "tube_ids": np.array(self.tubes.ids, np.int64),
                  "tube_classes": np.array(self.tubes.classes, np.int32)}
        for clip, row in enumerate(self.rows):
            blobs = {name: getattr(queries, name)[0, clip].float().cpu().numpy()
                     for name in ("queries", "mask_embeddings", "class_logits")}
            yield CachedClip(**shared, **row, **blobs)
