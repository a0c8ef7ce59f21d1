"""Converts a data set's id maps or instance masks to the id maps of a shard, and checks them by its annotations."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from pipeline.errors import BadInput
from pipeline.images import resize_ids
from pipeline.records import Dataset, FrameRecord, VideoRecord
from pipeline.shards.id_runs import IdRuns, map_runs, mask_borders, mask_runs

SAME_RUN = "Use annotations and label maps of the same run of the converter."
HIGHEST_ID = np.iinfo(np.uint16).max    # of an id map
HIGHEST_SOURCE = 257 * 2**16            # of a data set's own map: 24 bits, and a little more in KITTI-STEP's coding


class StoredIds:
    """New ids for one video: 1 ... m for its segments in the order of `VideoRecord`, above m for its overlaps.

    Masks of instances may overlap. The pixels that belong to the same two or more segments are one overlap with an id
    of its own. The list of overlaps is complete after the last frame.
    """

    def __init__(self, video: VideoRecord) -> None:
        segments = video.segments
        self.table = [{"id": id, "source_id": segment.id, "class_index": segment.class_index,
                       "is_crowd": segment.is_crowd} for id, segment in enumerate(segments, start=1)]
        self.source = np.array([0] + [segment.id for segment in segments])              # stored id -> source id
        self.stored = {segment.id: id for id, segment in enumerate(segments, start=1)}  # source id -> stored id
        self._lookup: np.ndarray | None = None
        self._overlaps: dict[tuple[int, ...], int] = {}         # segments -> id
        self.pixels = np.zeros(len(segments) + 1, np.int64)     # of every stored id, in the frames so far

    @property
    def overlaps(self) -> list[dict]:
        """Ids above m and the segments that share them, of the frames so far; for `meta.json`."""
        return [{"id": id, "segments": list(segments)} for segments, id in self._overlaps.items()]

    def runs(self, dataset: Dataset, video: VideoRecord, frame: FrameRecord, size: tuple[int, int]) -> IdRuns | None:
        """Stored ids of one frame, uint8 or uint16, in the given size; None where the data set has no labels.

        Raises BadInput where the map or the masks contradict the annotation.
        """
        if frame.label is None and frame.masks is None:
            return None
        runs = self._from_masks(video, frame) if frame.label is None else self._from_map(dataset, video, frame)
        if runs.size != size:
            runs = map_runs(resize_ids(runs.painted(), *size))
        counts = runs.pixels(len(self.table) + len(self._overlaps) + 1)
        counts[:len(self.pixels)] += self.pixels
        self.pixels = counts
        return runs

    def _from_map(self, dataset: Dataset, video: VideoRecord, frame: FrameRecord) -> IdRuns:
        source = dataset.frame_ids(video, frame)                                        # H W int32
        if source.shape != (video.height, video.width):
            raise BadInput("size-differs", f"the label is {source.shape[1]}x{source.shape[0]} pixels, but the video is "
                           f"{video.width}x{video.height}.", cure="Resize frames, labels and annotations together.")
        if self.source.max() > HIGHEST_SOURCE:
            raise BadInput("bad-id", f"the annotation lists the id {self.source.max()}, but label maps store ids of at "
                           f"most {HIGHEST_SOURCE}.", cure=SAME_RUN)
        if self._lookup is None:        # its last entry stays 0
            self._lookup = np.zeros(int(self.source.max()) + 2, _smallest(len(self.table)))
            self._lookup[self.source] = np.arange(len(self.source))
        runs = map_runs(source)
        ids = self._lookup.take(runs.ids, mode="clip")          # ids outside the table become 0, like void
        if np.count_nonzero(ids) != np.count_nonzero(runs.ids):
            raise BadInput("unlisted-id", f"its pixels have the ids {some(set(runs.ids[ids == 0].tolist()) - {0})}, "
                           "which the annotation of the video does not list.", cure=SAME_RUN)
        runs = replace(runs, ids=ids)
        self._check_listing(frame, runs.pixels(len(self.source)))
        return runs

    def _check_listing(self, frame: FrameRecord, pixels: np.ndarray) -> None:
        drawn = set(self.source[1:][pixels[1:] > 0].tolist())
        listed = set(frame.segment_ids)
        if drawn - listed:
            raise BadInput("unlisted-id", f"its pixels have the ids {some(drawn - listed)}, which the annotation of "
                           f"frame {frame.name!r} does not list.", cure=SAME_RUN)
        if listed - drawn:
            raise BadInput("no-pixels", f"the annotation of frame {frame.name!r} lists the segments "
                           f"{some(listed - drawn)}, which have no pixels.", cure=SAME_RUN)

    def _from_masks(self, video: VideoRecord, frame: FrameRecord) -> IdRuns:
        borders = {self._stored_id(frame, id): _borders(video, frame, id, mask) for id, mask in frame.masks.items()}
        runs = mask_runs(borders, (video.height, video.width), self._overlap)
        return replace(runs, ids=runs.ids.astype(_smallest(int(runs.ids.max()))))

    def _stored_id(self, frame: FrameRecord, id: int) -> int:
        if id not in self.stored:
            raise BadInput("unlisted-id", f"frame {frame.name!r} has a mask of id {id}, which the annotation of the "
                           "video does not list.", cure=SAME_RUN)
        return self.stored[id]

    def _overlap(self, segments: tuple[int, ...]) -> int:
        id = self._overlaps.setdefault(segments, len(self.table) + len(self._overlaps) + 1)
        if id > HIGHEST_ID:
            raise BadInput("too-many-segments", f"it has more than {HIGHEST_ID} segments and overlaps.",
                           cure="Cut the video into shorter ones.")
        return id


def some(ids: Iterable[int]) -> str:
    """The first few ids, for messages."""
    ids = sorted(ids)
    return f"{ids[:5]}" + (f" and {len(ids) - 5} more" if len(ids) > 5 else "")


def _borders(video: VideoRecord, frame: FrameRecord, id: int, mask: dict) -> np.ndarray:
    if tuple(mask["size"]) != (video.height, video.width):
        raise BadInput("size-differs", f"the mask of id {id} in frame {frame.name!r} has size {mask['size']}, "
                       f"but the video {[video.height, video.width]}.", cure=SAME_RUN)
    try:
        return mask_borders(mask, (video.height, video.width))
    except ValueError as error:
        raise BadInput("size-differs", f"the run lengths of id {id} in frame {frame.name!r} do not fill the frame's "
                       f"{video.height * video.width} pixels: {error}.", cure="Copy or convert the annotations again."
                       ) from error


def _smallest(highest: int) -> type[np.unsignedinteger]:
    return np.uint8 if highest <= np.iinfo(np.uint8).max else np.uint16
