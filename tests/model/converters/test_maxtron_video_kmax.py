"""The within-clip table fits the module as the paper builds it, in both directions."""

from __future__ import annotations

import pytest

from model.converters.maxtron_video_kmax import WITHIN_CLIP
from model.converters.rename import load_strict, rename, reverse
from model.within_clip import WithinClip, WithinClipConfig


@pytest.mark.parametrize("changes", [{}, {"attention": "full"}, {"attention": None}], ids=str)
def test_our_names_read_backwards_and_forwards_are_our_names(changes):
    module = WithinClip(WithinClipConfig(dim=32, heads=4, ffn=32, **changes), channels=(8, 48, 40, 96))
    official = rename(module.state_dict(), reverse(WITHIN_CLIP))
    assert all(name.startswith("within_clip_tracking_module.") for name in official)
    load_strict(module, rename(official, WITHIN_CLIP))
