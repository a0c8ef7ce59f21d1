"""Scores and pictures of the segmenter while it trains, as `stage_one.validation` asks for them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from torch import nn

from jobs.cached_validation import numbers
from jobs.console import say
from jobs.evaluate import scorecard, scored_part, true_results
from jobs.recipes.schema import Recipe
from jobs.training.validation import Validation
from model.association import HungarianConfig
from model.contracts import PanopticVideo
from model.families import refuse_unfit_results
from pipeline.clips import StoredVideoSource
from pipeline.errors import BadInput
from pipeline.metrics.scorecard import FIRST_NUMBER, lower_is_better
from pipeline.shards import ShardSet, StoredVideo
from pipeline.system import System
from pipeline.visualise.drawing import draw
from pipeline.visualise.painted import pictured

PICTURES = "pictures"       # in the folder of stage one


def validation_of(recipe: Recipe) -> Validation | None:
    """How the segmenter of a recipe is scored while it trains; None where it is not. Raises the errors of `Scores`."""
    settings = recipe.stage_one.validation
    if settings is None:
        return None
    scores = Scores(recipe)
    number = settings.metric or FIRST_NUMBER[recipe.inference.results[0]]
    return Validation(score=scores, every=settings.every, number=number, lower_is_better=lower_is_better(number),
                      keeps_best=True, about=f"near-online on {len(scores.videos)} videos", draw=scores.draw)


class Scores:
    """Scores a segmenter on a few videos, and keeps what it made of the first ones to draw them.

    Learned links, which are trained later, give way to Hungarian association.
    """

    def __init__(self, recipe: Recipe) -> None:
        """Raises FileNotFoundError without the shards, ValueError where no video has labels, or the segmenter makes no
        near-online results."""
        self.recipe = recipe
        self.settings = recipe.stage_one.validation
        self.inference = recipe.inference
        if self.inference.association.kind == "links":
            self.inference = replace(self.inference, association=HungarianConfig())
        refuse_unfit_results(self.inference, recipe.stage_one.segmenter, offline=False,
                             clip_frames=recipe.stage_one.segmenter_frames)
        self.shards = ShardSet(recipe.shards_of(recipe.evaluation.split))
        self.videos: list[StoredVideo] = list(self.shards.with_labels().videos[:self.settings.videos])
        if not self.videos:
            raise ValueError(f"no video of {self.shards.folder} has labels, so nothing can be scored while training; "
                             "set evaluation.split to a split with labels, or leave stage_one.validation out")
        self.results: dict[int, PanopticVideo] = {}     # position of a video -> its picture

    def __call__(self, segmenter: nn.Module) -> Mapping[str, float | None]:
        """The scores of a segmenter in evaluation mode; a video that cannot be read is named and left out."""
        stage = self.recipe.stage_one
        system = System(segmenter=segmenter, head=None, classes=self.shards.classes, inference=self.inference,
                        clip_frames=stage.segmenter_frames, size=stage.input.augment.size, made_by={})
        card = scorecard(self.recipe, self.shards.classes)
        self.results = {}
        for index, video in enumerate(self.videos):
            try:
                predicted = system.predict(StoredVideoSource(self.shards, video))
                card.update(scored_part(predicted, video), true_results(self.recipe, self.shards, video))
            except BadInput as error:
                if self.recipe.strict:
                    raise
                say(f"not scored: {error}")
                continue
            if index < self.settings.overlays:
                self.results[index] = pictured(predicted, self.shards.classes)
        return numbers(card)

    def draw(self, step: int) -> Path | None:
        """Draw what was scored last beside frames and truth, in a folder of the step; None without pictures."""
        folder = self.recipe.run_folder / "stage_one" / PICTURES / f"step-{step:07d}"
        for index, picture in self.results.items():
            video = self.videos[index]
            truth = pictured(true_results(self.recipe, self.shards, video), self.shards.classes)
            draw(StoredVideoSource(self.shards, video), picture, self.shards.classes, folder, truth=truth)
        return folder if self.results else None
