"""Scores of heads from the query cache alone, as `stage_two.validation` asks for them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cache

from torch import nn

from jobs.cache_queries import for_validation, open_cache
from jobs.models import known_classes, read_card
from jobs.recipes.schema import Recipe
from jobs.training.validation import Validation
from model.association import HungarianConfig
from pipeline.cached_scores import CachedScores
from pipeline.metrics.bootstrap import numbers_of
from pipeline.metrics.scorecard import FIRST_NUMBER, Scorecard, headline, lower_is_better
from pipeline.system import System


def open_scores(recipe: Recipe) -> CachedScores:
    """The cached split from which heads of a recipe are scored.

    Raises ValueError without the setting, and the errors of `open_cache`, with the command that makes the cache.
    """
    if recipe.stage_two.validation is None:
        raise ValueError("heads are scored from a query cache of their own; set stage_two.validation={} and run "
                         "jobs.cache_queries")
    return CachedScores(open_cache(for_validation(recipe)), known_classes(recipe.segmenter_folder),
                        recipe.inference.results, windows=recipe.evaluation.windows,
                        stq_compat=recipe.evaluation.stq_compat)


def validation_of(recipe: Recipe, segmenter: nn.Module) -> Validation | None:
    """How a head on this segmenter is scored while it trains; None where it is not. Its queries are aligned."""
    settings = recipe.stage_two.validation
    if settings is None or not settings.every:
        return None
    scores = cache(lambda: open_scores(recipe))         # read by the one process that scores, when it does so first
    inference = replace(recipe.inference, association=HungarianConfig())
    card = read_card(recipe.segmenter_folder)

    def score(head: nn.Module) -> Mapping[str, float | None]:
        device = next(head.parameters()).device
        system = System(segmenter=segmenter.to(device), head=head, classes=scores().classes, inference=inference,
                        clip_frames=card["clip_frames"], size=card["input_size"] and tuple(card["input_size"]),
                        made_by={})
        return numbers(scores().card(system))

    number = settings.metric or FIRST_NUMBER[recipe.inference.results[0]]
    return Validation(score=score, every=settings.every, number=number, lower_is_better=lower_is_better(number),
                      patience=settings.patience)


def numbers(card: Scorecard) -> dict[str, float | None]:
    """All scores of a card by name; VPQ of a window is `vpq_k12`."""
    return numbers_of(headline(card.scores()))
