"""How a system cuts a video: clips of any length from the same weights, and what becomes of the last one."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from jobs.inference import System
from jobs.recipes import find_recipe, tube_link, youtube_vis
from jobs.recipes.schema import EvaluationConfig
from model.association import MemoryBufferConfig
from model.association.tube_linking import TubeLinkingConfig
from model.cross_clip import build_cross_clip_head
from model.cross_clip.tube_link import TubeLinkHeadConfig
from model.labels import ClassInfo, ClassTable
from model.postprocess.tube_panoptic import TubePanopticConfig
from model.segmenters import build_segmenter
from tests.tiny_models import tiny_tube_link

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


def system(*, clip_frames: int, offline: bool = False, **evaluation) -> System:
    torch.manual_seed(0)
    segmenter = build_segmenter(tiny_tube_link(linking=TubeLinkingConfig(dim=64, heads=4, ffn=64))).eval()
    head = build_cross_clip_head(TubeLinkHeadConfig(num_classes=6, dim=64, embedding=64, layers=1)).eval()
    return System(segmenter=segmenter, head=head if offline else None, classes=CLASSES, clip_frames=clip_frames,
                  config=EvaluationConfig(**evaluation), size=SIZE, made_by={})


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
    one = system(clip_frames=3, results=results, merge=TubePanopticConfig(score=0.0))
    assert seen(one, 7) == [3, 3, 3]


def test_a_head_sees_full_clips_whatever_is_asked():
    assert seen(system(clip_frames=3, offline=True, results=("tracks",), last_clip="shorten"), 7) == [3, 3, 3]


def test_official_recipes_cut_videos_as_their_task_does():
    for name in youtube_vis.RECIPES:
        assert find_recipe(name).evaluation.last_clip == "shorten"
    for name in tube_link.RECIPES:
        assert find_recipe(name).evaluation.last_clip == "repeat"


def test_shorter_clips_do_not_go_with_clips_that_share_frames():
    with pytest.raises(ValueError, match="clips that share no frame, memory_buffer asks for overlap=1"):
        EvaluationConfig(association=MemoryBufferConfig(), last_clip="shorten")
