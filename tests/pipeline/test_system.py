"""How a system cuts a video: clips of any length from the same weights, and what becomes of the last one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from jobs.config import from_json, to_json
from jobs.recipes import find_recipe, tube_link, youtube_vis
from model.association import MemoryBufferConfig
from model.association.tube_linking import TubeLinkingConfig
from model.cross_clip.tube_link import TubeLinkHeadConfig
from model.inference import InferenceConfig
from model.labels import VOID, ClassInfo, ClassTable
from model.postprocess.panoptic import PanopticConfig
from model.postprocess.tube_panoptic import TubePanopticConfig
from pipeline.system import System
from tests.tiny_models import tiny_mask2former, tiny_tube_link, tiny_video_kmax

CLASSES = ClassTable("six", tuple(ClassInfo(number, str(number), number < 4, (number, 0, 0)) for number in range(6)))
SIZE = (32, 64)


class NoisyVideo:
    """Frames of noise, the same whenever they are asked for."""

    video_id = "noise"
    size = SIZE

    def __init__(self, frames: int) -> None:
        self.frame_names = tuple(f"{frame:05d}" for frame in range(frames))

    def frames(self, start: int, stop: int) -> list[np.ndarray]:
        """See `VideoSource`."""
        return [np.random.default_rng(frame).integers(0, 256, (*SIZE, 3), np.uint8) for frame in range(start, stop)]


def system(*, clip_frames: int, offline: bool = False, **inference) -> System:
    torch.manual_seed(0)
    segmenter = tiny_tube_link(linking=TubeLinkingConfig(dim=64, heads=4, ffn=64)).build().eval()
    head = TubeLinkHeadConfig(num_classes=6, dim=64, embedding=64, layers=1).build().eval()
    return System(segmenter=segmenter, head=head if offline else None, classes=CLASSES, clip_frames=clip_frames,
                  inference=InferenceConfig(**inference), size=SIZE, made_by={})


def seen(system: System, frames: int) -> list[int]:
    """Lengths of the clips the segmenter saw; every frame of the video has a result."""
    lengths = []
    hook = system.segmenter.register_forward_pre_hook(lambda _, inputs: lengths.append(inputs[0].shape[1]))
    results = system.predict(NoisyVideo(frames))
    hook.remove()
    for made in (results.panoptic, results.tracks, results.semantic):
        assert made is None or len(made.frame_names) == frames
    return lengths


@pytest.mark.parametrize(("clip_frames", "lengths"), [(1, [1] * 7), (2, [2, 2, 2, 1]), (3, [3, 2, 2]), (4, [4, 3]),
                                                      (5, [5, 2]), (9, [7])])
def test_clips_are_as_long_as_asked_with_the_same_weights_and_tracks_shorten_the_last(clip_frames, lengths):
    one = system(clip_frames=clip_frames, results=("tracks",), last_clip="shorten")
    assert seen(one, 7) == lengths


@pytest.mark.parametrize("results", [("panoptic",), ("semantic",), ("panoptic", "semantic")])
def test_panoptic_and_semantic_video_fill_the_last_clip_up(results):
    one = system(clip_frames=3, results=results, panoptic=TubePanopticConfig(score=0.0))
    assert seen(one, 7) == [3, 3, 3]


@pytest.mark.parametrize(("config", "inference", "batches"), [
    (tiny_video_kmax(), InferenceConfig(), [2, 3]),
    (tiny_tube_link(), InferenceConfig(results=("tracks",), last_clip="shorten"), [1, 1, 3]),
    (tiny_mask2former(), InferenceConfig(results=("tracks",), clip_frames=1, last_clip="shorten"), [3, 3, 3])])
def test_clips_that_pass_together_are_the_clips_one_by_one(config, inference, batches):
    torch.manual_seed(0)
    alone = System(segmenter=config.build().eval(), head=None, classes=CLASSES, clip_frames=2, size=SIZE, made_by={},
                   inference=inference)
    one_by_one = list(alone.clip_predictions(NoisyVideo(9), places=True, shorten=alone.shortens))
    seen = []
    alone.segmenter.register_forward_pre_hook(lambda _, given: seen.append(len(given[0])))
    three = replace(alone, inference=replace(inference, clips_together=3))
    together = list(three.clip_predictions(NoisyVideo(9), places=True, shorten=alone.shortens))
    assert sorted(seen) == batches
    for (clip, prediction), (other_clip, other) in zip(one_by_one, together, strict=True):
        assert clip.indices == other_clip.indices
        for name in ("class_logits", "mask_logits", "queries", "mask_embeddings", "pixel_features", "places", "looks"):
            assert_close(getattr(other, name), getattr(prediction, name), rtol=1e-3, atol=1e-3)


def test_no_clip_at_a_time_is_refused():
    with pytest.raises(ValueError, match="set it to 1 or more"):
        InferenceConfig(clips_together=0)


@pytest.mark.parametrize("offline", [False, True])
def test_half_precision_is_near_single_and_reaches_the_networks_alone(offline):
    computed = []
    masks = {}
    for precision in ("fp32", "bf16", "fp16"):
        one = system(clip_frames=2, results=("tracks",), precision=precision, offline=offline)
        network = one.head.predictor.class_head if offline else one.segmenter.query_decoder.class_head
        network.register_forward_hook(lambda *parts: computed.append(parts[2].dtype))
        _, clip = next(one.clip_predictions(NoisyVideo(2)))
        masks[precision] = clip.mask_logits
        assert {clip.mask_logits.dtype, clip.queries.dtype, clip.pixel_features.dtype} == {torch.float32}
        assert one.predict(NoisyVideo(3)).tracks.tracks
    used = list(dict.fromkeys(computed))
    assert used == [torch.float32, torch.bfloat16]       # fp16 on a CPU is fp32
    assert torch.equal(masks["fp16"], masks["fp32"])
    assert not torch.equal(masks["bf16"], masks["fp32"])
    assert (masks["bf16"] - masks["fp32"]).abs().mean() < 0.05 * masks["fp32"].abs().mean()


def test_settings_without_a_precision_were_written_when_there_was_only_single():
    stored = to_json(InferenceConfig())
    del stored["precision"]
    assert from_json(InferenceConfig, stored).precision == "fp32"


def test_a_head_sees_full_clips_whatever_is_asked():
    assert seen(system(clip_frames=3, offline=True, results=("tracks",), last_clip="shorten"), 7) == [3, 3, 3]


def test_official_recipes_cut_videos_as_their_task_does():
    for name in youtube_vis.RECIPES:
        assert find_recipe(name).inference.last_clip == "shorten"
    for name in tube_link.RECIPES:
        assert find_recipe(name).inference.last_clip == "repeat"


def test_shorter_clips_do_not_go_with_clips_that_share_frames():
    with pytest.raises(ValueError, match="clips that share no frame, memory_buffer asks for overlap=1"):
        InferenceConfig(association=MemoryBufferConfig(), last_clip="shorten")


KMAX = tiny_video_kmax()
STREAMED = {
    "video_kmax": (KMAX, InferenceConfig(panoptic=PanopticConfig(thing=0, stuff=0, pixel=0.05, overlap=0))),
    "video_kmax, linked": (KMAX, InferenceConfig(panoptic=PanopticConfig(thing=0, stuff=0, pixel=0.05, overlap=0),
                                                 association=MemoryBufferConfig())),
    "tube_link": (tiny_tube_link(linking=TubeLinkingConfig(dim=64, heads=4, ffn=64)), InferenceConfig(
        results=("panoptic", "semantic"), panoptic=TubePanopticConfig(score=0.0, overlap=0.0))),
    "mask2former": (tiny_mask2former(), InferenceConfig(results=("tracks",), clip_frames=1)),
}


@pytest.mark.parametrize("name", STREAMED)
def test_a_stream_gives_every_frame_once_in_order_while_frames_arrive(name):
    config, inference = STREAMED[name]
    torch.manual_seed(0)
    one = System(segmenter=config.build().eval(), head=None, classes=CLASSES, clip_frames=2, inference=inference,
                 size=SIZE, made_by={})
    given = []

    def frames():
        for frame in NoisyVideo(7).frames(0, 7):
            given.append(len(given))
            yield frame

    names = []
    for part in one.stream(frames()):
        names.extend(shown(part))
        assert len(given) <= len(names) + 1         # a result does not wait for frames beyond its clip
        if part.panoptic:
            for ids in part.panoptic.frames:
                assert set(np.unique(ids).tolist()) - {VOID} <= set(part.panoptic.segments)
    assert names == [f"{frame:06d}" for frame in range(7)]


def shown(part) -> tuple[str, ...]:
    """The frames of a result; all kinds of results show the same."""
    videos = [video for video in (part.panoptic, part.tracks, part.semantic) if video]
    (names,) = {video.frame_names for video in videos}
    assert all(len(list(video.frames)) == len(names) for video in (part.panoptic, part.semantic) if video)
    return names


def test_a_stream_of_clips_that_are_labelled_by_themselves_is_the_video():
    one = system(clip_frames=2, results=("semantic",))
    whole = one.predict(NoisyVideo(5)).semantic
    parts = [part.semantic for part in one.stream(NoisyVideo(5).frames(0, 5))]
    np.testing.assert_array_equal(np.concatenate([list(part.frames) for part in parts]), list(whole.frames))


def test_a_stream_refuses_a_frame_of_another_size_and_gives_nothing_for_no_frame():
    one = system(clip_frames=2, results=("semantic",))
    assert list(one.stream([])) == []
    frames = [*NoisyVideo(3).frames(0, 3), np.zeros((8, 8, 3), np.uint8)]
    with pytest.raises(ValueError, match=r"frame 3 is uint8 \(8, 8, 3\); give uint8 arrays of \(32, 64, 3\)"):
        list(one.stream(frames))


def test_a_stream_ignores_the_head_which_would_need_all_clips():
    one = system(clip_frames=2, offline=True, results=("tracks",))
    assert len(list(one.stream(NoisyVideo(4).frames(0, 4)))) == 2
