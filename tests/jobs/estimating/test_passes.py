"""The frames that pass through the segmenter are those of the clips that are cut."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.estimating.passes import passes_of_frame
from jobs.recipes import find_recipe
from model.association.stitching import StitchingConfig
from model.inference import InferenceConfig
from pipeline.clips import split_clips

DEMO = find_recipe("demo")


@given(st.integers(1, 60), st.integers(2, 8), st.booleans(), st.booleans())
def test_they_are_the_frames_of_all_clips(frames, length, overlap, offline):
    association = {"association": StitchingConfig(overlap=1)} if overlap else {}
    recipe = replace(DEMO, stage_two=None, inference=InferenceConfig(clip_frames=length, **association))
    passed = sum(len(indices) for indices, _ in split_clips(frames, length, overlap=int(overlap)))
    assert passes_of_frame(recipe, frames, offline=offline) == pytest.approx(passed / frames)


def test_shortened_clips_repeat_nothing_and_a_head_needs_full_ones():
    recipe = replace(DEMO, stage_two=None, inference=InferenceConfig(clip_frames=5, last_clip="shorten"))
    assert passes_of_frame(recipe, 12, offline=False) == 1
    assert passes_of_frame(recipe, 12, offline=True) == 15 / 12
