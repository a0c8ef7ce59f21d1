"""The division of videos into shards, which depends on the data set and the settings and precedes all writing."""

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

PROBED_VIDEOS = 64      # number of videos whose file sizes are read; the others are assumed to be alike


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardConfig:
    """The content of stored clips, and the size of shards."""

    clip_frames: int = 8                # per stored clip (one WebDataset sample); the last of a video may be shorter
    shard_megabytes: float = 200.0      # target; a video never spans shards
    min_shards: int = 1                 # streaming needs at least ranks x loader workers; at most one per video
    resize_height: int | None = None    # pixels; VIPSeg itself uses 720: width int(720 w / h). None: JPEGs unchanged
    jpeg_quality: int = 95              # of resized frames; VIPSeg's script uses Pillow's default, 75
    decoded_frames: int = 1             # per video, decoded as a check; of the others only the structure is checked
    max_bad_fraction: float = 0.5       # of the videos, labels and pictures; above it the whole data set is refused

    def __post_init__(self) -> None:
        for name, minimum in (("clip_frames", 1), ("min_shards", 1), ("jpeg_quality", 1), ("decoded_frames", 0)):
            if getattr(self, name) < minimum:
                raise ValueError(f"shards.{name} must be at least {minimum}, got {getattr(self, name)}")
        if self.shard_megabytes <= 0:
            raise ValueError(f"shards.shard_megabytes must be above 0, got {self.shard_megabytes}; 100 to 500 is usual")
        if self.resize_height is not None and self.resize_height < 1:
            raise ValueError(f"shards.resize_height must be at least 1 pixel, got {self.resize_height}; "
                             "set it to null to store the frames as they are")
        if not 0 <= self.max_bad_fraction <= 1:
            raise ValueError(f"shards.max_bad_fraction is a fraction from 0 to 1, got {self.max_bad_fraction}")

    def stored_size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of a stored frame in pixels; the height is fixed, as in VIPSeg's `change2_720p.py`."""
        if self.resize_height is None:
            return height, width
        return self.resize_height, max(1, int(self.resize_height * width / height))


@dataclass(frozen=True)
class ShardPlan:
    """The shards of one split of a data set and their videos, in order. Equal plans have equal digests."""

    split: str
    categories: dict                        # ClassTable.to_json()
    config: ShardConfig
    shards: tuple[tuple[str, ...], ...]     # video ids per shard
    schema: int = SCHEMA                    # an earlier one for a set that an earlier version began

    def name(self, shard: int) -> str:
        """File name of a shard's tar."""
        return f"{shard_name(self.split, shard)}.tar"

    @property
    def videos(self) -> int:
        """Number of videos in all shards."""
        return sum(map(len, self.shards))

    def to_json(self) -> dict:
        """The plan as plain values."""
        return {"schema": self.schema, "split": self.split, "categories": self.categories, "config": self.config_json(),
                "shards": [list(videos) for videos in self.shards]}

    def config_json(self) -> dict:
        """The settings as plain values."""
        return asdict(self.config)

    @cached_property
    def digest(self) -> str:
        """Identifies the plan in every file that is written from it."""
        return digest(self.to_json())


def plan_shards(dataset: Dataset, config: ShardConfig, *, split: str) -> ShardPlan:
    """Divide the sorted videos into shards of about `shard_megabytes`.

    The result depends only on the list of videos, their file sizes and the settings. Raises ValueError where the split
    has no videos.
    """
    ids = sorted(dataset.video_ids())
    if not ids:
        raise ValueError(f"split {split!r} of {dataset.classes.name!r} lists no videos; check the list of the split")
    shards = max(config.min_shards, math.ceil(_expected_bytes(dataset, ids, config) / (config.shard_megabytes * 1e6)))
    shards = min(shards, len(ids))
    cuts = [len(ids) * shard // shards for shard in range(shards + 1)]
    return ShardPlan(split=split, categories=dataset.classes.to_json(), config=config,
                     shards=tuple(tuple(ids[start:stop]) for start, stop in pairwise(cuts)))


def _expected_bytes(dataset: Dataset, ids: list[str], config: ShardConfig) -> float:
    """The bytes of all videos, estimated from a few: a network file system is slow, and shards need no exact size."""
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
        return 0.0      # its shard will skip and count it


def _file_bytes(path: Path | None) -> int:
    return path.stat().st_size if path is not None and path.exists() else 0
