"""From clips to a panoptic video, near-online and offline: what both ways promise."""

from __future__ import annotations

import gc
import weakref
from dataclasses import replace

import numpy as np
import pytest
import torch

from model.contracts import ClipPrediction, Geometry
from model.cross_clip.maxtron import MaXTronHead, MaXTronHeadConfig
from model.inference import Aligned, NearOnline, make_results
from model.inference.alignment import reordered
from model.labels import VOID
from model.postprocess.panoptic import PanopticConfig, PanopticMerger, panoptic_video
from model.query_decoders.kmax import KMaxDecoder, KMaxDecoderConfig
from tests.model.inference.ways import collected, near_online, offline

IS_THING = (True, True, False)


def new_merger() -> PanopticMerger:
    return PanopticMerger(PanopticConfig(thing=0.3, stuff=0.3, pixel=0.2, overlap=0.5), is_thing=IS_THING,
                          geometry=Geometry.fit((30, 46), padded=(32, 48)))


@pytest.fixture
def segmenter() -> KMaxDecoder:
    """A decoder whose masks are sharp and whose classes are sure, so that segments come out of noise."""
    config = KMaxDecoderConfig(layers=(0, 0, 1), num_queries=6, dim=16, embedding=8, ffn=32, heads=4, drop_path=0.0)
    decoder = KMaxDecoder(config, channels=(8, 8, 8, 8), num_classes=len(IS_THING)).eval()
    with torch.no_grad():
        decoder.predictor.mask_norm.weight.fill_(3.0)
        decoder.predictor.class_head.conv.weight.normal_(std=2.0)
        decoder.predictor.class_head.conv.bias[-1] = -4.0
    return decoder


@pytest.fixture
def clips(segmenter) -> list[tuple[ClipPrediction, int]]:
    """Seven frames in clips of two: the last clip repeats its frame. Queries come in another order in every clip."""
    still = [torch.randn(1, 8, *side) for side in ((8, 12), (4, 6), (2, 3), (1, 2))]
    video = []
    for number in range(4):
        maps = [(x + 0.1 * torch.randn(2, *x.shape[1:])) for x in still]
        maps = [x[:1].expand_as(x) for x in maps] if number == 3 else maps
        with torch.no_grad():
            video.append((shuffled(segmenter(maps, frames=2), torch.randperm(6)), 1 if number == 3 else 2))
    return video


@pytest.fixture
def head(segmenter) -> MaXTronHead:
    head = MaXTronHead(MaXTronHeadConfig(num_classes=len(IS_THING), dim=16, embedding=8, heads=4, layers=2)).eval()
    head.initialise_from(segmenter.state_dict())
    return head


def shuffled(clip: ClipPrediction, order: torch.Tensor) -> ClipPrediction:
    return reordered(clip, order)


def painted(merged) -> np.ndarray:
    return np.stack(list(merged.frames))


def trained(head: MaXTronHead) -> MaXTronHead:
    """As if training had opened the new branches."""
    with torch.no_grad():
        for name, parameter in head.layers.named_parameters():
            if name.endswith("scale"):
                parameter.fill_(0.3)
    return head


def test_an_untrained_head_gives_the_near_online_result(clips, head):
    near = near_online(clips, merger=new_merger())
    far = offline(clips, head, merger=new_merger())
    np.testing.assert_array_equal(painted(near), painted(far))
    assert list(near.segments) == list(far.segments)
    assert near.queries == far.queries
    assert len(near.segments) >= 2
    assert np.isin(painted(near), [VOID, *near.segments]).all()


def test_a_trained_head_does_not(clips, head):
    far = offline(clips, trained(head), merger=new_merger())
    assert not np.array_equal(painted(near_online(clips, merger=new_merger())), painted(far))


@pytest.mark.parametrize("way", ["near_online", "offline"])
def test_permuting_the_queries_of_any_clip_changes_nothing(clips, head, way):
    other = [(shuffled(clip, torch.randperm(6)), frames) for clip, frames in clips]
    run = {"near_online": lambda c: near_online(c, merger=new_merger()),
           "offline": lambda c: offline(c, trained(head), merger=new_merger())}[way]
    np.testing.assert_array_equal(painted(run(clips)), painted(run(other)))


@pytest.mark.parametrize("count", [1, 4])
def test_repeated_frames_are_cut_before_merging(clips, head, count):
    """The same as a segmenter whose last clip has one frame only."""
    last, frames = clips[-1]
    single = replace(last, mask_logits=last.mask_logits[:, :, :frames],
                     pixel_features=last.pixel_features[:, :, :frames])
    short = clips[-count:]
    exact = [*clips[-count:-1], (single, frames)]
    assert len(painted(near_online(short, merger=new_merger()))) == 2 * count - 1
    np.testing.assert_array_equal(painted(near_online(short, merger=new_merger())),
                                  painted(near_online(exact, merger=new_merger())))
    np.testing.assert_array_equal(painted(offline(short, trained(head), merger=new_merger())),
                                  painted(offline(exact, head, merger=new_merger())))


def test_official_compat_lets_repeated_frames_take_part_and_drops_them_by_name(clips):
    merger = new_merger()
    official = new_merger()
    ours = near_online(clips, merger=merger)
    theirs = near_online(clips, merger=official, official_compat=True)
    assert (len(ours.frames), len(theirs.frames)) == (7, 8)
    assert official._counts.sum() == merger._counts.sum() * 8 / 7
    video = panoptic_video(theirs, video_id="street", frame_names=tuple("abcdefg"))
    assert len(list(video.frames)) == 7


def test_queries_are_collected_in_the_slots_of_the_first_clip(clips):
    queries = collected(clips, classes=len(IS_THING))
    assert queries.queries.shape == (1, 4, 6, 16)
    assert torch.equal(queries.queries[:, 0], clips[0][0].queries)
    directions = torch.nn.functional.normalize(queries.mask_embeddings[0], dim=-1)
    likeness = torch.einsum("knd,kmd->knm", directions[1:], directions[:-1])
    assert (likeness.argmax(-1) == torch.arange(6)).float().mean() > 0.9


def test_near_online_keeps_no_clip_and_offline_keeps_features_in_the_given_spool(clips, head):
    alive = []

    def stream():
        for clip, frames in clips:
            copy = replace(clip, pixel_features=clip.pixel_features.clone())
            alive.append(weakref.ref(copy.pixel_features))
            yield copy, frames
            del copy
            gc.collect()
            assert sum(ref() is not None for ref in alive) <= 1

    near_online(stream(), merger=new_merger())
    spool = []
    offline(clips, head, merger=new_merger(), spool=spool)
    assert [(tuple(features.shape), frames) for features, frames in spool] == [((8, 2, 8, 12), f) for _, f in clips]


def test_the_result_gets_the_names_of_its_frames(clips):
    merged = near_online(clips, merger=new_merger())
    video = panoptic_video(merged, video_id="street", frame_names=tuple("abcdefg"))
    assert (video.video_id, video.frame_names, dict(video.segments)) == ("street", tuple("abcdefg"), merged.segments)
    with pytest.raises(ValueError, match=r"street.*9 frames but 7"):
        panoptic_video(merged, video_id="street", frame_names=tuple("abcdefghi"))


def test_no_clips_and_two_videos_at_once_are_refused(clips):
    with pytest.raises(ValueError, match="no clips"):
        near_online([], merger=new_merger())
    with pytest.raises(ValueError, match="no clips"):
        collected([], classes=len(IS_THING))
    with pytest.raises(ValueError, match="one video"):
        near_online([(clips[0][0], 3)], merger=new_merger())


def test_queries_without_an_alignment_keep_the_order_of_their_clip(clips):
    own = collected([(replace(clip, alignment=None), frames) for clip, frames in clips], classes=len(IS_THING))
    for index, (clip, _) in enumerate(clips):
        assert torch.equal(own.queries[:, index], clip.queries)
        assert torch.equal(own.mask_embeddings[:, index], clip.mask_embeddings)
    assert not torch.equal(own.queries, collected(clips, classes=len(IS_THING)).queries)


@pytest.mark.parametrize("field", ["class_logits", "mask_logits", "queries", "mask_embeddings"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_the_driver_refuses_a_clip_that_is_not_finite_and_says_where(clips, field, value):
    (first, frames), (second, _), *_ = clips
    broken = getattr(second, field).clone()
    broken.view(-1)[3] = value
    with pytest.raises(ValueError, match=f"the {field} of the clip after frame 2 hold NaN or infinity"):
        near_online([(first, frames), (replace(second, **{field: broken}), 2)], merger=new_merger())


def test_the_driver_refuses_other_classes(clips):
    with pytest.raises(ValueError, match=r"do not fit 7 classes .*right class table"):
        collected(clips, classes=7)


def test_the_first_clip_of_a_stream_is_the_video_of_that_clip(clips):
    part = make_results(clips[:1], [Aligned([NearOnline({"panoptic": new_merger})])], num_classes=3)["panoptic"]
    whole = near_online(clips[:1], merger=new_merger())
    np.testing.assert_array_equal(painted(part), painted(whole))
    assert part.segments == whole.segments
