"""Stage two of every published row draws what the released code draws, as far as a cache can hold it."""

from __future__ import annotations

import pytest

from jobs.config import override
from jobs.recipes import RECIPES, find_recipe
from jobs.recipes.schema import Recipe

PUBLISHED = [name for name, recipe in RECIPES.items() if recipe().world is None and recipe().stage_two is not None]


def clip_frames(recipe: Recipe) -> int:
    return recipe.inference.clip_frames or recipe.stage_one.segmenter_frames


@pytest.mark.parametrize("name", PUBLISHED)
def test_only_augmented_views_are_drawn_and_windows_may_begin_at_any_frame(name):
    recipe = find_recipe(name)
    windows = recipe.stage_two.input
    assert recipe.cache.views == 5
    assert not windows.test_view
    full = windows.clips * clip_frames(recipe)
    assert recipe.cache.window_frames == (0 if windows.reach else full)


@pytest.mark.parametrize("name", PUBLISHED)
def test_vipseg_pastes_into_every_view_and_youtube_vis_draws_full_windows(name):
    """MaXTron's mapper of VIPSeg always pastes, and draws one window of each video; mmtracking's `ref_img_sampling`, as
    in Tube-Link, has no sample where a window is not full. VITA draws frames around one, within 20 on YouTube-VIS 2019.
    """
    recipe = find_recipe(name)
    windows = recipe.stage_two.input
    if recipe.dataset.name == "vipseg":
        paste = recipe.cache.copy_paste
        assert (paste.probability, paste.scale) == (1.0, 0.5)
        assert paste.reverse == windows.reverse == (0.5 if "r50" in name or "ablation" in name else 0.0)
        assert windows.sampling == "videos"
        assert clip_frames(recipe) * windows.clips == 24
    else:
        assert recipe.cache.copy_paste is None
        assert windows.reverse == 0
        assert (windows.sampling, windows.reach) == (("videos", 20) if "vita" in name else ("windows", 0))


def test_a_cache_without_views_to_draw_is_refused_at_once():
    recipe = find_recipe("vipseg_video_kmax_r50_offline")
    with pytest.raises(ValueError, match=r"set cache\.views to 2 or more"):
        override(recipe, ["cache.views=1"])
    assert override(recipe, ["cache.views=1", "stage_two.input.test_view=true"]).cache.views == 1
