"""Every loss config has a kind of its own within its union, and builds the criterion with its settings."""

from __future__ import annotations

from typing import get_args

import pytest

from model.losses import ClipLossConfig, VideoLossConfig
from model.losses.cross_clip import CrossClipCriterion
from model.losses.kmax import KMaxCriterion
from model.losses.mask2former import Mask2FormerCriterion

KINDS = {"kmax": KMaxCriterion, "mask2former": Mask2FormerCriterion, "maxtron": CrossClipCriterion,
         "tube_link": CrossClipCriterion, "vita": CrossClipCriterion}
CONFIGS = [*get_args(ClipLossConfig), *get_args(VideoLossConfig)]


def test_kinds_tell_the_members_of_the_unions_apart():
    assert [config().kind for config in CONFIGS] == list(KINDS)


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config().kind)
def test_a_config_builds_its_criterion(config):
    settings = config(class_weight=3.0)
    criterion = settings.build()
    assert type(criterion) is KINDS[settings.kind]
    assert criterion.config is settings
    assert settings.weights["class"] == 3.0
