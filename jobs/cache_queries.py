"""Run the frozen segmenter over all videos once and keep, per clip, what stage two needs: the query cache.

In:     the finished segmenter (jobs.train_stage_one) and shards.
Out:    <folder>/cache/<fingerprint>: one Parquet part per shard and view, manifest.json last.
Again:  finished parts are kept; missing ones, and those that lack a video, are made. Another segmenter, other shards or
        other settings have another fingerprint and so another folder. What another cache of the run already holds is
        linked, not made: with more views, only the new ones are.
Cost:   one pass of inference over the train split, `cache.views` times.

    python -m jobs.cache_queries --recipe tiny
    python -m jobs.cache_queries --recipe tiny --set cache.views=3 --set cache.evidence.pixels=1024
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from jobs.cluster import connect, results_of
from jobs.config import to_json
from jobs.console import say
from jobs.models import known_classes, open_system, read_card, refuse_other_weights
from jobs.recipes.schema import CacheConfig, Recipe
from jobs.verb import next_command, recorded, run
from model.contracts import ClipPrediction
from model.inference import Aligned, QueryCollector, make_results
from pipeline.at_work import alone_in
from pipeline.clips import StoredVideoSource, video_clips
from pipeline.errors import BadInput, Mismatch
from pipeline.outcomes import Outcomes, VideoOutcome
from pipeline.progress import Progress, Report, Watch, unwatched
from pipeline.query_cache import (
    CachedClip,
    CacheWriter,
    EvidenceConfig,
    EvidenceRecorder,
    PlainReader,
    QueryCache,
    ViewClip,
    ViewConfig,
    ViewReader,
    bytes_of_clip,
    draw_view,
    fingerprint,
    finish_cache,
    part_outcomes,
    stored_summaries,
)
from pipeline.shards import ShardSet, StoredVideo, StoredVideos
from pipeline.system import System
from pipeline.together import Walk, walks_together
from pipeline.training_input import VIEW, random_stream, read_frames

ViewWalk = Walk[PlainReader | ViewReader, ViewClip]

# Fields of the cache and its augmentation that the first caches had. A later one is left out of the fingerprint while
# it has its default, so that a cache made before there was such a field is still found.
FIRST_FIELDS = {"splits", "views", "augment", "evidence", "dtype", "seed",
                "size", "short_side", "scale", "crop", "flip", "reverse", "color", "pixels", "strategy"}


def main(recipe: Recipe) -> dict[str, Any]:
    """Fill the cache; returns where it lies and how large it is. Waits for another verb that fills it."""
    if recipe.stage_two is None:
        raise ValueError(f"{recipe.name} has no stage two, so nothing would read the cache; "
                         f"{next_command(recipe, 'train_stage_one')}")
    summary = fill_cache(recipe)
    if recipe.stage_two.validation is not None:
        summary["validation"] = fill_cache(for_validation(recipe), verb="cache_validation")
    say(next_command(recipe, "cache_queries"))
    return summary


def for_validation(recipe: Recipe) -> Recipe:
    """The same run with the cache from which heads are scored in place of that from which they are trained."""
    evidence = EvidenceConfig(pixels=recipe.stage_two.validation.pixels, strategy="uniform", stride=1)
    cache = CacheConfig(splits=(recipe.evaluation.split,), evidence=evidence, dtype=recipe.cache.dtype,
                        seed=recipe.cache.seed)
    two = replace(recipe.stage_two, input=replace(recipe.stage_two.input, test_view=True), links=None)
    return replace(recipe, cache=cache, stage_two=two)      # which may ask for views that this cache has not


def fill_cache(recipe: Recipe, *, verb: str = "cache_queries") -> dict[str, Any]:
    """Make what the cache of a recipe lacks; returns where it lies and how large it is. verb: name of the record."""
    with alone_in(cache_folder(recipe), "jobs.cache_queries"):
        return make_parts(recipe, cache_folder(recipe), verb=verb)


def make_parts(recipe: Recipe, folder: Path, *, verb: str) -> dict[str, Any]:
    """Make the parts that the folder lacks, and its manifest."""
    source = cache_source(recipe)
    sets = {split: ShardSet(recipe.shards_of(split)) for split in recipe.cache.splits}
    for shard_set in sets.values():
        known_classes(recipe.segmenter_folder, expected=shard_set.classes)
    shards = [(split, shard) for split in sets for shard in range(len(sets[split].manifest["shards"]))]
    rows = [{"split": split, "shard": shard, "part": part} for part, (split, shard) in enumerate(shards)]
    say(*expected_size(recipe, [shard_set.videos for shard_set in sets.values()]))
    files: list[str] = []
    totals = Counter()
    videos = sum(len(shard_set.videos) for shard_set in sets.values())
    with Progress("caching", videos, passes=recipe.cache.views) as progress:
        connect(recipe.cluster)
        started = time.perf_counter()
        with recorded(recipe, verb, segmenter=source["segmenter"], cache=fingerprint(source)) as tracker:
            outcomes = Outcomes(progress, counts_only=True)
            for made in results_of(CacheShard, rows, arguments={"recipe": recipe}, cluster=recipe.cluster,
                                   report=progress.report):
                for part in made["parts"]:
                    files.append(part["file"])
                    totals.update({name: part[name] for name in ("clips", "bytes")})
                outcomes.add(part_outcomes(made["parts"]))
            outcomes.refuse_nothing_done(recipe.shards_run / "shards")
            manifest = finish_cache(folder, source, stored_summaries(folder, files))
            tracker.file(manifest)
            tracker.numbers(0, {**totals, "skipped": len(outcomes.skipped), "seconds": time.perf_counter() - started})
    unlabelled = sum(int((shard_set.videos.labels == 0).sum()) for shard_set in sets.values())
    say(f"cache: {totals['clips']} clips, {totals['bytes'] / 2**20:.1f} MiB in {folder}", *outcomes.skipped_lines(),
        *([f"left out: {unlabelled} videos without labels"] if unlabelled else []))
    return {"cache": str(folder), **totals, "skipped": len(outcomes.skipped)}


def expected_size(recipe: Recipe, sets: Sequence[StoredVideos]) -> Iterator[str]:
    """How many clips the cache will have, and about how many bytes; said before the first one is made."""
    card = read_card(recipe.segmenter_folder)
    frames = recipe.inference.clip_frames or card["clip_frames"]
    cache = recipe.cache
    clips = cache.views * sum(int((-(-videos.frames[videos.labels > 0] // frames)).sum(dtype=int)) for videos in sets)
    sides = card["input_size"] or max(size for videos in sets for size in videos.sizes)
    pixels = frames * math.prod(-(-side // cache.evidence.stride) for side in sides)
    if cache.evidence.strategy != "dense":
        pixels = min(pixels, cache.evidence.pixels)
    bytes_of_each = bytes_of_clip(recipe.stage_one.segmenter.shapes, frames=frames, pixels=pixels,
                                  floats=np.dtype(cache.dtype), in_8_bits=cache.features_in_8_bits)
    yield (f"caching {clips:,} clips in {cache.views} view{'s' * (cache.views > 1)} of "
           f"{sum(map(len, sets)):,} videos: about "
           f"{bytes_of_each / 1000:,.1f} kB a clip, {clips * bytes_of_each / 1e9:,.2f} GB in all, "
           f"{clips * bytes_of_each / cache.views / 1e9:,.2f} GB a view")


def expected_source(recipe: Recipe, *, views: int | None = None, splits: tuple[str, ...] = ()) -> dict[str, Any]:
    """What stage two can ask of a cache without a shard in sight: segmenter, its input, the cache's settings.

    views, splits: of a smaller cache with the same settings, which this one contains.
    """
    card = read_card(recipe.segmenter_folder)
    views = views or recipe.cache.views
    cache = replace(recipe.cache, views=views, splits=splits or recipe.cache.splits,
                    augment=view_config(recipe).augment)
    if views == 1:      # nothing is drawn for the test-time view
        cache = replace(cache, augment=None, copy_paste=None, window_frames=0)
    resize = recipe.inference.resize
    precision = recipe.inference.precision
    # Earlier caches lack these fields: they were made in fp32, at the size of the network input.
    later = {"precision": None if precision == "fp32" else precision,
             "resize": None if resize is None else to_json(resize)}
    return {"segmenter": card["weights_sha256"], "input_size": card["input_size"],
            "cache": _without_new_defaults(cache), "enlarge": recipe.inference.enlarge,
            "clip_frames": recipe.inference.clip_frames or card["clip_frames"],
            **{name: value for name, value in later.items() if value is not None}}


def view_config(recipe: Recipe) -> ViewConfig:
    """How the augmented views are drawn."""
    cache = recipe.cache
    return ViewConfig(augment=cache.augment or recipe.stage_one.input.augment, copy_paste=cache.copy_paste,
                      window_frames=cache.window_frames)


def _without_new_defaults(config: Any) -> dict[str, Any]:
    """A configuration of the cache as JSON, without later fields that have their defaults."""
    values = to_json(config)
    for field in fields(config):
        value = getattr(config, field.name)
        if field.name not in FIRST_FIELDS and value == field.default:
            del values[field.name]
        elif field.name in ("augment", "evidence") and value is not None:
            values[field.name] = _without_new_defaults(value)
    return values


def cache_folder(recipe: Recipe) -> Path:
    """Where the cache of this segmenter with these settings lies."""
    return recipe.stage_one_run / "cache" / fingerprint(expected_source(recipe))[:16]


def cache_source(recipe: Recipe) -> dict[str, Any]:
    """Everything that decides the content of the cache, the shards included; its digest is the fingerprint."""
    shards = {split: ShardSet(recipe.shards_of(split)).fingerprint for split in recipe.cache.splits}
    return {**expected_source(recipe), "shards": shards}


def open_cache(recipe: Recipe) -> QueryCache:
    """The cache this recipe expects. Raises Mismatch naming the fields in which the caches that lie there differ."""
    folder = cache_folder(recipe)
    expected = expected_source(recipe)
    others = sorted(folder.parent.glob("*/manifest.json"))
    if not (folder / "manifest.json").is_file() and others:
        folder = others[-1].parent      # of which the error tells how it differs from what is expected
    try:
        return QueryCache(folder, expected=expected)
    except Mismatch as error:
        if (recipe.segmenter_folder / "model.safetensors").is_file():
            refuse_other_weights(recipe.segmenter_folder)       # a card of another segmenter is the reason then
        raise Mismatch(f"{error} That of this run is described by {recipe.segmenter_folder / 'model.json'}.") from None


class CacheShard:
    """Ray Data actor: one shard in, one Parquet part out for each view."""

    def __init__(self, *, recipe: Recipe, system: System | None = None, report: Report = unwatched) -> None:
        """system: that of the recipe, where it is open already."""
        self.recipe = recipe
        self.report = report
        self.system = system or open_system(recipe, "near_online")
        self.source = cache_source(recipe)

    def __call__(self, *, split: str, shard: int, part: int) -> dict[str, Any]:
        """Cache all views of one shard as parts number `part`; returns their summaries, "parts"."""
        shards = ShardSet(self.recipe.shards_of(split))
        return {"parts": [self.part(shards, shard, part, view, split=split)
                          for view in range(self.recipe.cache.views)]}

    def part(self, shards: ShardSet, shard: int, part: int, view: int, *, split: str) -> dict[str, Any]:
        """Cache one view of one shard; returns the part's summary, with what was skipped and why.

        The fingerprint is that of the smallest cache which holds this part: of its split alone, up to this view.
        """
        source = {**expected_source(self.recipe, views=view + 1, splits=(split,)),
                  "shards": {split: self.source["shards"][split]}}
        writer = CacheWriter(cache_folder(self.recipe), part, view=view, dtype=self.recipe.cache.dtype,
                             fingerprint=fingerprint(source),
                             columns=self.recipe.stage_two.columns,
                             in_8_bits=self.recipe.cache.features_in_8_bits)
        known = writer.finished()
        if known is not None and not known["skipped"]:      # what was skipped may have been repaired since
            return known
        skipped = []
        try:
            videos = list(shards.with_labels().videos.of_shard(shard))
            with self.walks(shards, videos, view) as walks:
                for video, walk in zip(videos, walks):
                    try:
                        with Watch(video.video_id, self.report) as watch:
                            writer.add(self.cached(shards, video, view, walk, watch))
                    except BadInput as error:
                        if self.recipe.strict:
                            raise
                        skipped.append(VideoOutcome.skip(video.video_id, error))
            return writer.close(skipped=skipped)
        except BaseException:
            writer.abandon()
            raise

    def clips(self, shards: ShardSet, video: StoredVideo, view: int) -> list[CachedClip]:
        """One view of one video, as it is cached."""
        with self.walks(shards, [video], view) as (walk,), Watch(video.video_id, unwatched) as watch:
            return self.cached(shards, video, view, walk, watch)

    def walks(self, shards: ShardSet, videos: Sequence[StoredVideo], view: int
              ) -> AbstractContextManager[list[ViewWalk]]:
        """One view of each video in the segmenter; clips of different videos share batches."""
        opens = [partial(self.reader, shards, video, view) for video in videos]
        return walks_together(self.system, opens, lambda reader: reader.clips(), places=True)

    def cached(self, shards: ShardSet, video: StoredVideo, view: int, walk: ViewWalk, watch: Watch
               ) -> list[CachedClip]:
        """One view of one video, aligned as the head wants it and with its pixel evidence."""
        cache = self.recipe.cache
        recorder = EvidenceRecorder(video, shards.classes, view=view, config=cache.evidence, seed=cache.seed,
                                    segments=walk.source.segments, overlaps=walk.source.overlaps)
        clips = watch.over(f"view {view + 1} of {cache.views},", walk, len(video.frames),
                           frames=lambda pair: pair[0].valid)

        def passing() -> Iterator[tuple[ClipPrediction, int]]:
            for clip, prediction in clips:
                recorder.add(clip.ids, prediction.pixel_features[0], start=clip.start, valid=clip.valid,
                             geometry=clip.geometry)
                yield prediction, clip.valid

        queries = make_results(passing(), [Aligned([QueryCollector()])], num_classes=len(shards.classes))["queries"]
        return list(recorder.clips(queries))

    def reader(self, shards: ShardSet, video: StoredVideo, view: int) -> PlainReader | ViewReader:
        """A view of a video. What is drawn for an augmented one depends only on the seed, the view and the video."""
        length = self.system.clip_length
        if view == 0:
            clips = video_clips(StoredVideoSource(shards, video), length, self.system.resize)
            return PlainReader(video, clips, whole=self.recipe.cache.evidence.stride == 1)
        rng = random_stream(self.recipe.cache.seed, VIEW, epoch=view, index=video.index)
        drawn = draw_view(rng, video, shards.videos, view_config(self.recipe), clip_frames=length)
        return ViewReader(drawn, partial(read_frames, shards), shards.classes, rng, clip_frames=length)


if __name__ == "__main__":
    run(main, uses=("pool",))
