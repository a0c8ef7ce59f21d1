"""One draw of the sample plan -> one training clip. All random choices come first, then bytes are read and decoded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from model.labels import ClassTable
from pipeline.clips import AugmentConfig, Transform, draw_transform, sample_around, sample_clip
from pipeline.errors import BadInput
from pipeline.images import decode_jpeg, decode_png
from pipeline.records import Segment
from pipeline.shards import StoredVideo
from pipeline.training_input.copy_paste import CopyPasteConfig, choose_segments, displaced, paste, renumber
from pipeline.training_input.pseudo_video import PseudoVideoConfig, draw_camera_path, draw_jitter
from pipeline.training_input.sample_plan import CLIP, PASTE, Draw
from pipeline.training_input.targets import ClipTubes, Overlaps, clip_tubes, stride_4

# Video and frame indices -> JPEG and id PNG of each frame.
Fetch = Callable[[StoredVideo, Sequence[int]], list[tuple[bytes, bytes | None]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class InputConfig:
    """Training input of stage one."""

    augment: AugmentConfig
    clip_frames: int = 2
    reach: int = 0                  # frames of a clip are at most this far from one of them; 0: consecutive frames
    batch_size: int = 8             # clips per step, all ranks together
    samples_per_video: int = 1      # clips drawn from each video in an epoch
    seed: int = 0
    copy_paste: CopyPasteConfig | None = field(default_factory=CopyPasteConfig)
    pseudo_video: PseudoVideoConfig | None = None   # moves a camera over videos of one frame; None: no motion
    jitter_stills: bool = False     # scale and crop every frame of a still anew, with one flip and one set of colours
    workers: int = 2                # loader processes of each rank; 0: the training process decodes
    prefetch: int = 2               # batches that each worker keeps ready
    streaming: bool = False         # read shards front to back through webdataset, which suits object stores
    stream_from: str = ""           # location of the tars when streaming; "": the folder of the manifest. Otherwise a
                                    # folder, "https://...", "gs://...", or a command: "pipe:aws s3 cp s3://b/{shard} -"
    official_compat: bool = False   # the released code's quirks in sampling and copy-paste

    def __post_init__(self) -> None:
        for name in ("clip_frames", "batch_size", "samples_per_video", "prefetch"):
            if getattr(self, name) < 1:
                raise ValueError(f"input.{name} is {getattr(self, name)}; it must be at least 1")
        if self.reach < 0:
            raise ValueError(f"input.reach is {self.reach}; give a number of frames, or 0 for consecutive frames")
        if self.jitter_stills and self.pseudo_video:
            raise ValueError("input.jitter_stills and input.pseudo_video both make a clip of a still; set "
                             "jitter_stills=false or pseudo_video=null")
        if self.workers < 0:
            raise ValueError(f"input.workers is {self.workers}; give 0 or more loader processes per rank")
        if self.stream_from and not self.streaming:
            raise ValueError("input.stream_from is used only if input.streaming is true; set both or neither")


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Frames of one video, and the transform of each. Transforms differ only when a camera moves over a still."""

    video: StoredVideo
    frames: tuple[int, ...]             # t
    transforms: tuple[Transform, ...]   # t


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipPlan:
    """Everything about a clip that does not depend on pixels."""

    draw: Draw
    clip: Part
    donor: Part | None      # the clip from which copy-paste takes segments


def plan_clip(draw: Draw, videos: Sequence[StoredVideo], config: InputConfig, *, donors: range) -> ClipPlan:
    """Draw frames, transforms and donor: a pure function of (seed, epoch, video, repeat) and the range of `donors`.

    donors: videos from which copy-paste may take; a clip of a video outside this range gets nothing pasted.
    """
    rng = draw.random(config.seed, CLIP)
    clip = _draw_part(rng, videos[draw.video], config, config.augment)
    donor = None
    paste_config = config.copy_paste
    if paste_config and draw.video in donors and rng.random() < paste_config.probability:
        low, high = config.augment.scale
        smaller = replace(config.augment, scale=(low * paste_config.scale, high * paste_config.scale))
        step = 1 + int(rng.integers(len(donors) - 1)) if len(donors) > 1 else 0      # another video if there is one
        other = donors[(donors.index(draw.video) + step) % len(donors)]
        donor = _draw_part(rng, videos[other], replace(config, pseudo_video=None), smaller)
    return ClipPlan(draw=draw, clip=clip, donor=donor)


def make_clip(plan: ClipPlan, fetch: Fetch, classes: ClassTable, config: InputConfig, *, frames: np.ndarray,
              real_pixels: np.ndarray) -> ClipTubes:
    """Read, decode and transform one clip into the given arrays: frames `t 3 H W` uint8, real pixels `t H W` bool.

    Raises BadInput, which names video and frame, if an image cannot be decoded.
    """
    real_pixels[:] = False
    for real, transform in zip(real_pixels, plan.clip.transforms):
        height, width = transform.resized
        real[:height, :width] = True
    labels = _decode(plan.clip, fetch, out=frames, at=stride_4(config.augment.size))
    ids = np.stack(labels).astype(np.uint16)                                # t h w
    segments = plan.clip.video.segments
    overlaps = plan.clip.video.overlaps
    if plan.donor:
        pasted, shared = _paste_donor(plan, fetch, classes, config, frames=frames, real_pixels=real_pixels, ids=ids)
        segments = (*segments, *pasted)
        overlaps = {**overlaps, **shared}
    return clip_tubes(ids, segments, classes, overlaps=overlaps)


def _draw_part(rng: np.random.Generator, video: StoredVideo, config: InputConfig, augment: AugmentConfig) -> Part:
    lengths = len(video.frames), config.clip_frames
    if config.reach:
        frames = sample_around(*lengths, rng, reach=config.reach, reverse=augment.reverse)
    else:
        frames = sample_clip(*lengths, rng, reverse=augment.reverse, official_compat=config.official_compat)
    return Part(video=video, frames=frames, transforms=_draw_transforms(rng, video, config, augment))


def _draw_transforms(rng: np.random.Generator, video: StoredVideo, config: InputConfig,
                     augment: AugmentConfig) -> tuple[Transform, ...]:
    size = (video.height, video.width)
    camera = config.pseudo_video
    if config.jitter_stills and len(video.frames) == 1:
        return draw_jitter(rng, augment, size, config.clip_frames)
    if camera and len(video.frames) == 1:
        return draw_camera_path(rng, camera, augment, size, config.clip_frames)
    if camera and camera.of_videos and rng.random() < camera.of_videos:
        return draw_camera_path(rng, replace(camera, angle=0.0), augment, size, 1) * config.clip_frames
    return (draw_transform(rng, augment, size),) * config.clip_frames


def _decode(part: Part, fetch: Fetch, *, out: np.ndarray, at: tuple[slice, slice]) -> list[np.ndarray]:
    """Write frames into `out`, t 3 H W. Returns the ids of each, at rows and columns `at`.

    Repeated frames are consecutive and decoded once.
    """
    ids: list[np.ndarray] = []
    before = None
    for position, (frame, transform, (jpeg, png)) in enumerate(zip(part.frames, part.transforms,
                                                                   fetch(part.video, part.frames))):
        if before == (frame, transform):
            out[position] = out[position - 1]
            ids.append(ids[-1])
            continue
        try:
            if before is None or before[0] != frame:
                image = decode_jpeg(jpeg)
                labels = decode_png(png)
            transform.image(image, out=out[position])
            ids.append(transform.ids(labels, at=at))
            before = frame, transform
        except ValueError as error:
            raise BadInput(getattr(error, "reason", "bad-frame"), f"frame {part.video.frames[frame].name!r}: {error}",
                           video=part.video.video_id, cure="Verify the shards; if they match the data set, leave the "
                           "video out.") from error
    return ids


def _paste_donor(plan: ClipPlan, fetch: Fetch, classes: ClassTable, config: InputConfig, *, frames: np.ndarray,
                 real_pixels: np.ndarray, ids: np.ndarray) -> tuple[list[Segment], Overlaps]:
    """Paste part of the donor over the clip, in place. Returns the pasted segments and overlaps, with new ids."""
    height, width = np.max([transform.resized for transform in plan.donor.transforms], axis=0).tolist()
    donor_frames = np.empty((*frames.shape[:2], height, width), dtype=np.uint8)
    donor_ids = _decode(plan.donor, fetch, out=donor_frames, at=(slice(height), slice(width)))
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
