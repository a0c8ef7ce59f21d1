"""Mask2Former's pixel decoder: its maps, the frames and levels that affect each other, and errors."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from model.pixel_decoders.mask2former import (
    DeformableTrajectoryConfig,
    Mask2FormerPixelDecoder,
    Mask2FormerPixelDecoderConfig,
)

CHANNELS = (8, 12, 16, 24)
SIDES = ((16, 24), (8, 12), (4, 6), (2, 3))
TRAJECTORIES = DeformableTrajectoryConfig(heads=4, ffn=32, scale=1.0)


def decoder_of(within_clip=None, **changes) -> Mask2FormerPixelDecoder:
    sizes = {"dim": 32, "embedding": 16, "heads": 4, "ffn": 32, "layers": 2}
    config = Mask2FormerPixelDecoderConfig(**sizes | changes)
    return Mask2FormerPixelDecoder(config, channels=CHANNELS, within_clip=within_clip).eval()


def maps_of(frames: int = 2) -> list[torch.Tensor]:
    return [torch.randn(frames, channels, *side) for channels, side in zip(CHANNELS, SIDES)]


@pytest.mark.parametrize(("strides", "finest", "sides"), [
    ((8, 16, 32), 4, SIDES[::-1]), ((16, 32), 4, SIDES[::-1]), ((32,), 8, SIDES[:0:-1]),
    ((4, 8, 16, 32), 4, SIDES[::-1]),
])
@torch.no_grad()
def test_maps_come_coarse_to_fine_whichever_attend_to_each_other(strides, finest, sides):
    decoded = decoder_of(strides=strides, finest=finest)(maps_of(), frames=2)
    assert [tuple(one.shape) for one in decoded.maps] == [(2, 32, *side) for side in sides]
    assert decoded.pixel_features.shape == (2, 16, *sides[-1])


@pytest.mark.parametrize("within_clip", [None, TRAJECTORIES])
@torch.no_grad()
def test_a_batch_of_two_clips_equals_two_of_one(within_clip):
    decoder = decoder_of(within_clip)
    maps = maps_of(4)
    together = decoder(maps, frames=2)
    for clip in (slice(0, 2), slice(2, 4)):
        alone = decoder([one[clip] for one in maps], frames=2)
        for ours, theirs in zip((alone.pixel_features, *alone.maps), (together.pixel_features, *together.maps)):
            torch.testing.assert_close(ours, theirs[clip], atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_frames_affect_each_other_at_the_chosen_strides_only():
    """One layer, so that nothing can come back from the tracked levels through deformable attention."""
    maps = maps_of()
    changed = [torch.stack([one[0], torch.randn_like(one[1])]) for one in maps]
    for strides in ((), (32,), (16, 32)):
        decoder = decoder_of(replace(TRAJECTORIES, strides=strides) if strides else None, layers=1)
        pairs = zip((32, 16, 8, 4), decoder(maps, frames=2).maps, decoder(changed, frames=2).maps)
        met = tuple(stride for stride, one, other in pairs if not torch.allclose(one[0], other[0], atol=1e-5))
        assert met == strides[::-1]


@torch.no_grad()
def test_attention_maps_are_those_of_the_last_layer():
    attention: dict[str, torch.Tensor] = {}
    decoder_of(TRAJECTORIES)(maps_of(), frames=2, attention=attention)
    assert {name: tuple(one.shape) for name, one in attention.items()} == {
        "stride32.height": (3, 4, 4, 2, 2), "stride32.width": (2, 4, 6, 2, 3),
        "stride16.height": (6, 4, 8, 2, 4), "stride16.width": (4, 4, 12, 2, 6)}


@pytest.mark.parametrize(("changes", "complaint"), [
    ({"dim": 30}, "multiple of the heads"), ({"layers": 0}, "layers=0"), ({"strides": (8, 32)}, "without a gap"),
    ({"strides": ()}, "without a gap"), ({"finest": 16}, "finest=16"), ({"finest": 2}, "finest=2"),
])
def test_impossible_settings_are_refused(changes, complaint):
    with pytest.raises(ValueError, match=complaint):
        decoder_of(**changes)


def test_trajectory_attention_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="strides"):
        DeformableTrajectoryConfig(strides=(64,))
    with pytest.raises(ValueError, match=r"at strides \(4, 32\)"):
        decoder_of(DeformableTrajectoryConfig(strides=(4, 32)))
    with pytest.raises(ValueError, match="with 5 heads"):
        decoder_of(DeformableTrajectoryConfig(heads=5))


def test_frames_that_do_not_make_whole_clips_are_refused():
    with pytest.raises(ValueError, match="3 frames do not divide into clips of 2"):
        decoder_of()(maps_of(3), frames=2)
