"""One view of one video as rows of the query cache: aligned queries, sampled pixels and exact areas of tubes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from model.contracts import Geometry, VideoQueries
from model.labels import VOID, ClassTable
from model.postprocess.resize import MaskResizer
from pipeline.errors import BadInput
from pipeline.query_cache.columns import SEEN, CachedClip
from pipeline.query_cache.pixel_evidence import EvidenceConfig, draw_evidence, tube_areas
from pipeline.records import Segment
from pipeline.shards import StoredVideo, StoredVideos
from pipeline.training_input import EVIDENCE, Overlaps, number_tubes, random_stream


def crowded_videos(videos: StoredVideos, classes: ClassTable, config: EvidenceConfig) -> list[int]:
    """The number of tubes of every video that has more of them than a clip has stored pixels.

    A clip that shows them all cannot be cached, since no sample would show each of them.
    """
    if config.strategy in ("uniform", "dense"):
        return []
    counts = [_count_tubes(videos[index].segments, classes)
              for index in np.flatnonzero(videos.objects > config.pixels).tolist()]     # no others have as many tubes
    return [count for count in counts if count > config.pixels]


def _count_tubes(segments: Sequence[Segment], classes: ClassTable) -> int:
    """Things count one by one, stuff by class, crowd not at all."""
    shown = [segment for segment in segments if not segment.is_crowd]
    things = [segment for segment in shown if classes.is_thing[segment.class_index]]
    return len(things) + len({segment.class_index for segment in shown} - {segment.class_index for segment in things})


class EvidenceRecorder:
    """Draws the pixels of each clip when it is added, so that pixel features of clips need not be kept."""

    def __init__(self, video: StoredVideo, classes: ClassTable, *, view: int, config: EvidenceConfig,
                 seed: int, segments: Sequence[Segment] | None = None, overlaps: Overlaps | None = None) -> None:
        """segments, overlaps: those in the id maps of the view, where copy-paste added some to those of the video."""
        self.video = video
        self.view = view
        self.config = config
        self.seed = seed
        segments = video.segments if segments is None else segments
        overlaps = video.overlaps if overlaps is None else overlaps
        ids = (*(segment.id for segment in segments), *overlaps)
        self.numbers = number_tubes(ids, segments, classes, overlaps=overlaps)
        self.unlabelled = [index for index, frame in enumerate(video.frames) if frame.label is None]
        self.rows: list[dict] = []

    def add(self, ids: np.ndarray, pixel_features: Tensor, *, start: int, valid: int,
            geometry: Geometry | None = None) -> None:
        """ids: t h w stored ids at stride 4, pixel_features: d t h w. Frames from `valid` on are repeats.

        geometry: where ids are those of all real pixels; features between the pixels of stride 4 are interpolated.
        Raises BadInput "too-many-tubes", which names video and frame, when there are more tubes than pixels to draw.
        """
        tubes = self.numbers.tube_of_id[ids[:valid]]
        rng = random_stream(self.seed, EVIDENCE, epoch=self.view, index=self.video.index << 20 | len(self.rows))
        try:
            positions, drawn, weights = draw_evidence(tubes, rng=rng, config=self.config)
        except BadInput as error:
            raise BadInput(error.reason, f"the clip that starts at frame {start}: {error.what}", cure=error.cure,
                           video=self.video.video_id) from None
        t, y, x = positions.T.astype(np.int64)
        weights[np.isin(start + t, self.unlabelled)] = 0        # nobody knows what is there
        features = _at(pixel_features, t, y, x, geometry).T.float().cpu().numpy()               # p d
        missing = (ids.size if self.config.strategy == "dense" else min(self.config.pixels, ids.size)) - len(drawn)
        self.rows.append({
            "clip_index": len(self.rows), "start_frame": start, "num_frames": valid,
            "pixel_features": np.pad(features, ((0, missing), (0, 0))),
            "pixel_positions": np.pad(positions, ((0, missing), (0, 0))),
            "pixel_tubes": np.pad(drawn, (0, missing), constant_values=VOID),
            "pixel_weights": np.pad(weights, (0, missing)),                 # 0: stands for no pixels
            "tube_areas": tube_areas(tubes, count=len(self.numbers.classes),
                                     overlaps=self.numbers.overlaps).astype(np.int32)})

    def clips(self, queries: VideoQueries) -> Iterator[CachedClip]:
        """The rows of the cache, after all clips have been added. queries: those of this view, b = 1."""
        shared = {"video_id": self.video.video_id, "view": self.view, "height": self.video.height,
                  "width": self.video.width, "tube_ids": np.array(self.numbers.track_ids, np.int64),
                  "tube_classes": np.array(self.numbers.classes, np.int32), "tube_overlaps": self.numbers.overlaps}
        for clip, row in enumerate(self.rows):
            blobs = {name: None if part is None else part[0, clip].float().cpu().numpy()
                     for name in ("queries", "mask_embeddings", "class_logits", *SEEN)
                     for part in [getattr(queries, name)]}
            yield CachedClip(**shared, **row, **blobs)


def _at(features: Tensor, t: np.ndarray, y: np.ndarray, x: np.ndarray, geometry: Geometry | None) -> Tensor:
    """features d t h w at pixels p -> d p."""
    if geometry is None:
        return features[:, t, y, x]
    resizer = MaskResizer(replace(geometry, source=geometry.resized), size=tuple(features.shape[2:]),
                          device=features.device)
    return resizer.at(features, *(torch.from_numpy(index).to(features.device) for index in (t, y, x)))
