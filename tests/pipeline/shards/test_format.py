"""Keys of stored clips are safe for every tool that reads tars."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from pipeline.shards.format import clip_key, video_of_key

NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)


@given(NAMES, st.integers(0, 20_000))
def test_a_key_gives_back_its_video(video_id, clip):
    assert video_of_key(clip_key(video_id, clip)) == video_id


@given(NAMES, st.integers(0, 20_000))
def test_a_key_is_lower_case_without_dots_or_folders(video_id, clip):
    assert re.fullmatch(r"[a-z0-9_-]+", clip_key(video_id, clip))


@given(st.lists(st.tuples(NAMES, st.integers(0, 99)), unique=True))
def test_different_clips_have_different_keys(clips):
    assert len({clip_key(*clip) for clip in clips}) == len(clips)


def test_an_ordinary_name_stays_readable():
    assert clip_key("davis_cows", 3) == "davis_cows_c0003"
