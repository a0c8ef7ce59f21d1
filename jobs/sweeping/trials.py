"""The work of a sweep: training the head of one trial, and scoring the heads of several trials on one video."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from jobs.cache_queries import open_cache
from jobs.cached_validation import open_scores
from jobs.evaluate import scorecard, scored_part, true_results
from jobs.models import head_card, load_head, load_segmenter, open_system, save_model
from jobs.recipes.schema import Recipe
from jobs.sweeping.plan import Trial
from jobs.train_stage_two import stage_on
from jobs.training.identity import plain
from jobs.training.trainer import train_in_memory
from pipeline.cached_scores import CachedScores
from pipeline.clips import StoredVideoSource
from pipeline.errors import BadInput
from pipeline.files import digest
from pipeline.one_pass import predict_together
from pipeline.shards import ShardSet
from pipeline.system import System


class TrialWorker:
    """Holds the open cache, the frozen segmenter and the split that is scored, from trial to trial."""

    def __init__(self, recipe: Recipe, folder: Path) -> None:
        """folder: of the trials; the model of each lies in `<its name>/stage_two/model`."""
        torch.set_num_threads(max(int(recipe.cluster.cpus_per_actor), 1))
        gpu = recipe.cluster.gpus_per_actor > 0 and torch.cuda.is_available()
        self.base = recipe
        self.folder = folder
        self.device = torch.device("cuda" if gpu else "cpu")
        self.cache = open_cache(recipe)
        self.segmenter, self.card = load_segmenter(recipe.segmenter_folder)
        self.shards = ShardSet(recipe.shards_of(recipe.evaluation.split))
        self.system = open_system(recipe, "near_online", self.shards.classes)
        self._systems: dict[str, System] = {}
        self._cached: CachedScores | None = None

    def train(self, trial: Trial, name: str) -> dict[str, Any]:
        """Train the head of a trial and save it; its seconds, steps and last loss."""
        started = time.perf_counter()
        recipe = trial.recipe(self.base)
        weights, reports = train_in_memory(
            lambda: stage_on(recipe, recipe.stage_two.head.build(), self.cache, self.segmenter), recipe.stage_two.fit,
            device=self.device)
        identity = {"stage": replace(recipe.stage_two, links=None), "cache": self.cache.fingerprint}
        save_model(head_folder(self.folder, name), weights,
                   {**head_card(recipe, self.card, self.cache.fingerprint), "identity": digest(plain(identity))})
        return {"seconds": time.perf_counter() - started, "steps": recipe.stage_two.fit.steps,
                "loss": sum(reports[-1].losses.values())}

    def score(self, video: int, trials: dict[str, Trial]) -> dict[str, Any]:
        """Score the heads of trials, by name, on one video in one pass of the segmenter.

        Returns {"video", "cards": name -> Scorecard as JSON}; no cards for a video without labels, and "skipped" with
        the message for one that cannot be read.
        """
        stored = self.shards.videos[video]
        for name in self._systems.keys() - trials.keys():
            del self._systems[name]
        for name in trials.keys() - self._systems.keys():
            self._systems[name] = self.system_of(trials[name], name)
        truth = true_results(self.base, self.shards, stored)
        if truth is None:
            return {"video": stored.video_id, "cards": {}}
        try:
            results = predict_together([self._systems[name] for name in trials],
                                       StoredVideoSource(self.shards, stored))
            cards = {}
            for name, predicted in zip(trials, results, strict=True):
                card = scorecard(self.base, self.shards.classes)
                card.update(scored_part(predicted, stored), truth)
                cards[name] = card.to_json()
        except BadInput as error:
            if self.base.strict:
                raise
            return {"video": stored.video_id, "cards": {}, "skipped": str(error)}
        return {"video": stored.video_id, "cards": cards}

    def estimate(self, name: str, trial: Trial) -> dict[str, Any]:
        """Video -> the scorecard, as JSON, of the head of a trial, estimated from the query cache."""
        if self._cached is None:
            self._cached = open_scores(self.base)
        return {video: card.to_json() for video, card in self._cached.cards(self.system_of(trial, name)).items()}

    def system_of(self, trial: Trial, name: str) -> System:
        """The frozen segmenter with the trained head of a trial."""
        head, _ = load_head(head_folder(self.folder, name), segmenter_card=self.card)
        return replace(self.system, head=head.to(self.device), inference=trial.recipe(self.base).inference)


def head_folder(folder: Path, name: str) -> Path:
    """The model of a trial; `folder / name` is laid out as the folder of a run."""
    return folder / name / "stage_two" / "model"
