"""Joint training: frame losses of frames, video losses of clips, and the matches between them."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.testing import assert_close

from model.contracts import ClipPrediction, LayerPrediction, VideoPrediction
from model.joint import JointPrediction
from model.losses.joint import JointCriterion
from model.losses.linking import part_of
from model.losses.mask2former import Mask2FormerCriterion, Mask2FormerLossConfig
from model.losses.points import PointConfig, uniform
from model.losses.targets import NO_TUBE
from model.losses.vita import VitaLossConfig
from tests.model.losses.world import FRAMES, QUERIES, clip, perfect_logits

FRAME_LOSSES = Mask2FormerLossConfig(points=PointConfig(count=64))
LAYERS = 2


def perfect_frames(targets, *, order) -> ClipPrediction:
    """A perfect detector on every frame: query order[m] predicts tube m of a clip, in two decoder layers."""
    logits = [perfect_logits(part_of(target, slice(t, t + 1)), order=[
        order[int(tube)] for tube in part_of(target, slice(t, t + 1)).track_ids]) for target in targets
        for t in range(FRAMES)]
    classes, masks = (torch.cat(part).requires_grad_() for part in zip(*logits))
    queries = torch.zeros(len(logits), QUERIES, 4)
    return ClipPrediction(class_logits=classes, mask_logits=masks, queries=queries, mask_embeddings=queries,
                          pixel_features=torch.empty(0),
                          auxiliary=(LayerPrediction(class_logits=classes, mask_logits=masks, queries=queries),))


def joint(targets, *, order) -> JointPrediction:
    logits = [perfect_logits(target, order=order[:len(target.classes)]) for target in targets] * LAYERS
    classes, masks = (torch.cat(part).requires_grad_() for part in zip(*logits))
    videos = len(logits)
    video = VideoPrediction(class_logits=classes, mask_embeddings=torch.empty(0), queries=torch.empty(0),
                            clip_similarity=torch.randn(videos, FRAMES, QUERIES, 4, requires_grad=True),
                            video_similarity=torch.randn(videos, QUERIES, 4, requires_grad=True))
    return JointPrediction(perfect_frames(targets, order=order), (video, video), (masks, masks))


def joint_criterion(**changes) -> JointCriterion:
    return JointCriterion(FRAME_LOSSES, replace(VitaLossConfig(), **changes), layers=LAYERS)


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(1)


def test_the_terms_are_those_of_frames_of_videos_and_between_them():
    targets = [clip(3), clip(4, seed=1)]
    losses = joint_criterion()(joint(targets, order=[2, 0, 4, 1]), targets, generator=generator())
    assert set(losses) == {f"{part}{term}{layer}" for part in ("", "video_") for term in ("class", "mask", "dice")
                           for layer in ("", "_aux")} | {"similarity"}
    assert "similarity" not in joint_criterion(similarity_weight=0)(joint(targets, order=[2, 0, 4, 1]), targets)
    sum(losses.values()).backward()
    assert all(loss.isfinite() for loss in losses.values())


def test_frame_losses_are_those_of_the_frames_by_themselves():
    targets = [clip(3), clip(4, seed=1)]
    prediction = joint(targets, order=[2, 0, 4, 1])
    in_frames = [part_of(target, slice(t, t + 1)) for target in targets for t in range(FRAMES)]
    alone = Mask2FormerCriterion(FRAME_LOSSES)(prediction.frames, in_frames, generator=generator())
    losses = joint_criterion()(prediction, targets, generator=generator())
    assert_close({name: losses[name] for name in alone}, alone)


def test_video_losses_have_their_own_weights_and_repeat_the_clips_for_every_layer_that_is_read():
    targets = [clip(3)]
    prediction = joint(targets, order=[2, 0, 4])
    plain, double = (joint_criterion(class_weight=weight)(prediction, targets, generator=generator())
                     for weight in (2.0, 4.0))
    assert_close(double["video_class"], 2 * plain["video_class"])
    assert_close(double["class"], plain["class"])
    one = replace(prediction.frames, class_logits=prediction.videos[-1].class_logits[:1],
                  mask_logits=prediction.mask_logits[-1][:1], auxiliary=())
    expected = Mask2FormerCriterion(replace(FRAME_LOSSES, frames="apart"))(one, targets)
    assert_close(plain["video_class"], expected["class"])      # both videos of the clip are the same


def test_frame_and_video_queries_are_matched_to_the_same_positions_of_tubes():
    """Without a tube that its first frame lacks, positions in the frame's targets differ from those in the clip's."""
    target = clip(4)
    order = [2, 0, 4, 1]
    target.masks[1, 0] = False
    target = replace(target, void=~target.masks.any(0))
    prediction = joint([target], order=order)
    criterion = joint_criterion()
    in_frames = [part_of(target, slice(t, t + 1)) for t in range(FRAMES)]
    frames, videos = criterion._match(prediction, [target], in_frames, uniform("cpu", generator=generator()))
    expected = torch.full((QUERIES,), NO_TUBE)
    expected[order] = torch.arange(4)
    assert torch.equal(videos, expected.expand(LAYERS, -1))
    without = expected.clone()
    without[order[1]] = NO_TUBE
    assert torch.equal(frames[:, 0], without.expand(LAYERS, -1))
    assert torch.equal(frames[:, 1], expected.expand(LAYERS, -1))


@pytest.mark.parametrize("tubes", [0, 1])
def test_clips_without_tubes_train(tubes):
    targets = [clip(tubes), clip(0)]
    prediction = joint(targets, order=list(range(tubes)))
    total = sum(joint_criterion()(prediction, targets).values())
    total.backward()
    assert total.isfinite()
    assert prediction.frames.class_logits.grad.any()
