"""Training batches of stage two, read from the query cache alone: windows of clips as `VideoQueries` and evidence."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch

from model.contracts import PixelEvidence, VideoQueries
from model.labels import FIRST_OVERLAP
from pipeline.clips import count_windows, sample_around, starts_with_labels
from pipeline.query_cache.cache import QueryCache
from pipeline.query_cache.columns import SEEN, CachedClip
from pipeline.training_input import CLIP, SamplePlan, enough_samples, step_of


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryInputConfig:
    """The windows of clips on which stage two trains."""

    clips: int = 12                # per window; a shorter video repeats its last clip with weight 0
    reach: int = 0                 # clips of a window are at most this far from one of them; 0: consecutive clips
    sampling: Literal["videos", "windows"] = "videos"   # what is drawn equally often: a video, or a frame at which a
                                   # full window can start, so that videos shorter than a window are never drawn
    test_view: bool = True         # draw windows of the test-time view too; False: of augmented views alone
    batch_size: int = 16           # windows per step, all ranks together
    samples_per_video: int = 1     # windows drawn in an epoch from each video, or from each frame that is counted;
                                   # more where the set would not fill a batch
    reverse: float = 0.5           # probability of reading a window backwards in time
    seed: int = 0

    def __post_init__(self) -> None:
        if self.reach < 0:
            raise ValueError(f"stage_two.input.reach is {self.reach}; give a number of clips, or 0 for neighbours")
        if self.reach and self.sampling == "windows":
            raise ValueError(f"stage_two.input.reach={self.reach} draws the clips of a window around one of them, and "
                             "stage_two.input.sampling=windows draws neighbours; set reach=0 or sampling=videos")
        if self.clips < 1 or self.batch_size < 1 or self.samples_per_video < 1:
            raise ValueError("stage_two.input.clips, batch_size and samples_per_video must be at least 1, got "
                             f"{self.clips}, {self.batch_size}, {self.samples_per_video}")


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryBatch:
    """A batch of windows: b videos with k clips each."""

    queries: VideoQueries
    evidence: PixelEvidence
    videos: tuple[str, ...]
    samples: tuple[int, ...]

    def to(self, device) -> QueryBatch:
        """The same batch on another device."""
        return QueryBatch(queries=self.queries.to(device), evidence=self.evidence.to(device), videos=self.videos,
                          samples=self.samples)


def query_batches(cache: QueryCache, config: QueryInputConfig, *, rank: int = 0, world: int = 1,
                  consumed: int = 0) -> Iterator[QueryBatch]:
    """Endless batches of this rank, epoch after epoch, starting after `consumed` samples of the whole run.

    The window of a sample depends only on (seed, epoch, sample), so it is the same for any number of ranks and after a
    resume. Raises ValueError when no video has a window to draw.
    """
    drawn = drawn_videos(cache, config)
    per_video = enough_samples(config.samples_per_video, videos=drawn.samples, clips=config.batch_size)
    plan = SamplePlan(count=drawn.samples, global_batch=config.batch_size, seed=config.seed,
                      samples_per_video=per_video)
    for step in itertools.count(step_of(consumed, config.batch_size)):
        draws = plan.batch(step, rank=rank, world=world)
        windows = [_window(cache, drawn.views_of(draw.video), config, draw.random(config.seed, CLIP)) for draw in draws]
        yield collate(windows, tuple(draw.position for draw in draws))


@dataclass(frozen=True, slots=True, kw_only=True)
class DrawnVideos:
    """The videos from which windows are drawn, as columns. A video counts as one sample, or as several."""

    views: np.ndarray       # of all videos, one video after another: positions in `cache.groups`
    starts: np.ndarray      # of each video: its first view in `views`
    ends: np.ndarray        # of each video: the number of samples up to its last one

    def __len__(self) -> int:
        return len(self.starts)

    @property
    def samples(self) -> int:
        """The number of samples of all videos."""
        return int(self.ends[-1]) if len(self) else 0

    def views_of(self, sample: int) -> np.ndarray:
        """The views of the video of a sample."""
        video = int(np.searchsorted(self.ends, sample, side="right"))
        return self.views[self.starts[video]:self.starts[video + 1] if video + 1 < len(self) else None]


def drawn_videos(cache: QueryCache, config: QueryInputConfig) -> DrawnVideos:
    """The videos with a view that has a window to draw, and how many windows each counts as.

    Raises ValueError, with the cure, if there is none.
    """
    table = cache.groups
    is_drawn = np.full(len(table), True) if config.test_view else table.view > 0
    if len(table) and not is_drawn.any():
        raise ValueError(f"the cache {cache.folder} has no augmented view; set cache.views to 2 or more and run "
                         "jobs.cache_queries, or set stage_two.input.test_view=true")
    frames = config.clips * cache.manifest["made_from"]["clip_frames"]
    if config.sampling == "windows":
        is_drawn = is_drawn & (table.full >= config.clips)
        if len(table) and not is_drawn.any():
            raise ValueError(f"all {len(cache.videos)} videos are shorter than a window of {config.clips} clips, "
                             f"{frames} frames; set a smaller stage_two.input.clips, or "
                             "stage_two.input.sampling=videos to draw shorter ones too")
    views = np.flatnonzero(is_drawn)
    before = np.concatenate([[0], np.cumsum(is_drawn)])[table.starts]       # drawn views before each video, and of all
    starts = before[:-1][before[1:] > before[:-1]]
    counts = np.ones(len(starts), np.int64)
    if config.sampling == "windows" and len(views):
        counts = np.maximum(np.maximum.reduceat(table.frames[views], starts).astype(np.int64) - (frames - 1), 0)
    return DrawnVideos(views=views, starts=starts, ends=np.cumsum(counts))


def _window(cache: QueryCache, groups: Sequence[int], config: QueryInputConfig,
            rng: np.random.Generator) -> list[CachedClip | None]:
    """`clips` clips of one view; None stands for a repeated clip without evidence.

    At least one of them shows a frame with a label, where the view has any.
    """
    group = int(groups[rng.integers(len(groups))])
    clips = cache.read(group)
    labelled = [index for index, clip in enumerate(clips) if clip.pixel_weights.any()]
    if config.reach:
        drawn = sample_around(len(clips), config.clips, rng, reach=config.reach, reverse=config.reverse,
                              labelled=labelled)
        return [clips[clip] if drawn[0] <= drawn[-1] else backwards(clips[clip]) for clip in drawn]
    usable = len(clips) if config.sampling == "videos" else int(cache.groups.full[group])
    starts = range(max(count_windows(usable, config.clips), 1))
    starts = starts_with_labels(starts, labelled, len(clips), config.clips) or starts
    start = starts[rng.integers(len(starts))]
    window: list[CachedClip | None] = list(clips[start:start + config.clips])
    if rng.random() < config.reverse:
        window = [backwards(clip) for clip in reversed(window)]
    return window + [None] * (config.clips - len(window))


def backwards(clip: CachedClip) -> CachedClip:
    """The clip as it is read backwards in time: only `places` has an order of frames."""
    return clip if clip.places is None else replace(clip, places=clip.places[:, ::-1])


def collate(windows: Sequence[Sequence[CachedClip | None]], samples: tuple[int, ...]) -> QueryBatch:
    """Windows with equally many clips -> one batch. Tubes without a pixel in their window are not targets there."""
    filled = [[clip or last for clip in window] for window in windows
              for last in [next(c for c in reversed(window) if c is not None)]]
    present = [_present(window) for window in windows]
    weights = [[clip.pixel_weights * (real is not None) for clip, real in zip(full, window)]
               for full, window in zip(filled, windows)]
    areas = [np.stack([clip.tube_areas[kept] * (real is not None) for clip, real in zip(full, window)])
             for full, window, kept in zip(filled, windows, present)]
    evidence = PixelEvidence(
        pixel_features=_stack(filled, "pixel_features"),                                           # b k p d
        tubes=torch.from_numpy(np.stack([[_renumber(clip, kept) for clip in full]
                                         for full, kept in zip(filled, present)])),                # b k p
        weights=torch.from_numpy(np.stack(weights).astype(np.float32)),
        classes=tuple(torch.from_numpy(full[0].tube_classes[kept].astype(np.int64))
                      for full, kept in zip(filled, present)),
        areas=tuple(torch.from_numpy(area.astype(np.float32)) for area in areas),
        overlaps=_overlaps([full[0] for full in filled], present),
    )
    queries = VideoQueries(queries=_stack(filled, "queries"), mask_embeddings=_stack(filled, "mask_embeddings"),
                           class_logits=_stack(filled, "class_logits"), **_seen(filled))
    return QueryBatch(queries=queries, evidence=evidence, videos=tuple(full[0].video_id for full in filled),
                      samples=samples)


def _present(window: Sequence[CachedClip | None]) -> np.ndarray:
    """Positions of the tubes that have a pixel in the window."""
    return np.flatnonzero(sum(clip.tube_areas for clip in window if clip is not None))


def _renumber(clip: CachedClip, kept: np.ndarray) -> np.ndarray:
    """Tube of each pixel as a position in `kept`; values below 0 (void, overlaps) do not change."""
    position = np.full(len(clip.tube_ids), -1, np.int64)
    position[kept] = np.arange(len(kept))
    below = np.arange(FIRST_OVERLAP - len(clip.tube_overlaps) + 1, 0)       # indexed from the end
    return np.concatenate([position, below])[clip.pixel_tubes]


def _overlaps(clips: Sequence[CachedClip], present: Sequence[np.ndarray]) -> tuple[torch.Tensor, ...]:
    """For each of b videos, s m bool: whether a tube of the window is in an overlap; () if no video has overlaps."""
    if not any(clip.tube_overlaps for clip in clips):
        return ()
    tables = [np.array([np.isin(kept, members) for members in clip.tube_overlaps], bool).reshape(-1, len(kept))
              for clip, kept in zip(clips, present)]
    return tuple(map(torch.from_numpy, tables))


def _seen(windows: Sequence[Sequence[CachedClip]]) -> dict[str, torch.Tensor]:
    """The columns that learned links read, where all clips have them."""
    complete = all(clip.places is not None and clip.looks is not None for window in windows for clip in window)
    return {name: _stack(windows, name) for name in SEEN if complete}


def _stack(windows: Sequence[Sequence[CachedClip]], name: str) -> torch.Tensor:
    return torch.from_numpy(np.stack([[getattr(clip, name) for clip in window] for window in windows])
                            .astype(np.float32))
