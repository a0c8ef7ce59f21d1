"""Which videos go into which shard: decided before anything is written, from the listing and the settings alone."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path

from pipeline.errors import BadInput
from pipeline.files import digest
from pipeline.records import Dataset
from pipeline.shards.format import SCHEMA, shard_name

PROBED_VIDEOS = 64      # whose file sizes are looked up; the other videos are taken to be like them


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardConfig:
    """What is stored, and in how large pieces."""

    clip_frames: int = 8                # per stored clip (one WebDataset sample); the last of a video may be shorter
    shard_megabytes: float = 200.0      # aim; a video never spans shards
    min_shards: int = 1                 # streaming wants at least ranks x loader workers; never more than videos
    resize_height: int | None = None    # pixels; 720 is VIPSeg's own step: width int(720 w / h). None: JPEGs untouched
    jpeg_quality: int = 95              # of resized frames; VIPSeg's script left Pillow's 75
    decoded_frames: int = 1             # per video, decoded in full as a check; of all others the structure is checked
    max_bad_fraction: float = 0.5       # of the videos; above it the data set, not a video, is at fault

    def __post_init__(self) -> None:
        for name, least in (("clip_frames", 1), ("min_shards", 1), ("jpeg_quality", 1), ("decoded_frames", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"shards.{name} must be at least {least}, got {getattr(self, name)}")
        if self.shard_megabytes <= 0:
            raise ValueError(f"shards.shard_megabytes must be above 0, got {self.shard_megabytes}; 100 to 500 is usual")
        if self.resize_height is not None and self.resize_height < 1:
            raise ValueError(f"shards.resize_height must be at least 1 pixel, got {self.resize_height}; "
                             "leave it out to store the frames as they are")
        if not 0 <= self.max_bad_fraction <= 1:
            raise ValueError(f"shards.max_bad_fraction is a fraction from 0 to 1, got {self.max_bad_fraction}")

    def stored_size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of a stored frame, pixels (VIPSeg's `change2_720p.py`: the height decides, also upright)."""
        if self.resize_height is None:
            return height, width
        return self.resize_height, max(1, int(self.resize_height * width / height))


@dataclass(frozen=True)
class ShardPlan:
    """The shards of one split of a data set: names and videos, in order. Equal plans have equal digests."""

    split: str
    categories: dict                        # ClassTable.to_json()
    config: ShardConfig
    shards: tuple[tuple[str, ...], ...]     # video ids per shard

    def name(self, shard: int) -> str:
        """File name of a shard's tar."""
        return f"{shard_name(self.split, shard)}.tar"

    @property
    def videos(self) -> int:
        """Number of videos in all shards."""
        return sum(map(len, self.shards))

    def to_json(self) -> dict:
        """The plan as plain values."""
        return {"schema": SCHEMA, "split": self.split, "categories": self.categories, "config": asdict(self.config),
                "shards": [list(videos) for videos in self.shards]}

    @cached_property
    def digest(self) -> str:
        """Names the plan in every file it leads to."""
        return digest(self.to_json())


def plan_shards(dataset: Dataset, config: ShardConfig, *, split: str) -> ShardPlan:
    """Cut the sorted videos into shards of about `shard_megabytes`. A pure function of listing, file sizes, config.

    Raises ValueError where the split has no videos.
    """
    ids = sorted(dataset.video_ids())
    if not ids:
        raise ValueError(f"split {split!r} of {dataset.classes.name!r} lists no videos; check the split's list")
    shards = max(config.min_shards, math.ceil(_expected_bytes(dataset, ids, config) / (config.shard_megabytes * 1e6)))
    shards = min(shards, len(ids))
    cuts = [len(ids) * shard // shards for shard in range(shards + 1)]
    return ShardPlan(split=split, categories=dataset.classes.to_json(), config=config,
                     shards=tuple(tuple(ids[start:stop]) for start, stop in pairwise(cuts)))


def _expected_bytes(dataset: Dataset, ids: list[str], config: ShardConfig) -> float:
    """Of all videos, from a look at a few: on a network file system every look costs, and shard size is but an aim."""
    probed = ids[::math.ceil(len(ids) / PROBED_VIDEOS)]
    sizes = [_video_bytes(dataset, id, config) for id in probed]
    return sum(sizes) / len(sizes) * len(ids)


def _video_bytes(dataset: Dataset, video_id: str, config: ShardConfig) -> float:
    try:
        video = dataset.read(video_id)
        height, width = config.stored_size(video.height, video.width)
        scale = height * width / (video.height * video.width)
        return scale * sum(_file_bytes(frame.image) + _file_bytes(frame.label) for frame in video.frames)
    except (BadInput, OSError):
        return 0.0      # it will be skipped and counted by its shard


def _file_bytes(path: Path | None) -> int:
    return path.stat().st_size if path is not None and path.exists() else 0
