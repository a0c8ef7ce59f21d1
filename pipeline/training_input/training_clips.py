"""One draw of the sample plan -> one training clip. All random choices come first, then bytes are read and decoded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from model.labels import VOID, ClassTable
from pipeline.clips import (
    AugmentConfig,
    Transform,
    color_frames,
    count_windows,
    draw_transform,
    sample_around,
    sample_clip,
    starts_with_labels,
)
from pipeline.errors import BadInput
from pipeline.images import decode_jpeg
from pipeline.records import Segment
from pipeline.shards import StoredVideo, StoredVideos
from pipeline.shards.label_png import decode_label
from pipeline.training_input.copy_paste import (
    CopyPasteConfig,
    choose_segments,
    displaced,
    draw_donor,
    paste,
    renumber,
)
from pipeline.training_input.pseudo_video import PseudoVideoConfig, draw_camera_path, draw_jitter
from pipeline.training_input.refusal import RefusalConfig, meets_object, objects_of
from pipeline.training_input.sample_plan import CLIP, PASTE, Draw
from pipeline.training_input.targets import ClipTubes, Overlaps, clip_tubes, stride_4

# Video and frame indices -> JPEG and id PNG of each frame.
Fetch = Callable[[StoredVideo, Sequence[int]], list[tuple[bytes, bytes | None]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class InputConfig:
    """Training input of stage one."""

    augment: AugmentConfig
    clip_frames: int = 2
    frame_stride: int = 1           # from a frame of a clip to the next one; 1: neighbours
    reach: int = 0                  # frames of a clip are at most this far from one of them; 0: every `frame_stride`-th
    sampling: Literal["videos", "windows"] = "videos"   # what is drawn equally often: a video, or a frame at which a
                                    # clip can start, so that long videos are drawn more often and too short ones never
    drop_empty: bool = False        # never draw videos and images without an object
    refuse: RefusalConfig | None = None     # draw another clip in place of one that holds too little; None: keep all
    batch_size: int = 8             # clips per step, all ranks together
    samples_per_video: int = 1      # clips drawn in an epoch from each video, or from each window; more where
                                    # the set would not fill a batch
    seed: int = 0
    copy_paste: CopyPasteConfig | None = field(default_factory=CopyPasteConfig)
    pseudo_video: PseudoVideoConfig | None = None   # moves a camera over stills, and over some videos; None: no motion
    jitter_stills: bool = False     # scale and crop every frame of a still anew, with one flip and one set of colours
    workers: int = 2                # loader processes of each rank; 0: the training process decodes
    prefetch: int = 2               # batches that each worker keeps ready
    streaming: bool = False         # read shards front to back through webdataset, which suits object stores
    stream_from: str = ""           # location of the tars when streaming; "": the folder of the manifest. Otherwise a
                                    # folder, "https://...", "gs://...", or a command: "pipe:aws s3 cp s3://b/{shard} -"
    official_compat: bool = False   # the released code's quirks in sampling and copy-paste

    def __post_init__(self) -> None:
        for name in ("clip_frames", "frame_stride", "batch_size", "samples_per_video", "prefetch"):
            if getattr(self, name) < 1:
                raise ValueError(f"stage_one.input.{name} is {getattr(self, name)}; it must be at least 1")
        if self.reach < 0:
            raise ValueError(f"stage_one.input.reach is {self.reach}; give a number of frames, or 0 for consecutive "
                             "frames")
        if self.reach and (self.frame_stride > 1 or self.sampling == "windows"):
            raise ValueError(f"stage_one.input.reach={self.reach} draws the frames of a clip around one of them, "
                             "without stride and windows; set stage_one.input.reach=0, or "
                             "stage_one.input.frame_stride=1 and stage_one.input.sampling=videos")
        if self.refuse is not None and self.streaming:
            raise ValueError("stage_one.input.refuse draws other clips of the whole set, which are read by index; set "
                             "stage_one.input.streaming=false, or stage_one.input.refuse=null")
        if self.jitter_stills and self.pseudo_video:
            raise ValueError("jitter_stills and pseudo_video of stage_one.input both make a clip of a still; set "
                             "stage_one.input.jitter_stills=false or stage_one.input.pseudo_video=null")
        if self.workers < 0:
            raise ValueError(f"stage_one.input.workers is {self.workers}; give 0 or more loader processes per rank")
        if self.stream_from and not self.streaming:
            raise ValueError("stage_one.input.stream_from is used only if stage_one.input.streaming is true; set both "
                             "or neither")
        if self.copy_paste is not None and self.augment.pad_to is not None:
            raise ValueError("stage_one.input.copy_paste needs clips of one size; set "
                             "stage_one.input.augment.pad_to=null, or stage_one.input.copy_paste=null")
        if self.pseudo_video is not None and self.augment.size is None and self.augment.long_side is None:
            raise ValueError("stage_one.input.pseudo_video shows windows of any shape, which nothing limits here; set "
                             "stage_one.input.augment.long_side or stage_one.input.augment.size")


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Frames of one video, and the transform of each.

    Transforms differ where a camera moves over the video, or where the colours of each frame are drawn.
    """

    video: StoredVideo
    frames: tuple[int, ...]             # t
    transforms: tuple[Transform, ...]   # t

    @property
    def unlabelled(self) -> list[int]:
        """The positions of the frames that nobody labelled."""
        return [position for position, frame in enumerate(self.frames) if self.video.frames[frame].label is None]

    @property
    def labelled(self) -> Part:
        """The part without the frames that nobody labelled."""
        unlabelled = self.unlabelled
        return self.at([position for position in range(len(self.frames)) if position not in unlabelled])

    def at(self, positions: Sequence[int]) -> Part:
        """Some of the frames."""
        return replace(self, frames=tuple(self.frames[position] for position in positions),
                       transforms=tuple(self.transforms[position] for position in positions))


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipPlan:
    """Everything about a clip that does not depend on pixels."""

    draw: Draw
    clip: Part
    donor: Part | None      # the clip from which copy-paste takes segments


def clips_per_epoch(videos: StoredVideos, config: InputConfig) -> np.ndarray:
    """How many clips an epoch draws from each video; 0 from one that is never drawn."""
    clips = np.ones(len(videos), np.int64)
    if config.sampling == "windows":
        clips = np.maximum(videos.frames.astype(np.int64) - (config.clip_frames - 1) * config.frame_stride, 0)
        for index in np.flatnonzero((videos.labels < videos.frames) & (clips > 0)).tolist():
            clips[index] = len(_windows(videos[index], config))
    if config.drop_empty:
        clips[videos.objects == 0] = 0
    return config.samples_per_video * clips


def _windows(video: StoredVideo, config: InputConfig) -> Sequence[int]:
    """The frames at which a clip with a label can start."""
    frames = len(video.frames)
    starts = range(count_windows(frames, config.clip_frames, stride=config.frame_stride))
    return starts_with_labels(starts, video.labelled, frames, config.clip_frames, stride=config.frame_stride)


def plan_clip(draw: Draw, videos: Sequence[StoredVideo], config: InputConfig, *, donors: range) -> ClipPlan:
    """Draw frames, transforms and donor: a pure function of the seed, the draw and the range of `donors`.

    Clip and donor hold at least one frame with a label, where their videos have any.
    donors: videos from which copy-paste may take; a clip of a video outside this range gets nothing pasted.
    """
    rng = draw.random(config.seed, CLIP)
    video = videos[draw.video]
    start = None
    if config.sampling == "windows":
        windows = _windows(video, config)
        start = windows[draw.repeat % len(windows)]
    clip = _draw_part(rng, video, config, config.augment, start=start)
    donor = None
    paste_config = config.copy_paste
    if paste_config and draw.video in donors and rng.random() < paste_config.probability:
        other = videos[draw_donor(rng, donors, draw.video)]
        donor = _draw_part(rng, other, replace(config, pseudo_video=None), paste_config.of_donor(config.augment))
    return ClipPlan(draw=draw, clip=clip, donor=donor)


def on_one_canvas(plans: Sequence[ClipPlan], config: InputConfig) -> list[ClipPlan]:
    """The same clips, padded to the canvas of their batch."""
    canvas = config.augment.canvas([transform.resized for plan in plans for transform in plan.clip.transforms])
    return [replace(plan, clip=replace(plan.clip, transforms=tuple(
        replace(transform, padded=canvas) for transform in plan.clip.transforms))) for plan in plans]


def make_clip(plan: ClipPlan, fetch: Fetch, classes: ClassTable, config: InputConfig, *, frames: np.ndarray,
              real_pixels: np.ndarray) -> ClipTubes:
    """Read, decode and transform one clip into the given arrays: frames `t 3 H W` uint8, real pixels `t H W` bool.

    H W: the size to which the plan's transforms pad. A frame without a label is shown, pasted segments included, but
    void everywhere. Raises BadInput, which names video and frame, if an image cannot be decoded.
    """
    real_pixels[:] = False
    for real, transform in zip(real_pixels, plan.clip.transforms):
        height, width = transform.resized
        real[:height, :width] = True
    labels = decode_part(plan.clip, fetch, out=frames, at=stride_4(frames.shape[-2:]))
    ids = np.stack(labels).astype(np.uint16)                                # t h w
    segments = plan.clip.video.segments
    overlaps = plan.clip.video.overlaps
    if plan.donor:
        pasted, shared = _paste_donor(plan, fetch, classes, config, frames=frames, real_pixels=real_pixels, ids=ids)
        segments = (*segments, *pasted)
        overlaps = {**overlaps, **shared}
    ids[plan.clip.unlabelled] = 0
    return replace(clip_tubes(ids, segments, classes, overlaps=overlaps), unlabelled=tuple(plan.clip.unlabelled))


def is_refused(plan: ClipPlan, fetch: Fetch, classes: ClassTable, config: InputConfig) -> bool:
    """Whether `config.refuse` refuses the content of a clip.

    Frames without a label are not looked at. A frame that cannot be decoded is not refused: `make_clip` raises the
    error that names it.
    """
    rules = config.refuse
    if rules is None:
        return False
    part = plan.clip.labelled
    frames = part.frames[:1] if rules.empty == "first" and rules.labelled is None else part.frames
    try:
        maps = [decode_label(png) for _, png in fetch(part.video, frames)]
    except ValueError:
        return False
    looked_at = {"": 0, "first": 1, "any": len(maps)}[rules.empty]
    for ids, transform in zip(maps[:looked_at], part.transforms):
        if not meets_object(ids, transform.box, part.video):
            return True
    return rules.labelled is not None and _labelled_pixels(plan, maps, fetch, classes, config) <= rules.labelled


def _labelled_pixels(plan: ClipPlan, maps: Sequence[np.ndarray], fetch: Fetch, classes: ClassTable,
                     config: InputConfig) -> int:
    """Labelled pixels of a clip at stride 4; without pasted ones where these are not needed to exceed the limit."""
    size = plan.clip.transforms[0].padded
    is_object = objects_of(plan.clip.video)
    own = sum(int(np.count_nonzero(is_object[transform.ids(ids, at=stride_4(size))]))
              for ids, transform in zip(maps, plan.clip.labelled.transforms))
    if plan.donor is None or (own > config.refuse.labelled and not config.official_compat):
        return own
    frames = np.empty((len(plan.clip.frames), 3, *size), dtype=np.uint8)
    clip = make_clip(plan, fetch, classes, config, frames=frames,
                     real_pixels=np.empty((len(plan.clip.frames), *size), dtype=bool))
    return int(np.count_nonzero(clip.tubes != VOID))


def _draw_part(rng: np.random.Generator, video: StoredVideo, config: InputConfig, augment: AugmentConfig, *,
               start: int | None = None) -> Part:
    lengths = len(video.frames), config.clip_frames
    if config.reach:
        frames = sample_around(*lengths, rng, reach=config.reach, reverse=augment.reverse, labelled=video.labelled)
    else:
        frames = sample_clip(*lengths, rng, stride=config.frame_stride, start=start, reverse=augment.reverse,
                             labelled=video.labelled, official_compat=config.official_compat)
    transforms = color_frames(rng, augment, _draw_transforms(rng, video, config, augment))
    return Part(video=video, frames=frames, transforms=transforms)


def _draw_transforms(rng: np.random.Generator, video: StoredVideo, config: InputConfig,
                     augment: AugmentConfig) -> tuple[Transform, ...]:
    size = (video.height, video.width)
    camera = config.pseudo_video
    if config.jitter_stills and len(video.frames) == 1:
        return draw_jitter(rng, augment, size, config.clip_frames)
    if camera:
        return draw_camera_path(rng, camera, augment, size, config.clip_frames, still=len(video.frames) == 1)
    return (draw_transform(rng, augment, size),) * config.clip_frames


def decode_part(part: Part, fetch: Fetch, *, out: np.ndarray | None, at: tuple[slice, slice]) -> list[np.ndarray]:
    """Write frames into `out`, t 3 H W uint8, if given. Returns the ids of each, at rows and columns `at`.

    Repeated frames are consecutive and decoded once. Raises BadInput, which names video and frame.
    """
    ids: list[np.ndarray] = []
    before = None
    for position, (frame, transform, (jpeg, png)) in enumerate(zip(part.frames, part.transforms,
                                                                   fetch(part.video, part.frames))):
        if before == (frame, transform):
            if out is not None:
                out[position] = out[position - 1]
            ids.append(ids[-1])
            continue
        try:
            if before is None or before[0] != frame:
                image = decode_jpeg(jpeg) if out is not None else None
                labels = _no_labels(part.video) if png is None else decode_label(png)
            if out is not None:
                transform.image(image, out=out[position])
            ids.append(transform.ids(labels, at=at))
            before = frame, transform
        except ValueError as error:
            raise BadInput(getattr(error, "reason", "bad-frame"), f"frame {part.video.frames[frame].name!r}: {error}",
                           video=part.video.video_id, cure="Verify the shards; if they match the data set, leave the "
                           "video out.") from error
    return ids


def _no_labels(video: StoredVideo) -> np.ndarray:
    """The id map of a frame that nobody labelled: void everywhere."""
    return np.zeros((video.height, video.width), np.uint8)


def _paste_donor(plan: ClipPlan, fetch: Fetch, classes: ClassTable, config: InputConfig, *, frames: np.ndarray,
                 real_pixels: np.ndarray, ids: np.ndarray) -> tuple[list[Segment], Overlaps]:
    """Paste part of the donor over the clip, in place. Returns the pasted segments and overlaps, with new ids."""
    height, width = np.max([transform.resized for transform in plan.donor.transforms], axis=0).tolist()
    donor_frames = np.empty((*frames.shape[:2], height, width), dtype=np.uint8)
    donor_ids = decode_part(plan.donor, fetch, out=donor_frames, at=(slice(height), slice(width)))
    donor = plan.donor.video
    chosen = choose_segments(donor_ids, donor.segments, classes, plan.draw.random(config.seed, PASTE),
                             overlaps=donor.overlaps, all_things=config.copy_paste.all_things,
                             official_compat=config.official_compat)
    moved, shared, new_ids = renumber(chosen, after=plan.clip.video.highest_id, highest=donor.highest_id,
                                      overlaps=donor.overlaps)
    if config.official_compat:
        ids[np.isin(ids, displaced(plan.clip.video, donor, chosen, classes))] = 0
    for position, labels in enumerate(donor_ids):
        paste(frames[position], ids[position], real_pixels[position], donor_frames[position], labels, new_ids)
    return moved, shared
