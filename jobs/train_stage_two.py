"""Train the cross-clip head and learned links from the query cache alone: no frame is read, no segmenter is run.

In:     the query cache (jobs.cache_queries) and the finished segmenter (its heads are where the new ones start, unless
        stage_two.start_from names a finished head).
Out:    <folder>/stage_two/model: model.safetensors + model.json; checkpoints and progress.jsonl beside it. The same in
        <folder>/stage_two/links where the recipe has stage_two.links, which inference.association=links reads.
Again:  running it again resumes from the last checkpoint; a finished head of the same recipe is left alone.
Cost:   `tiny` under a minute on two CPU cores.

    python -m jobs.train_stage_two --recipe tiny
    python -m jobs.train_stage_two --recipe tiny --set stage_two.head.layers=6 --set folder=/data/runs/six_layers \\
        --set stage_one_from=/data/runs/tiny
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

from einops import rearrange
from torch import nn

from jobs.cache_queries import for_validation, open_cache
from jobs.cached_validation import validation_of
from jobs.cluster import connect
from jobs.console import say
from jobs.models import head_card, is_finished, load_segmenter, read_card, save_model, shapes_of, store_model
from jobs.recipes.schema import Recipe, StageTwoConfig
from jobs.start_weights import fill, refuse_unfit_starts
from jobs.train_links import train_links
from jobs.training.identity import plain
from jobs.training.trainer import Stage, TrainingJob, train
from jobs.verb import finish_recording, next_command, recorded, run
from model.cross_clip import CrossClipHead
from model.families import refuse_unfit_queries
from pipeline.at_work import alone_in
from pipeline.files import digest
from pipeline.query_cache import QueryCache, drawn_videos, query_batches, refuse_missing_columns, stored_shapes


def main(recipe: Recipe) -> dict[str, Any]:
    """Train and save the head and the links; returns where they lie. Waits for another verb that does."""
    with alone_in(recipe.run_folder / "stage_two", "jobs.train_stage_two"):
        return train_parts(recipe)


def train_parts(recipe: Recipe) -> dict[str, Any]:
    """Train what stage two has and what is not finished yet."""
    stage = recipe.stage_two
    if stage is None and recipe.head is not None:
        say(f"{recipe.name} trains its head in stage one: nothing to do")
        return {"model": str(recipe.head_folder), "resumed": True}
    if stage is None:
        raise ValueError(f"{recipe.name} has no stage two: no paper has a cross-clip head here. "
                         f"{next_command(recipe, 'train_stage_one')}")
    cache = open_cache(recipe)
    segmenter = read_card(recipe.segmenter_folder)
    if stage.head is not None and stage.validation is not None and stage.validation.every:
        open_cache(for_validation(recipe))      # before anything is trained
    refuse_unfit_cache(recipe, cache, segmenter)
    summary = {} if stage.head is None else train_head(recipe, cache, segmenter)
    if stage.links is not None:
        summary |= train_links(recipe, cache, segmenter)
    say(next_command(recipe, "train_stage_two"))
    return summary


def refuse_unfit_cache(recipe: Recipe, cache: QueryCache, segmenter: dict[str, Any]) -> None:
    """Raise ValueError, with the cure, where the cache does not hold what head and links read. segmenter: its card."""
    stage = recipe.stage_two
    if stage.head is not None:
        shapes = stored_shapes(cache, shapes_of(segmenter))
        refuse_unfit_queries(stage.head, shapes, setting="stage_two.head")
        refuse_missing_columns(cache, stage.head.reads.columns, setting="stage_two.head")
    if stage.links is not None:
        refuse_missing_columns(cache, stage.links.network.reads.columns, setting="stage_two.links")


def train_head(recipe: Recipe, cache: QueryCache, segmenter: dict[str, Any]) -> dict[str, Any]:
    """Train and save the cross-clip head; returns where it lies. segmenter: its card."""
    stage = head_stage(recipe)
    folder = recipe.head_folder
    identity = {"stage": stage, "cache": cache.fingerprint}
    if is_finished((folder,), identity):
        say(f"{folder} is finished: nothing to do")
        finish_recording(recipe, "train_stage_two", partial(store_model, folder))
        return {"model": str(folder), "resumed": True}
    cache.refuse_damage()
    refuse_unfit_starts(recipe, "stage_two")
    connect(recipe.cluster)
    say(*opening_lines(recipe, cache))
    with recorded(recipe, "train_stage_two", cache=cache.fingerprint) as tracker:
        tracker.json("manifest.json", cache.manifest)
        job = TrainingJob(build=partial(build_stage, recipe), folder=recipe.run_folder / "stage_two",
                          cluster=recipe.cluster, fit=stage.fit, record=tracker.record,
                          keeps_best=stage.validation is not None)
        weights = train(job, identity=identity)
        save_model(folder, weights, {**head_card(recipe, segmenter, cache.fingerprint),
                                     "identity": digest(plain(identity))})
        store_model(folder, tracker)
    say(f"head: {folder}")
    return {"model": str(folder), "steps": stage.fit.steps}


def head_stage(recipe: Recipe) -> StageTwoConfig:
    """What decides the weights of the head: links are trained apart, and scores that end no training only look on."""
    stage = replace(recipe.stage_two, links=None)
    return stage if stage.validation is not None and stage.validation.patience else replace(stage, validation=None)


def opening_lines(recipe: Recipe, cache: QueryCache) -> Iterator[str]:
    """What is read, and how many of its videos are left out. Raises ValueError, with the cure, if all of them are."""
    windows = recipe.stage_two.input
    left_out = len(cache.videos) - len(drawn_videos(cache, windows))
    yield (f"stage two of {recipe.name}: {len(cache.videos)} videos, {cache.manifest['totals']['clips']} clips, "
           f"{cache.manifest['totals']['bytes'] / 2**20:.1f} MiB in {cache.folder}")
    if left_out:
        yield f"videos never drawn, since no view of them fills a window of {windows.clips} clips: {left_out}"


def build_stage(recipe: Recipe) -> Stage:
    """Everything the loop needs, built inside a worker; the segmenter lends its heads and is dropped."""
    head = recipe.stage_two.head.build()        # before the segmenter, whose making draws random numbers too
    segmenter, _ = load_segmenter(recipe.segmenter_folder)
    return stage_on(recipe, head, open_cache(recipe), segmenter)


def stage_on(recipe: Recipe, head: CrossClipHead, cache: QueryCache, segmenter: nn.Module) -> Stage:
    """The stage of a new head on an open cache and the segmenter that filled it."""
    config = recipe.stage_two
    head.initialise_from(segmenter.state_dict())
    fill(head, recipe, "stage_two.start_from")
    criterion = config.losses.build()

    def losses_of(wrapped: nn.Module, batch):
        layers = wrapped(batch.queries)
        pixels = rearrange(batch.evidence.pixel_features, "b k p d -> b k d p")
        masks = [head.mask_logits(layer.mask_embeddings, pixels) for layer in layers]                  # b k n p each
        return criterion(layers, masks, batch.evidence, queries=batch.queries)

    def batches(rank: int, world: int, consumed: int):
        return query_batches(cache, config.input, rank=rank, world=world, consumed=consumed)

    return Stage(model=head, losses_of=losses_of, batches=batches, optimizer=config.optimizer, fit=config.fit,
                 batch_size=config.input.batch_size, validation=validation_of(recipe, segmenter))


if __name__ == "__main__":
    run(main, uses=("workers",))
