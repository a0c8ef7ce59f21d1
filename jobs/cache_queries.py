"""Run the frozen segmenter over all videos once and keep, per clip, what stage two needs: the query cache.

In:     the finished segmenter (jobs.train_stage_one) and shards.
Out:    <folder>/cache/<fingerprint>: one Parquet part per shard and view set, manifest.json last.
Again:  finished parts are kept; missing ones, and those that lack a video, are made. Another segmenter, other shards or
        other settings have another fingerprint and so another folder.
Cost:   one pass of inference over the train split, `cache.views` times.

    python -m jobs.cache_queries --recipe tiny
    python -m jobs.cache_queries --recipe tiny --set cache.views=3 --set cache.evidence.pixels=1024
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from jobs.cluster import connect, results_of
from jobs.config import to_json
from jobs.console import say
from jobs.models import known_classes, open_system, read_card
from jobs.recipes.schema import Recipe
from jobs.verb import next_command, recorded, run
from model.contracts import ClipPrediction
from model.inference import Aligned, QueryCollector, make_results
from pipeline.clips import StoredVideoSource, Transform, draw_transform
from pipeline.errors import BadInput
from pipeline.outcomes import Outcomes, VideoOutcome
from pipeline.progress import Progress
from pipeline.query_cache import CachedClip, CacheWriter, EvidenceRecorder, fingerprint, finish_cache, part_outcomes
from pipeline.shards import ShardSet, StoredVideo
from pipeline.training_input import VIEW, at_stride_4, random_stream


def main(recipe: Recipe) -> dict[str, Any]:
    """Fill the cache; returns where it lies and how large it is."""
    if recipe.stage_two is None:
        raise ValueError(f"{recipe.name} has no stage two, so nothing would read the cache; "
                         f"{next_command(recipe, 'train_stage_one')}")
    source = cache_source(recipe)
    folder = cache_folder(recipe)
    sets = {split: ShardSet(recipe.shards_of(split)) for split in recipe.cache.splits}
    for shard_set in sets.values():
        known_classes(recipe.segmenter_folder, expected=shard_set.classes)
    shards = [(split, shard) for split in sets for shard in range(len(sets[split].manifest["shards"]))]
    rows = [{"split": split, "shard": shard, "part": part} for part, (split, shard) in enumerate(shards)]
    connect(recipe.cluster)
    folder.mkdir(parents=True, exist_ok=True)
    summaries = []
    started = time.perf_counter()
    with recorded(recipe, "cache_queries", segmenter=source["segmenter"], cache=fingerprint(source)) as tracker:
        with Progress("caching", sum(len(shard_set.videos) for shard_set in sets.values())) as progress:
            outcomes = Outcomes(progress)
            for summary in results_of(CacheShard, rows, arguments={"recipe": recipe}, cluster=recipe.cluster):
                summaries.append(summary)
                outcomes.add(part_outcomes(summary))
        outcomes.refuse_nothing_done(recipe.stage_one_run / "shards")
        manifest = finish_cache(folder, source, summaries)
        totals = {key: sum(s[key] for s in summaries) for key in ("clips", "bytes")}
        tracker.file(manifest)
        tracker.numbers(0, {**totals, "skipped": len(outcomes.skipped), "seconds": time.perf_counter() - started})
    say(f"cache: {totals['clips']} clips, {totals['bytes'] / 2**20:.1f} MiB in {folder}", *outcomes.skipped_lines(),
        next_command(recipe, "cache_queries"))
    return {"cache": str(folder), **totals, "skipped": len(outcomes.skipped)}


def expected_source(recipe: Recipe) -> dict[str, Any]:
    """What stage two can ask of a cache without a shard in sight: segmenter, its input, the cache's settings."""
    card = read_card(recipe.segmenter_folder)
    cache = recipe.cache
    augment = None if cache.views == 1 else cache.augment or recipe.stage_one.input.augment
    resize = recipe.inference.resize
    precision = recipe.inference.precision
    # Earlier caches lack these fields: they were made in fp32, at the size of the network input.
    later = {"precision": None if precision == "fp32" else precision,
             "resize": None if resize is None else to_json(resize)}
    return {"segmenter": card["weights_sha256"], "input_size": card["input_size"],
            "cache": to_json(replace(cache, augment=augment)), "enlarge": recipe.inference.enlarge,
            "clip_frames": recipe.inference.clip_frames or card["clip_frames"],
            **{name: value for name, value in later.items() if value is not None}}


def cache_folder(recipe: Recipe) -> Path:
    """Where the cache of this segmenter with these settings lies."""
    return recipe.stage_one_run / "cache" / fingerprint(expected_source(recipe))[:16]


def cache_source(recipe: Recipe) -> dict[str, Any]:
    """Everything that decides the content of the cache, the shards included; its digest is the fingerprint."""
    shards = {split: ShardSet(recipe.shards_of(split)).fingerprint for split in recipe.cache.splits}
    return {**expected_source(recipe), "shards": shards}


class CacheShard:
    """Ray Data actor: one shard in, one Parquet part out."""

    def __init__(self, *, recipe: Recipe) -> None:
        self.recipe = recipe
        self.system = open_system(recipe, "near_online")
        self.source = cache_source(recipe)

    def __call__(self, *, split: str, shard: int, part: int) -> dict[str, Any]:
        """Cache one shard as part number `part`; returns the part's summary, with what was skipped and why."""
        shards = ShardSet(self.recipe.shards_of(split))
        writer = CacheWriter(cache_folder(self.recipe), part, dtype=self.recipe.cache.dtype,
                             fingerprint=fingerprint(self.source))
        known = writer.finished()
        if known is not None and not known["skipped"]:      # what was skipped may have been repaired since
            return known
        skipped = []
        try:
            for video in (v for v in shards.videos if v.shard == shard):
                try:
                    for view in range(self.recipe.cache.views):
                        writer.add(self.clips(shards, video, view))
                except BadInput as error:
                    if self.recipe.strict:
                        raise
                    skipped.append(VideoOutcome.skip(video.video_id, error))
            return writer.close(skipped=skipped)
        except BaseException:
            writer.abandon()
            raise

    def clips(self, shards: ShardSet, video: StoredVideo, view: int) -> list[CachedClip]:
        """One view of one video, aligned as the head wants it and with its pixel evidence."""
        cache = self.recipe.cache
        recorder = EvidenceRecorder(video, shards.classes, view=view, config=cache.evidence, seed=cache.seed)
        source = StoredVideoSource(shards, video)

        def passing() -> Iterator[tuple[ClipPrediction, int]]:
            for clip, prediction in self.system.clip_predictions(source, transform=self.transform(video, view)):
                recorder.add(at_stride_4(clip.ids), prediction.pixel_features[0], start=clip.indices[0],
                             valid=clip.valid)
                yield prediction, clip.valid

        queries = make_results(passing(), [Aligned([QueryCollector()])], num_classes=len(shards.classes))["queries"]
        return list(recorder.clips(queries))

    def transform(self, video: StoredVideo, view: int) -> Transform | None:
        """The geometry and colours of a view, drawn once for the whole video; none for the test-time view."""
        if view == 0:
            return None
        cache = self.recipe.cache
        rng = random_stream(cache.seed, VIEW, epoch=view, index=video.index)
        return draw_transform(rng, cache.augment or self.recipe.stage_one.input.augment, (video.height, video.width))


if __name__ == "__main__":
    run(main)
