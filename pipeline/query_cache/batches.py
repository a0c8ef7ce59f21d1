"""Training batches of stage two, read from the query cache alone: windows of clips as `VideoQueries` and evidence."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from model.contracts import PixelEvidence, VideoQueries
from model.labels import FIRST_OVERLAP
from pipeline.query_cache.cache import CachedClip, QueryCache
from pipeline.training_input import CLIP, SamplePlan, step_of


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryInputConfig:
    """The windows of clips on which stage two trains."""

    clips: int = 12                # per window; a shorter video repeats its last clip with weight 0
    batch_size: int = 16           # windows per step, all ranks together
    samples_per_video: int = 1     # windows of each video in an epoch
    reverse: float = 0.5           # probability of reading a window backwards in time
    seed: int = 0

    def __post_init__(self) -> None:
        if self.clips < 1 or self.batch_size < 1 or self.samples_per_video < 1:
            raise ValueError("clips, batch_size and samples_per_video must be at least 1, got "
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
        moved = VideoQueries(queries=self.queries.queries.to(device),
                             mask_embeddings=self.queries.mask_embeddings.to(device),
                             class_logits=self.queries.class_logits.to(device))
        return QueryBatch(queries=moved, evidence=self.evidence.to(device), videos=self.videos, samples=self.samples)


def query_batches(cache: QueryCache, config: QueryInputConfig, *, rank: int = 0, world: int = 1,
                  consumed: int = 0) -> Iterator[QueryBatch]:
    """Endless batches of this rank, epoch after epoch, starting after `consumed` samples of the whole run.

    The window of a sample depends only on (seed, epoch, sample), so it is the same for any number of ranks and after a
    resume.
    """
    videos = list(cache.videos.values())
    plan = SamplePlan(count=len(videos), global_batch=config.batch_size, seed=config.seed,
                      samples_per_video=config.samples_per_video)
    for step in itertools.count(step_of(consumed, config.batch_size)):
        draws = plan.batch(step, rank=rank, world=world)
        windows = [_window(cache, videos[draw.video], config, draw.random(config.seed, CLIP)) for draw in draws]
        yield collate(windows, tuple(draw.position for draw in draws))


def _window(cache: QueryCache, groups: Sequence[int], config: QueryInputConfig,
            rng: np.random.Generator) -> list[CachedClip | None]:
    """`clips` consecutive clips of one view; None stands for a repeated clip without evidence."""
    clips = cache.read(groups[rng.integers(len(groups))])
    start = int(rng.integers(max(len(clips) - config.clips, 0) + 1))
    window: list[CachedClip | None] = list(clips[start:start + config.clips])
    if rng.random() < config.reverse:
        window.reverse()
    return window + [None] * (config.clips - len(window))


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
                           class_logits=_stack(filled, "class_logits"))
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


def _stack(windows: Sequence[Sequence[CachedClip]], name: str) -> torch.Tensor:
    return torch.from_numpy(np.stack([[getattr(clip, name) for clip in window] for window in windows])
                            .astype(np.float32))
