"""The hard world loses identities: linking perfect masks by colour and place alone fails there."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.datasets.synthetic import SyntheticConfig, write_world
from pipeline.datasets.track_statistics import Look, TrackStatistics, associate, track_statistics
from pipeline.datasets.vipseg import VipSeg


def look(x: float, *, red: float = 1.0, class_index: int = 0) -> Look:
    return Look(class_index=class_index, color=np.array([red, 0, 0]), center=np.array([0.5, x]))


def test_steady_things_keep_their_ids():
    clips = [{7: look(0.1 + 0.1 * step), 8: look(0.9 - 0.1 * step, class_index=1)} for step in range(8)]
    assert associate(clips) == [{7: 1, 8: 2}] * 8


def test_twins_that_trade_places_swap_their_ids():
    clips = [{7: look(0.2), 8: look(0.8)}, {7: look(0.8), 8: look(0.2)}]
    assert associate(clips) == [{7: 1, 8: 2}, {7: 2, 8: 1}]


def test_colour_tells_things_apart_that_trade_places():
    clips = [{7: look(0.4), 8: look(0.6, red=0)}, {7: look(0.6), 8: look(0.4, red=0)}]
    assert associate(clips) == [{7: 1, 8: 2}] * 2


def test_a_thing_that_was_absent_for_a_clip_gets_a_new_id():
    assert associate([{7: look(0.2)}, {}, {7: look(0.2)}]) == [{7: 1}, {}, {7: 2}]


def statistics(root, **changes) -> TrackStatistics:
    dataset = VipSeg(str(write_world(root, SyntheticConfig(videos_train=0, videos_val=12, **changes))), split="val")
    return track_statistics(dataset, dataset.video_ids())


@pytest.mark.parametrize("frames", [12, 24])
def test_hard_loses_identities_that_easy_keeps(tmp_path, frames):
    easy = statistics(tmp_path / "easy", frames=frames)
    hard = statistics(tmp_path / "hard", frames=frames, preset="hard")
    assert easy.break_rate < 0.06
    assert hard.break_rate > 0.25
    assert hard.breaks >= hard.long_hidings >= hard.tracks      # every thing hides for long and is then lost
    assert easy.long_hidings < 0.1 * easy.tracks
