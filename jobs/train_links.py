"""Trains learned links from the query cache alone: the small part of stage two that `stage_two.links` describes.

It takes seconds, so it runs in the process of the verb (jobs.train_stage_two), whatever the cluster is.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from einops import rearrange
from torch import Tensor, nn

from jobs.console import say
from jobs.models import is_finished, links_card, load_segmenter, read_card, save_model, store_model
from jobs.recipes.schema import Recipe
from jobs.training.identity import plain
from jobs.training.trainer import Stage, TrainingJob, train
from jobs.verb import finish_recording, recorded
from model.labels import ClassTable
from model.losses.links import link_loss, shown_tubes, tube_weights
from pipeline.files import digest
from pipeline.query_cache import QueryCache, query_batches, refuse_missing_columns

SAMPLED_VIEWS = 256     # from which mean and deviation of mask embeddings are taken


def train_links(recipe: Recipe, cache: QueryCache, segmenter: dict[str, Any]) -> dict[str, Any]:
    """Train and save the links; returns where they lie. segmenter: its card.

    Raises ValueError, with the cure, for a cache of an earlier version, which lacks places and looks.
    """
    config = recipe.stage_two.links
    folder = recipe.links_folder
    refuse_missing_columns(cache, config.network.reads.columns, setting="stage_two.links")
    identity = {"stage": config, "cache": cache.fingerprint}
    if is_finished((folder,), identity):
        say(f"{folder} is finished: nothing to do")
        finish_recording(recipe, "train_links", partial(store_model, folder))
        return {"links": str(folder)}
    cache.refuse_damage()
    with recorded(recipe, "train_links", cache=cache.fingerprint) as tracker:
        job = TrainingJob(build=partial(build_links, recipe, cache), folder=folder.parent, fit=config.fit,
                          cluster=replace(recipe.cluster, in_process=True), record=tracker.record,
                          setting="stage_two.links")
        weights = train(job, identity=identity)
        save_model(folder, weights, {**links_card(recipe, config.network, segmenter, cache.fingerprint),
                                     "identity": digest(plain(identity))})
        store_model(folder, tracker)
    say(f"links: {folder}")
    return {"links": str(folder)}


def build_links(recipe: Recipe, cache: QueryCache) -> Stage:
    """Everything the loop needs."""
    segmenter, _ = load_segmenter(recipe.segmenter_folder)
    return links_on(recipe, cache, segmenter)


def links_on(recipe: Recipe, cache: QueryCache, segmenter: nn.Module) -> Stage:
    """The stage of new links. The segmenter, which filled the cache, lends its masks on the stored pixels."""
    config = recipe.stage_two.links
    is_thing = torch.tensor(ClassTable.from_json(read_card(recipe.segmenter_folder)["classes"]).is_thing)
    compete = recipe.family.masks_compete
    embeddings = sample_embeddings(cache, least_sure=config.network.least_sure)
    network = config.network.build(embedding=embeddings.shape[1])
    network.standardise_by(embeddings)

    def losses_of(wrapped: nn.Module, batch) -> dict[str, Tensor]:
        queries = batch.queries
        with torch.no_grad():
            pixels = rearrange(batch.evidence.pixel_features, "b k p d -> b k d p")
            masks = segmenter.to(pixels.device).mask_logits(queries.mask_embeddings, pixels)
            tubes = shown_tubes(queries, masks, batch.evidence, compete=compete)
        return {"links": link_loss(wrapped(queries), tubes, labelled=batch.evidence.weights.sum(-1) > 0,
                                   weights=tube_weights(batch.evidence, is_thing, config=config.losses))}

    def batches(rank: int, world: int, consumed: int):
        return query_batches(cache, config.input, rank=rank, world=world, consumed=consumed)

    return Stage(model=network, losses_of=losses_of, batches=batches, optimizer=config.optimizer, fit=config.fit,
                 batch_size=config.input.batch_size)


def sample_embeddings(cache: QueryCache, *, least_sure: float) -> Tensor:
    """The mask embeddings x d of the queries that are linked, in up to 256 views spread over the cache.

    Where a segmenter is sure of nothing yet, those of all queries.
    """
    views = np.linspace(0, len(cache.groups) - 1, min(SAMPLED_VIEWS, len(cache.groups))).astype(int)
    clips = [clip for view in views.tolist() for clip in cache.read(view)]
    embeddings = torch.from_numpy(np.concatenate([clip.mask_embeddings for clip in clips]).astype(np.float32))
    logits = torch.from_numpy(np.concatenate([clip.class_logits for clip in clips]).astype(np.float32))
    sure = 1 - logits.softmax(-1)[:, -1] > least_sure
    return embeddings[sure] if sure.any() else embeddings
