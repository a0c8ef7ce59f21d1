"""Several systems in one pass of the segmenter give what each gives on its own."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from model.association.links import LinkNetworkConfig, LinksConfig
from model.cross_clip.tube_link import TubeLinkHeadConfig
from model.inference import InferenceConfig
from model.postprocess.instances import TrackConfig
from model.postprocess.tube_panoptic import TubePanopticConfig
from pipeline.one_pass import predict_together
from pipeline.system import System
from tests.pipeline.test_system import NoisyVideo, system

FRAMES = 7


def with_other_head(base: System, seed: int) -> System:
    torch.manual_seed(seed)
    head = TubeLinkHeadConfig(num_classes=6, dim=64, embedding=64, layers=1).build().eval()
    return replace(base, head=head)


def same(one, other) -> bool:
    """Whether two videos have the same results, pixel by pixel."""
    pairs = [(getattr(one, name), getattr(other, name)) for name in ("panoptic", "tracks", "semantic")]
    for a, b in pairs:
        if (a is None) != (b is None):
            return False
    maps = [(a, b) for a, b in (pairs[0], pairs[2]) if a is not None]
    equal_maps = all(np.array_equal(x, y) for a, b in maps for x, y in zip(a.frames, b.frames, strict=True))
    return equal_maps and one.tracks == other.tracks


def test_one_pass_gives_what_each_system_gives_alone_and_segments_every_clip_once():
    alone = system(clip_frames=2, results=("tracks", "semantic"))
    systems = [alone, replace(alone, inference=replace(alone.inference, tracks=TrackConfig(candidates=3))),
               *(with_other_head(replace(alone, inference=replace(alone.inference, results=("tracks",))), seed)
                 for seed in (1, 2))]
    expected = [each.predict(NoisyVideo(FRAMES)) for each in systems]
    clips = []
    hook = alone.segmenter.register_forward_pre_hook(lambda *_: clips.append(1))
    together = predict_together(systems, NoisyVideo(FRAMES))
    hook.remove()
    assert len(clips) == 4
    assert [same(a, b) for a, b in zip(expected, together, strict=True)] == [True] * 4
    assert not same(together[2], together[3])       # two heads, two results: the comparison can fail


def test_systems_that_need_other_clips_are_refused_with_the_setting():
    one = system(clip_frames=2, results=("panoptic",), panoptic=TubePanopticConfig(score=0.0))
    longer = replace(one, clip_frames=3)
    with pytest.raises(ValueError, match="differ in clip_length"):
        predict_together([one, longer], NoisyVideo(FRAMES))
    stranger = system(clip_frames=2, results=("panoptic",), panoptic=TubePanopticConfig(score=0.0))
    with pytest.raises(ValueError, match="different segmenters"):
        predict_together([one, stranger], NoisyVideo(FRAMES))
    halved = replace(one, inference=InferenceConfig(panoptic=one.inference.panoptic, precision="bf16"))
    with pytest.raises(ValueError, match="passes of their own"):
        predict_together([one, halved], NoisyVideo(FRAMES))
    with pytest.raises(ValueError, match="no system"):
        predict_together([], NoisyVideo(FRAMES))


def test_links_that_wait_for_the_end_keep_their_masks_apart_from_the_features_of_heads():
    torch.manual_seed(3)
    base = system(clip_frames=2, results=("tracks",))
    links = LinkNetworkConfig().build(embedding=64).eval()
    ways = [replace(base.inference, association=LinksConfig(streaming=streaming)) for streaming in (False, True)]
    linked = [replace(base, links=links, inference=way) for way in ways]
    systems = [*linked, with_other_head(base, 1), with_other_head(linked[0], 2)]
    expected = [each.predict(NoisyVideo(FRAMES)) for each in systems]
    together = predict_together(systems, NoisyVideo(FRAMES))
    assert [same(a, b) for a, b in zip(expected, together, strict=True)] == [True] * 4
