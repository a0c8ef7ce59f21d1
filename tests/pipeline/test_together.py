"""Videos that share batches have the predictions that each of them has alone, whatever goes wrong in another one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from itertools import chain

import pytest
import torch
from torch.testing import assert_close

from model.inference import InferenceConfig, ResizeConfig
from pipeline.clips import VideoClip
from pipeline.errors import BadInput
from pipeline.system import System
from pipeline.together import walks_together
from tests.pipeline.test_system import CLASSES, SIZE, NoisyVideo
from tests.tiny_models import tiny_mask2former, tiny_tube_link, tiny_video_kmax

FIELDS = ("class_logits", "mask_logits", "queries", "mask_embeddings", "pixel_features")
LENGTHS = (1, 5, 2, 4)      # 1, 3, 1 and 2 clips of two frames


class BrokenVideo(NoisyVideo):
    """Noise of which the frames from number 2 on cannot be read."""

    def frames(self, start: int, stop: int):
        """See `VideoSource`."""
        if stop > 2:
            raise BadInput("corrupt-image", "it is broken.", video=self.video_id)
        return super().frames(start, stop)


def system(config=None, *, together: int = 3, **inference) -> System:
    torch.manual_seed(0)
    return System(segmenter=(config or tiny_video_kmax()).build().eval(), head=None, classes=CLASSES, clip_frames=2,
                  size=SIZE, made_by={}, inference=InferenceConfig(clips_together=together, **inference))


def sizes_of_batches(one: System) -> list[int]:
    """A list that gets the number of clips whenever the segmenter is called."""
    sizes: list[int] = []
    one.segmenter.register_forward_pre_hook(lambda _, given: sizes.append(len(given[0])))
    return sizes


def walks(one: System, videos):
    return walks_together(one, [partial(_same, video) for video in videos], one.clips, places=False)


def _same(video):
    return video


def check_alone(one: System, video, pairs) -> None:
    """The pairs are the clips of the video with the predictions that each has alone."""
    alone = replace(one, inference=replace(one.inference, clips_together=1))
    for (clip, prediction), (other_clip, other) in zip(pairs, alone.predictions_of(alone.clips(video)), strict=True):
        assert (clip.indices, clip.valid) == (other_clip.indices, other_clip.valid)
        for name in FIELDS:
            assert_close(getattr(prediction, name), getattr(other, name), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(("config", "inference", "batches"), [
    (tiny_video_kmax(), {}, [3, 3, 1]),
    (tiny_tube_link(), {"results": ("tracks",), "last_clip": "shorten"}, [1, 2, 1, 3]),
    (tiny_mask2former(), {"results": ("tracks",), "clip_frames": 1, "last_clip": "shorten"}, [3, 3, 3, 3])])
def test_each_video_has_the_predictions_that_it_has_alone(config, inference, batches):
    one = system(config, **inference)
    sizes = sizes_of_batches(one)
    with walks(one, [NoisyVideo(frames) for frames in LENGTHS]) as together:
        found = [list(walk) for walk in together]
    assert sizes == batches
    for frames, pairs in zip(LENGTHS, found):
        check_alone(one, NoisyVideo(frames), pairs)


def test_videos_of_two_canvases_share_no_batch():
    class LargeVideo(NoisyVideo):
        size = (64, 64)

        def frames(self, start: int, stop: int):
            return [frame.repeat(2, axis=0) for frame in super().frames(start, stop)]

    one = system(tiny_tube_link(), results=("tracks",), resize=ResizeConfig(short_side=32))
    sizes = sizes_of_batches(one)
    with walks(one, [NoisyVideo(2), NoisyVideo(2), LargeVideo(2), LargeVideo(2), LargeVideo(2)]) as together:
        assert [len(list(walk)) for walk in together] == [1] * 5
    assert sizes == [2, 3]


def test_results_are_those_of_each_video_alone():
    one = system(tiny_tube_link(), results=("semantic",))
    videos = [NoisyVideo(frames) for frames in LENGTHS]
    with walks(one, videos) as together:
        results = [one.predict(video, clips=walk).semantic for video, walk in zip(videos, together)]
    for video, result in zip(videos, results, strict=True):
        alone = one.predict(video).semantic
        assert result.frame_names == alone.frame_names
        same = [(ours == theirs).mean() for ours, theirs in zip(result.frames, alone.frames, strict=True)]
        assert min(same) > 0.99


def test_an_error_is_raised_in_its_place_and_costs_no_other_video():
    one = system()

    def closed():
        raise BadInput("empty-file", "it is empty.", video="closed")

    opens = [partial(NoisyVideo, 3), partial(BrokenVideo, 5), closed, partial(NoisyVideo, 4)]
    with walks_together(one, opens, one.clips, places=False) as (first, broken, empty, last):
        check_alone(one, NoisyVideo(3), list(first))
        seen = iter(broken)
        next(seen)
        with pytest.raises(BadInput, match="it is broken"):
            next(seen)
        with pytest.raises(BadInput, match="it is empty"):
            list(empty)
        with pytest.raises(BadInput, match="it is empty"):
            _ = empty.source
        check_alone(one, NoisyVideo(4), list(last))


@pytest.mark.parametrize("taken", [0, 1])
def test_a_video_that_is_left_early_is_read_no_further_and_costs_no_other(taken):
    one = system()
    sizes = sizes_of_batches(one)
    with walks(one, [NoisyVideo(1000), NoisyVideo(3)]) as (first, second):
        for _ in zip(range(taken), first):
            pass
        pairs = list(second)
    assert sum(sizes) <= 4 * 3
    check_alone(one, NoisyVideo(3), pairs)


def test_no_more_clips_are_read_than_two_batches_need():
    one = system()
    read: list[VideoClip] = []

    def clips_of(video) -> Iterator[VideoClip]:
        for clip in one.clips(video):
            read.append(clip)
            yield clip

    with walks_together(one, [partial(NoisyVideo, 2)] * 50, clips_of, places=False) as together:
        for taken, _ in enumerate(chain.from_iterable(together), 1):
            assert len(read) <= taken + 2 * 3 + 1
    assert len(read) == 50


def test_each_video_is_opened_once():
    opened: list[int] = []

    def open(number: int) -> NoisyVideo:
        opened.append(number)
        return NoisyVideo(2)

    one = system()
    with walks_together(one, [partial(open, number) for number in range(5)], one.clips, places=False) as together:
        for walk in together:
            assert walk.source.frame_names
            list(walk)
    assert opened == [0, 1, 2, 3, 4]
