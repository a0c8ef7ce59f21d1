"""Losses of both stages. The type of a config picks the criterion of stage one, here and nowhere else."""

from __future__ import annotations

from model.losses.kmax import KMaxCriterion, KMaxLossConfig
from model.losses.mask2former import Mask2FormerCriterion, Mask2FormerLossConfig

ClipLossConfig = KMaxLossConfig | Mask2FormerLossConfig


def build_clip_criterion(config: ClipLossConfig) -> KMaxCriterion | Mask2FormerCriterion:
    """The criterion of stage one that a config describes; called with a `ClipPrediction` and its targets."""
    match config:
        case KMaxLossConfig():
            return KMaxCriterion(config)
        case Mask2FormerLossConfig():
            return Mask2FormerCriterion(config)
    raise ValueError(f"{type(config).__name__} describes no losses of stage one; see model.losses.ClipLossConfig")
