"""A head over the parts of a video: what the parts are, and that one part is the whole video."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from model.association.track_links import PartsConfig
from model.contracts import ClipPrediction, Geometry
from model.cross_clip.vita import VitaHead, VitaHeadConfig
from model.inference import InferenceConfig, InParts, Offline, make_results
from model.postprocess.instances import TrackConfig, TrackMerger
from pipeline.spool import TensorSpool

IS_THING = (True, True)
FRAMES = 7
MOST = 5


@pytest.fixture
def head() -> VitaHead:
    """A head with masks, at random weights."""
    config = VitaHeadConfig(num_classes=2, dim=8, embedding=8, pixel_dim=8, frame_queries=4, num_queries=4, heads=2,
                            ffn=16, encoder_layers=1, decoder_layers=1, window=3)
    return VitaHead(config).eval()


@pytest.fixture
def clips() -> list[tuple[ClipPrediction, int]]:
    """A video of one-frame clips."""
    def frame() -> ClipPrediction:
        return ClipPrediction(class_logits=torch.randn(1, 4, 3), mask_logits=torch.randn(1, 4, 1, 6, 6),
                              queries=torch.randn(1, 4, 8), mask_embeddings=torch.randn(1, 4, 8),
                              pixel_features=torch.randn(1, 8, 1, 6, 6))
    return [(frame(), 1) for _ in range(FRAMES)]


def maker_of(head: VitaHead):
    merger = partial(TrackMerger, TrackConfig(candidates=MOST, scored="video"), is_thing=IS_THING,
                     geometry=Geometry.fit((24, 24), padded=(24, 24)))
    return lambda spool=None: Offline(head, {"tracks": merger}, spool=spool)


def in_parts(video, head, spool=None, **parts):
    maker = InParts(PartsConfig(**parts), maker_of(head), most=MOST, spool=spool)
    return make_results(video, [maker], num_classes=2)["tracks"]


def test_a_part_as_long_as_the_video_gives_the_tracks_of_the_whole_video(clips, head):
    whole = make_results(clips, [maker_of(head)()], num_classes=2)["tracks"]
    part = in_parts(clips, head, clips=FRAMES)
    assert [track.masks for track in part] == [track.masks for track in sorted(whole, key=lambda t: -t.score)]


@pytest.mark.parametrize(("clips_of_a_part", "shared", "expected"), [(3, 1, [3, 3, 3]), (4, 2, [4, 4, 3]),
                                                                     (5, 1, [5, 3]), (6, 1, [6, 2])])
def test_each_part_begins_with_the_last_clips_of_the_one_before(clips, head, clips_of_a_part, shared, expected):
    lengths = []
    head.register_forward_pre_hook(lambda _, inputs: lengths.append(inputs[0].queries.shape[1]))
    tracks = in_parts(clips, head, clips=clips_of_a_part, shared=shared)
    assert lengths == expected
    assert {len(track.masks) for track in tracks} == {FRAMES}
    assert 0 < len(tracks) <= MOST


def test_a_spool_holds_the_features_of_one_part_alone(clips, head):
    spool = TensorSpool()
    kept = in_parts(clips, head, clips=3)
    assert in_parts(clips, head, spool, clips=3) == kept
    assert len(spool) == 3


def test_panoptic_videos_have_no_parts():
    with pytest.raises(ValueError, match=r"inference\.parts links tracks"):
        InferenceConfig(parts=PartsConfig(clips=3))
