"""The videos of a shard set: columns of all of them, and objects only of those that are asked for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from copy import copy
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow.compute as pc

from pipeline.arrow_columns import as_numpy
from pipeline.picture_headers import LARGEST
from pipeline.records import Segment
from pipeline.shards.format import StoredFrame, StoredVideo
from pipeline.shards.index import IndexBatch

# Of each video: its position in the whole set, its rows in a batch of the index, and what is asked of all videos.
_FACTS = np.dtype([(name, np.int32) for name in ("index", "batch", "start", "stop", "shard", "frames", "labels",
                                                 "objects", "height", "width")])
_BATCHES_AT_ONCE = 32       # of the index in memory, while it is opened


class StoredVideos(Sequence[StoredVideo]):
    """The videos of an index in the order of the tars. A `StoredVideo` is made whenever it is asked for.

    Raises BadInput "damaged-shard", which names the index, for columns that contradict the manifest; and when a video
    is made, for damage inside of its rows and for places outside of its tar.
    """

    def __init__(self, batches: Sequence[IndexBatch], manifest: Mapping[str, Any]) -> None:
        self._batches = batches
        self._sizes = [shard["size"] for shard in manifest["shards"]]       # of the tars, bytes
        facts = [np.zeros(0, _FACTS)]
        for index, batch in enumerate(batches):
            facts.append(_facts(batch, index, len(self._sizes)))
            if index % _BATCHES_AT_ONCE == 0 or index == len(batches) - 1:
                batch.release()
        self._facts = np.concatenate(facts)
        self._facts["index"] = np.arange(len(self._facts))
        self._refuse_other_counts(manifest)

    def __len__(self) -> int:
        return len(self._facts)

    def __getitem__(self, index):
        if isinstance(index, slice):
            return tuple(self[position] for position in range(*index.indices(len(self))))
        facts = self._facts[index]
        batch = self._batches[facts["batch"]]
        rows = batch.rows(int(facts["start"]), int(facts["stop"]))
        _refuse_unfit_rows(rows, batch, self._sizes[facts["shard"]])
        video = _stored_video(int(facts["index"]), rows)
        if (len(video.labelled), len(video.segments)) != (facts["labels"], facts["objects"]):
            raise batch.damaged(f"video {video.video_id!r} has other labels or segments than its counts.")
        return video

    @property
    def shards(self) -> np.ndarray:
        """Of each video: the position of its shard in the manifest."""
        return self._facts["shard"]

    @property
    def frames(self) -> np.ndarray:
        """Of each video: the number of its frames."""
        return self._facts["frames"]

    @property
    def labels(self) -> np.ndarray:
        """Of each video: the number of its frames that have an id map."""
        return self._facts["labels"]

    @property
    def objects(self) -> np.ndarray:
        """Of each video: the number of its segments."""
        return self._facts["objects"]

    @property
    def sizes(self) -> set[tuple[int, int]]:
        """Height and width, pixels, of all videos."""
        return set(zip(*(column.tolist() for column in np.unique(
            np.stack([self._facts["height"], self._facts["width"]]), axis=1))))

    def ids(self) -> Iterator[str]:
        """The id of each video."""
        cuts = np.flatnonzero(np.diff(self._facts["batch"], prepend=-1, append=-1))
        for start, stop in pairwise(cuts.tolist()):
            facts = self._facts[start:stop]
            yield from self._batches[facts["batch"][0]].column("video_id").take(facts["start"]).to_pylist()

    def of_shard(self, shard: int) -> Iterator[StoredVideo]:
        """The videos of one shard."""
        return map(self.__getitem__, np.flatnonzero(self.shards == shard).tolist())

    def rows_of_shard(self, shard: int) -> list[dict[str, Any]]:
        """The rows of the index for one shard, as plain values."""
        facts = self._facts[self.shards == shard]
        return [row for batch in np.unique(facts["batch"]).tolist() for part in [facts[facts["batch"] == batch]]
                for row in self._batches[batch].rows(int(part["start"].min()), int(part["stop"].max()))]

    def _refuse_other_counts(self, manifest: Mapping[str, Any]) -> None:
        """Raise BadInput where the videos, clips and frames of a shard are not as many as the manifest lists."""
        facts = self._facts
        counts = {"videos": np.ones(len(facts)), "clips": facts["stop"] - facts["start"], "frames": facts["frames"]}
        for name, of_videos in counts.items():
            actual = np.bincount(facts["shard"], of_videos, minlength=len(self._sizes)).astype(np.int64)
            listed = np.array([shard[name] for shard in manifest["shards"]], np.int64)
            for shard in np.flatnonzero(actual != listed)[:1].tolist():
                batch = self._batches[min(shard, len(self._batches) - 1)]
                raise batch.damaged(f"it has {actual[shard]} {name} of shard {shard}, but the manifest lists "
                                    f"{listed[shard]}.")

    def chosen(self, mask: np.ndarray) -> StoredVideos:
        """Some of the videos, which keep their `index`. mask: one bool for each video."""
        part = copy(self)
        part._facts = self._facts[mask]
        return part


def _facts(batch: IndexBatch, position: int, shards: int) -> np.ndarray:
    """What is kept of each video in the batch at `position`. Raises BadInput for a value that no clip has."""
    if not len(batch):
        return np.zeros(0, _FACTS)
    ids = batch.column("video_id")
    clips = {name: batch.numbers(name).astype(np.int64)
             for name in ("shard", "num_frames", "labels", "objects", "height", "width")}
    _refuse_unfit_clips(batch, clips, shards)
    starts = np.append(0, np.flatnonzero(as_numpy(pc.not_equal(ids[1:], ids[:-1]))) + 1)
    facts = np.zeros(len(starts), _FACTS)
    facts["batch"] = position
    facts["start"] = starts
    facts["stop"] = np.append(starts[1:], len(batch))
    facts["frames"] = np.add.reduceat(clips["num_frames"], starts)
    facts["labels"] = np.add.reduceat(clips["labels"], starts)
    for name in ("shard", "objects", "height", "width"):
        facts[name] = clips[name][starts]
    return facts


def _refuse_unfit_clips(batch: IndexBatch, clips: Mapping[str, np.ndarray], shards: int) -> None:
    """Raise BadInput for a value that no clip has."""
    height, width = clips["height"], clips["width"]
    unfit = {"shard": (clips["shard"] < 0) | (clips["shard"] >= shards), "num_frames": clips["num_frames"] < 1,
             "labels": (clips["labels"] < 0) | (clips["labels"] > clips["num_frames"]), "objects": clips["objects"] < 0,
             "height": (height < 1) | (height * width > LARGEST), "width": width < 1}
    for name, wrong in unfit.items():
        if wrong.any():
            row = int(wrong.argmax())
            raise batch.damaged(f"clip {batch.column('key')[row].as_py()!r} has the {name} {clips[name][row]} and "
                                f"{width[row]}x{height[row]} pixels, which do not fit.")


def _refuse_unfit_rows(rows: Iterable[dict], batch: IndexBatch, size: int) -> None:
    """Raise BadInput for the rows of a video with places outside of its tar, which has `size` bytes, or without a
    value."""
    for row in rows:
        places = row["members"]
        if any(None in place.values() or place["offset"] < 0 or place["length"] < 0 or
               place["offset"] + place["length"] > size for place in places):
            raise batch.damaged(f"clip {row['key']!r} lists places outside of its shard.")
        images = sum(place["name"].endswith(".jpg") for place in places)
        if images != len(row["frame_names"]) or images != row["num_frames"] or not row["video_id"]:
            raise batch.damaged(f"clip {row['key']!r} has {images} frames and other values that do not fit.")


def _stored_video(index: int, clips: Sequence[dict]) -> StoredVideo:
    """The video of some rows of the index."""
    first = clips[0]
    return StoredVideo(
        index=index, video_id=first["video_id"], shard=first["shard"], height=first["height"], width=first["width"],
        frames=tuple(frame for clip in clips for frame in _frames(clip)),
        segments=tuple(Segment(id=s["id"], class_index=s["class_index"], is_crowd=s["is_crowd"])
                       for s in first["segments"]),
        source_ids=tuple(s["source_id"] for s in first["segments"]),
        overlaps={overlap["id"]: tuple(overlap["segments"]) for overlap in first["overlaps"]})


def _frames(clip: dict) -> Iterable[StoredFrame]:
    """The frames of a clip, whose members are in the order jpg, [png,] jpg, [png,] ..., meta."""
    images = [place for place, member in enumerate(clip["members"]) if member["name"].endswith(".jpg")]
    ends = [*images[1:], len(clip["members"]) - 1]
    for index, (name, start, end) in enumerate(zip(clip["frame_names"], images, ends, strict=True),
                                               clip["start_frame"]):
        image, *label = clip["members"][start:end]
        yield StoredFrame(name=name, image=(image["offset"], image["length"]),
                          label=(label[0]["offset"], label[0]["length"]) if label else None,
                          crc32=tuple(member["crc32"] for member in (image, *label)), index=index)
