"""The table of families: every combination of settings is refused at construction, or its makers make every result."""

from __future__ import annotations

from dataclasses import replace
from itertools import chain, combinations, product

import numpy as np
import pytest
import torch

from model.association import (
    ClipWiseConfig,
    HungarianConfig,
    MemoryBufferConfig,
    NaiveBufferConfig,
    QueryTrackingConfig,
    StitchingConfig,
)
from model.association.tube_linking import TubeLinkingConfig
from model.contracts import Geometry
from model.cross_clip.maxtron import MaXTronHeadConfig
from model.cross_clip.tube_link import TubeLinkHeadConfig
from model.cross_clip.vita import VitaHeadConfig
from model.families import FAMILIES, family_of, refuse_unfit_head, refuse_unfit_results
from model.inference import InferenceConfig, make_results, result_makers
from model.losses.cross_clip import CrossClipLossConfig, MaskCrossClipLossConfig
from model.losses.vita import VitaLossConfig
from model.postprocess.panoptic import PanopticConfig
from model.postprocess.tube_panoptic import TubePanopticConfig
from tests.tiny_models import TINY_KNET, tiny_mask2former, tiny_tube_link, tiny_video_kmax

CLASSES = 4
SIZE = (32, 48)
RESULTS = ("panoptic", "tracks", "semantic")
SUBSETS = tuple(chain.from_iterable(combinations(RESULTS, count) for count in (1, 2, 3)))
ASSOCIATIONS = (HungarianConfig(), QueryTrackingConfig(), StitchingConfig(), MemoryBufferConfig(), NaiveBufferConfig(),
                ClipWiseConfig())
PANOPTIC = (PanopticConfig(thing=0, stuff=0, pixel=0.05, overlap=0), TubePanopticConfig(score=0.0, overlap=0.0))
SIZES = {"num_classes": CLASSES, "dim": 64, "embedding": 64}
SEGMENTERS = {
    "video_kmax": (tiny_video_kmax(CLASSES), MaXTronHeadConfig(**SIZES, layers=1), 2),
    "tube_link": (tiny_tube_link(CLASSES), TubeLinkHeadConfig(**SIZES, layers=1), 2),
    "tube_link with linking": (tiny_tube_link(CLASSES, linking=TubeLinkingConfig(dim=64, heads=4, ffn=64)),
                               TubeLinkHeadConfig(**SIZES, layers=1), 2),
    "mask2former": (tiny_mask2former(CLASSES), VitaHeadConfig(
        **SIZES, pixel_dim=64, frame_queries=16, num_queries=5, heads=4, ffn=64, encoder_layers=1,
        decoder_layers=1), 1),
}


def is_refused(*arguments, **options) -> bool:
    try:
        refuse_unfit_results(*arguments, **options)
    except ValueError:
        return True
    return False


@pytest.mark.parametrize("name", SEGMENTERS)
@torch.inference_mode()
def test_every_combination_of_settings_is_refused_or_makes_exactly_what_is_asked_for(name):
    segmenter_config, head_config, length = SEGMENTERS[name]
    segmenter = segmenter_config.build().eval()
    head = head_config.build().eval()
    head.initialise_from(segmenter.state_dict())
    runs = []
    head.register_forward_hook(lambda *_: runs.append(1))
    clips = [(segmenter(torch.randint(0, 256, (1, length, 3, *SIZE), dtype=torch.uint8)), length) for _ in range(3)]
    made = set()
    for results, association, panoptic, offline in product(SUBSETS, ASSOCIATIONS, PANOPTIC, (False, True)):
        inference = InferenceConfig(results=results, association=association, panoptic=panoptic)
        if is_refused(inference, segmenter_config, offline=offline, clip_frames=length):
            continue
        makers = result_makers(inference, segmenter=segmenter, head=head if offline else None,
                               is_thing=np.array([True, True, False, False]),
                               geometry=Geometry(source=SIZE, resized=SIZE, padded=SIZE))
        runs.clear()
        assert make_results(clips, makers, num_classes=CLASSES).keys() == set(results)
        assert len(runs) == offline         # offline results are those of the head, and it runs once
        made |= {(result, offline) for result in results}
    assert made == {
        "video_kmax": {("panoptic", False), ("panoptic", True)},
        "tube_link": {("panoptic", False), ("tracks", False), ("semantic", False), ("tracks", True)},
        "tube_link with linking": {("panoptic", False), ("tracks", False), ("semantic", False), ("tracks", True)},
        "mask2former": {("tracks", False), ("semantic", False), ("tracks", True)}}[name]


@pytest.mark.parametrize(("name", "changes", "offline", "complaint"), [
    ("video_kmax", {"results": ("tracks",)}, False, "makes panoptic near-online, not tracks"),
    ("tube_link", {"results": ("semantic",)}, True, "makes tracks offline, not semantic"),
    ("tube_link with linking", {}, False, "by kind 'tube', not 'mask_wise'"),
    ("video_kmax", {"association": MemoryBufferConfig()}, True, "association hungarian or links, not memory_buffer"),
    ("tube_link", {"results": ("tracks",), "association": QueryTrackingConfig()}, True, "not quasi_dense"),
    ("video_kmax", {"association": StitchingConfig(overlap=2)}, False, "overlap=2 needs longer clips than 2 frames"),
    ("mask2former", {"results": ("tracks",), "clip_frames": 2}, False, "takes clips of one frame; got clips of 2"),
])
def test_a_refusal_names_the_setting(name, changes, offline, complaint):
    segmenter, _, length = SEGMENTERS[name]
    with pytest.raises(ValueError, match=complaint):
        refuse_unfit_results(InferenceConfig(**changes), segmenter, offline=offline, clip_frames=length)


def test_each_row_names_another_segmenter_and_each_head_fits_the_one_it_is_listed_with():
    assert len({family.segmenter for family in FAMILIES}) == len(FAMILIES)
    for segmenter, head, _ in SEGMENTERS.values():
        losses = family_of(segmenter).video_losses()
        refuse_unfit_head(segmenter, head, losses, field="stage_two")


@pytest.mark.parametrize(("segmenter", "losses"), [
    (tiny_video_kmax(CLASSES), CrossClipLossConfig()), (tiny_tube_link(CLASSES), MaskCrossClipLossConfig())])
def test_a_head_that_copies_nothing_and_takes_any_order_goes_with_the_clips_of_every_segmenter(segmenter, losses):
    vita = SEGMENTERS["mask2former"][1]
    clips = [(segmenter.build().eval()(torch.randint(0, 256, (1, 2, 3, *SIZE), dtype=torch.uint8)), 2)]
    refuse_unfit_head(segmenter, vita, losses, field="stage_two")
    result = next(iter(family_of(segmenter).offline))
    makers = result_makers(InferenceConfig(results=(result,), panoptic=PANOPTIC[0]), segmenter=None,
                           head=vita.build().eval(), is_thing=np.array([True, True, False, False]),
                           geometry=Geometry(source=SIZE, resized=SIZE, padded=SIZE))
    assert make_results(clips, makers, num_classes=CLASSES).keys() == {result}


@pytest.mark.parametrize(("segmenter", "head", "losses", "complaint"), [
    (tiny_video_kmax(CLASSES), TubeLinkHeadConfig(**SIZES), CrossClipLossConfig(),
     r"tube_link starts from the last heads of a masked-attention decoder, and this segmenter has a kMaX one; "
     r"choose another stage_two\.head, such as maxtron or vita"),
    (tiny_tube_link(CLASSES), MaXTronHeadConfig(**SIZES), MaskCrossClipLossConfig(), "a kMaX decoder"),
    (tiny_tube_link(CLASSES, query_decoder=TINY_KNET), TubeLinkHeadConfig(**SIZES),
     MaskCrossClipLossConfig(), "a K-Net one"),
    (tiny_mask2former(CLASSES), TubeLinkHeadConfig(**SIZES), VitaLossConfig(), "in one order .* such as vita"),
    (tiny_video_kmax(CLASSES), MaXTronHeadConfig(**SIZES), VitaLossConfig(),
     r"set stage_two\.losses\.kind=maxtron"),
    (tiny_video_kmax(CLASSES), MaXTronHeadConfig(**{**SIZES, "num_classes": 5}), CrossClipLossConfig(),
     r"num_classes=5 does not fit .* set stage_two\.head\.num_classes=4"),
    (tiny_tube_link(CLASSES), TubeLinkHeadConfig(**{**SIZES, "embedding": 32}), MaskCrossClipLossConfig(),
     r"pixel_dim=64; set stage_two\.head\.embedding=64"),
    (tiny_mask2former(CLASSES), replace(SEGMENTERS["mask2former"][1], frame_queries=9), VitaLossConfig(),
     r"num_queries=16; set stage_two\.head\.frame_queries=16"),
])
def test_a_head_that_does_not_fit_is_refused(segmenter, head, losses, complaint):
    with pytest.raises(ValueError, match=complaint):
        refuse_unfit_head(segmenter, head, losses, field="stage_two")
