"""Train the clip segmenter (with or without within-clip tracking) on shards, by Ray Train DDP.

In:     shards of the train split, and of stage_one.stills (jobs.make_shards); with input.streaming and
        input.stream_from the tars may lie in an object store, and only manifest.json and index.arrow here.
Out:    <folder>/stage_one/model: model.safetensors + model.json; checkpoints and progress.jsonl beside it. With
        stage_one.joint (VITA) also <folder>/stage_two/model, the head that was trained along. With
        stage_one.validation also <folder>/stage_one/best, the weights with the best score while training, and pictures.
Again:  running it again resumes from the last checkpoint; a finished model of the same recipe is left alone. With more
        stage_one.fit.steps, a finished training goes on.
Cost:   `tiny` a few minutes on two CPU cores; the official R50 recipe is 40k steps of 32 clips (16 large GPUs, a day).

    python -m jobs.train_stage_one --recipe tiny
    python -m jobs.train_stage_one --recipe vipseg_video_kmax_r50_near_online --set cluster.gpus_per_worker=1
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from jobs.cluster import connect
from jobs.console import say
from jobs.counted_classes import number_settings
from jobs.models import head_card, is_finished, read_card, save_model, segmenter_card, store_model
from jobs.recipes.schema import STILLS, Recipe, StageOneConfig
from jobs.start_weights import fill, refuse_unfit_starts
from jobs.training.identity import claim_folder, plain
from jobs.training.trainer import Stage, TrainingJob, best_weights, train
from jobs.training_scores import validation_of
from jobs.verb import finish_recording, next_command, recorded, run
from model.contracts import ClipBatch
from model.joint import DetectorWithHead
from model.losses.joint import JointCriterion
from model.losses.linking import LinkingCriterion, clip_pairs, pair_losses
from pipeline.at_work import alone_in
from pipeline.files import digest
from pipeline.query_cache import crowded_videos
from pipeline.shards import ShardSet
from pipeline.training_input import Stills, never_drawn, training_batches


def main(recipe: Recipe) -> dict[str, Any]:
    """Train and save the segmenter; returns where it lies. Waits for another verb that trains it."""
    with alone_in(recipe.run_folder / "stage_one", "jobs.train_stage_one"):
        return train_segmenter(recipe)


def train_segmenter(recipe: Recipe) -> dict[str, Any]:
    """Train and save the segmenter, unless it is finished."""
    stage = recipe.stage_one
    folder = recipe.segmenter_folder
    shards = training_shards(recipe)
    refuse_other_classes(recipe, shards)
    stills = training_stills(recipe)
    identity = {"stage": stage.unscored, "shards": shards.fingerprint}
    if stills:
        identity |= {"stills": stills.shards.fingerprint}
    parts = (folder,) if stage.joint is None else (folder, recipe.head_folder)
    if is_finished(parts, identity):
        say(f"{folder} is finished: nothing to do")
        finish_recording(recipe, "train_stage_one", partial(store_model, folder))
        return {"model": str(folder), "resumed": True}
    if recipe.stage_one_from:
        raise ValueError(f"{recipe.name} takes its segmenter from {recipe.stage_one_from}, which holds none that is "
                         "trained as this recipe says; finish the run of that folder, or leave stage_one_from empty")
    for part in (shards, *([stills.shards] if stills else [])):
        part.refuse_damage()
    refuse_unfit_starts(recipe, "stage_one")
    connect(recipe.cluster)
    labelled = shards.with_labels()
    unlabelled = len(shards.videos) - len(labelled.videos)
    void = int(labelled.videos.frames.sum(dtype=int) - labelled.videos.labels.sum(dtype=int))
    left_out = never_drawn(labelled, stage.input)
    crowded = [] if recipe.stage_two is None else crowded_videos(labelled.videos, shards.classes, recipe.cache.evidence)
    say(f"stage one of {recipe.name}: {recipe.about}",
        f"  {len(shards.videos)} videos, {shards.manifest['totals']['frames']} frames in {shards.folder}",
        *([f"  left out: {unlabelled} videos without labels"] if unlabelled else []),
        *([f"  {void} frames have no label: clips show them, but nothing is learnt from them"] if void else []),
        *([f"  {len(stills.shards.videos)} stills in {stills.shards.folder}"] if stills else []),
        *([f"  {left_out} videos are never drawn: no object, or no clip with enough frames and a label"]
          if left_out else []),
        *([f"  {len(crowded)} videos have more objects (up to {max(crowded)}) than cache.evidence.pixels="
           f"{recipe.cache.evidence.pixels}; cache_queries skips those with a clip that shows more: set "
           f"cache.evidence.pixels={max(crowded)} there"] if crowded else []))
    with recorded(recipe, "train_stage_one", shards=shards.fingerprint) as tracker:
        tracker.json("manifest.json", shards.manifest)
        if stage.train:
            job = TrainingJob(build=partial(build_stage, recipe), folder=recipe.run_folder / "stage_one",
                              cluster=recipe.cluster, fit=stage.fit, record=tracker.record)
            validation_of(recipe)       # what cannot be scored is refused before anything is trained
            weights = train(job, identity=identity)
            save_best(recipe, job, segmenter_card(recipe, shards.classes, shards.fingerprint))
        else:
            claim_folder(folder.parent, identity)
            weights = kept(recipe)
        save(recipe, weights, {**segmenter_card(recipe, shards.classes, shards.fingerprint),
                               "identity": digest(plain(identity))})
        store_model(folder, tracker)
    say(f"segmenter: {folder}", next_command(recipe, "train_stage_one"))
    steps = stage.fit.steps if stage.train else 0
    return {"model": str(folder), "steps": steps}


def kept(recipe: Recipe) -> dict[str, Tensor]:
    """The weights of `start_from` as they are. What it does not fill, the rows of other classes, the seed makes."""
    torch.manual_seed(recipe.stage_one.fit.seed)
    return build_model(recipe).state_dict()


def save_best(recipe: Recipe, job: TrainingJob, card: Mapping[str, Any]) -> None:
    """Write the weights with the best score during training beside the last ones, with all scores in their card."""
    if recipe.stage_one.validation is None or (best := best_weights(job)) is None:
        return
    weights, history = best
    folder = recipe.run_folder / "stage_one" / "best"
    save_model(folder, weights, {**card, "scores_while_training": history})
    say(f"the segmenter with the best score while it trained: {folder}")


def save(recipe: Recipe, weights: Mapping[str, Tensor], card: dict[str, Any]) -> None:
    """Write the finished segmenter, and the head that was trained along with it, where the recipe expects them."""
    if recipe.stage_one.joint is None:
        save_model(recipe.segmenter_folder, weights, card)
        return
    parts = {part: {name.removeprefix(f"{part}."): weight for name, weight in weights.items()
                    if name.startswith(f"{part}.")} for part in ("segmenter", "head")}
    save_model(recipe.segmenter_folder, parts["segmenter"], card)
    save_model(recipe.head_folder, parts["head"], head_card(recipe, read_card(recipe.segmenter_folder), ""))


def build_stage(recipe: Recipe) -> Stage:
    """Everything the loop needs, built inside a worker."""
    return stage_on(recipe, build_model(recipe))


def stage_on(recipe: Recipe, model: nn.Module) -> Stage:
    """The stage of a new model."""
    config = recipe.stage_one
    shards = training_shards(recipe)
    stills = training_stills(recipe)
    losses_of = losses_on_clips(config, model) if config.joint is None else joint_losses(config)

    def batches(rank: int, world: int, consumed: int):
        return training_batches(shards, config.input, rank=rank, world=world, consumed=consumed, stills=stills)

    return Stage(model=model, losses_of=losses_of, batches=batches, optimizer=config.optimizer, fit=config.fit,
                 batch_size=config.input.batch_size, validation=validation_of(recipe))


def build_model(recipe: Recipe) -> nn.Module:
    """The segmenter, with the head where both learn together, each filled from its start where the recipe names one."""
    config = recipe.stage_one
    segmenter = config.segmenter.build()
    fill(segmenter, recipe, "stage_one.start_from")
    if config.joint is None:
        return segmenter
    head = config.joint.head.build()
    fill(head, recipe, "stage_one.joint.start_from")
    return DetectorWithHead(segmenter, head, layers=config.joint.layers)


def training_shards(recipe: Recipe) -> ShardSet:
    """The shards of the train split; their tars may be elsewhere, where `input.stream_from` says so."""
    return ShardSet(recipe.shards_of(recipe.train_split), tars_here=not recipe.stage_one.input.stream_from)


def training_stills(recipe: Recipe) -> Stills | None:
    """The shards of the images that train beside the videos, where the recipe has any."""
    stills = recipe.stage_one.stills
    return None if stills is None else Stills(ShardSet(recipe.shards_of(STILLS)), stills.share)


def losses_on_clips(config: StageOneConfig, model: nn.Module) -> Callable[[nn.Module, ClipBatch], dict[str, Tensor]]:
    """What the loop calls with `model` (maybe wrapped for DDP) and a batch.

    With linking losses a training clip is a pair: its halves are clips of their own, which are then linked.
    """
    criterion = config.losses.build()
    if config.linking is None:
        return lambda wrapped, batch: criterion(wrapped(batch.frames, batch.real_pixels, supervise=True), batch.targets)
    linking_criterion = LinkingCriterion(config.linking)

    def losses_of(wrapped: nn.Module, batch: ClipBatch) -> dict[str, Tensor]:
        shared = config.linking.shared_frames
        frames, targets = clip_pairs(batch.frames, batch.targets, shared=shared)
        real_pixels, _ = clip_pairs(batch.real_pixels, (), shared=shared)
        prediction = wrapped(frames, real_pixels, supervise=True)
        segmentation = pair_losses(criterion, prediction, targets, segmentation=config.linking.segmentation)
        return {**segmentation, **linking_criterion(model.linking, prediction, targets)}

    return losses_of


def joint_losses(config: StageOneConfig) -> Callable[[nn.Module, ClipBatch], dict[str, Tensor]]:
    """What the loop calls where a frame detector and VITA's head learn together."""
    criterion = JointCriterion(config.losses, config.joint.losses, layers=config.joint.layers)
    return lambda wrapped, batch: criterion(wrapped(batch.frames, batch.real_pixels), batch.targets)


def refuse_other_classes(recipe: Recipe, shards: ShardSet) -> None:
    """Raise ValueError when the recipe's number of classes is not that of the shards."""
    classes = recipe.stage_one.segmenter.num_classes
    if classes == len(shards.classes):
        return
    raise ValueError(f"{shards.folder} has {len(shards.classes)} classes ({shards.classes.name}), the recipe's "
                     f"segmenter {classes}; set {' and '.join(number_settings(recipe))} to {len(shards.classes)}, or "
                     "--set count_classes=true")


if __name__ == "__main__":
    torch.set_num_threads(1)
    run(main, uses=("workers",))
