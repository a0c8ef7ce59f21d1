"""How much data a recipe works through: videos, frames, pixels and bytes, before any of it needs to lie here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from jobs.recipes.schema import Recipe
from pipeline.shards import ShardSet

IMAGE_BYTES = 0.1       # of a pixel of a camera's JPEG; assumed where no shards tell it
LABEL_BYTES = 0.01      # of a pixel of an id map
HELD_OUT = 10           # training videos for each that is held out; assumed of data of one's own without shards


@dataclass(frozen=True, kw_only=True)
class Amounts:
    """The videos of each split. All videos are taken to be alike."""

    videos: Mapping[str, int]
    frames: int                     # of a video
    size: tuple[int, int]           # height and width of a frame, pixels
    bytes_of_frame: float           # image and label, in the shards
    source: str                     # where the numbers are from

    @property
    def pixels(self) -> int:
        """Pixels of a frame."""
        return self.size[0] * self.size[1]


@dataclass(frozen=True, kw_only=True)
class _Published:
    """The size of a data set as its authors give it (docs/data.md)."""

    train: int
    rest: int                       # videos of every other split that a recipe reads
    frames: int                     # of a video, on average
    size: tuple[int, int]           # of most frames
    image_bytes: float = IMAGE_BYTES


PUBLISHED = {
    "vipseg": _Published(train=2806, rest=343, frames=24, size=(720, 1280)),
    "youtube_vis_2019": _Published(train=2238, rest=302, frames=28, size=(720, 1280)),
    "youtube_vis_2021": _Published(train=2985, rest=421, frames=30, size=(720, 1280)),
    "youtube_vis_2022": _Published(train=2985, rest=492, frames=30, size=(720, 1280)),
    "ovis": _Published(train=607, rest=140, frames=69, size=(1080, 1920)),
    "vspw": _Published(train=2806, rest=343, frames=71, size=(480, 854)),
    "kitti_step": _Published(train=12, rest=9, frames=380, size=(375, 1242)),
    "coco_panoptic": _Published(train=118_287, rest=5000, frames=1, size=(480, 640), image_bytes=0.5),
    "coco_instance": _Published(train=118_287, rest=5000, frames=1, size=(480, 640), image_bytes=0.5),
}


def amounts_of(recipe: Recipe, *, videos: int | None = None, frames: int | None = None) -> Amounts:
    """The amounts of a recipe: of its finished shards, its synthetic world, or its data set as published.

    videos, frames: replace those of the train split and the length of every video.
    Raises ValueError for data of one's own without shards whose number of videos and frames is not given.
    """
    amounts = _of_shards(recipe) or _of_world(recipe) or _published(recipe)
    if amounts is None and (videos is None or frames is None):
        raise ValueError(f"nobody has published how many videos {recipe.dataset.name!r} has, and there are no shards "
                         f"in {recipe.shards_of(recipe.train_split)}; give --videos and --frames, or make the shards")
    if amounts is None:
        described = _Published(train=videos, rest=-(-videos // HELD_OUT), frames=frames, size=(720, 1280))
        return _amounts(recipe, described, source="the command line")
    if videos is not None:
        amounts = replace(amounts, videos={**amounts.videos, recipe.train_split: videos})
    return amounts if frames is None else replace(amounts, frames=frames)


def _of_shards(recipe: Recipe) -> Amounts | None:
    """What finished shards of all splits hold; None where one is missing."""
    try:
        sets = {split: ShardSet(recipe.shards_of(split), tars_here=False) for split in recipe.splits}
    except FileNotFoundError:
        return None
    train = sets[recipe.train_split]
    frames = int(train.videos.frames.sum(dtype=int))
    stored = sum(shard["size"] for shard in train.manifest["shards"])
    return Amounts(videos={split: len(shards.videos) for split, shards in sets.items()},
                   frames=max(round(frames / len(train.videos)), 1), size=tuple(max(train.videos.sizes)),
                   bytes_of_frame=stored / frames, source="the finished shards")


def _of_world(recipe: Recipe) -> Amounts | None:
    world = recipe.world
    if world is None:
        return None
    described = _Published(train=world.videos_train, rest=world.videos_val, frames=world.frames,
                           size=(world.height, world.width))
    return _amounts(recipe, described, source="the synthetic world")


def _published(recipe: Recipe) -> Amounts | None:
    described = PUBLISHED.get(recipe.dataset.name)
    return None if described is None else _amounts(recipe, described, source="the published size of the data set")


def _amounts(recipe: Recipe, described: _Published, *, source: str) -> Amounts:
    height, width = recipe.shards.stored_size(*described.size)
    return Amounts(videos={split: described.train if split == recipe.train_split else described.rest
                           for split in recipe.splits},
                   frames=described.frames, size=(height, width), source=source,
                   bytes_of_frame=height * width * (described.image_bytes + LABEL_BYTES))
