"""Frames that nobody labelled are void in every loss: it neither reads what is predicted there nor teaches anything."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from einops import rearrange
from torch import Tensor
from torch.testing import assert_close

from model.association.tube_linking import TubeLinking, TubeLinkingConfig
from model.contracts import ClipPrediction, ClipTargets, LayerPrediction, PixelEvidence, VideoPrediction, VideoQueries
from model.joint import JointPrediction
from model.losses.cross_clip import CrossClipLossConfig, MaskCrossClipLossConfig
from model.losses.joint import JointCriterion
from model.losses.kmax import KMaxLossConfig
from model.losses.linking import LinkingCriterion, LinkingLossConfig, pair_losses, part_of, tube_overlaps
from model.losses.mask2former import Mask2FormerLossConfig
from model.losses.points import PointConfig
from model.losses.targets import clip_targets
from model.losses.vita import VitaLossConfig
from tests.model.losses.world import (
    CLASSES,
    FRAMES,
    HEIGHT,
    QUERIES,
    WIDTH,
    as_videos,
    clip,
    dense_evidence,
    random_prediction,
)

POINTS = PointConfig(count=64)
CRITERIA = {
    "kmax": KMaxLossConfig(), "kmax, every pixel": KMaxLossConfig(pixel_samples=999, semantic_samples=0),
    "kmax, void counts": KMaxLossConfig(void_counts=True, normalise_overlaps=True),
    "kmax, own matches": KMaxLossConfig(share_matching=False, official_compat=True, void_counts=True),
    "tube_link": Mask2FormerLossConfig(points=POINTS), "frames apart": Mask2FormerLossConfig(points=POINTS,
                                                                                            frames="apart"),
    "reserved": Mask2FormerLossConfig(points=POINTS, stuff_classes=(1, 3)),
}
every_criterion = pytest.mark.parametrize("config", CRITERIA.values(), ids=CRITERIA)


def forgotten(target: ClipTargets, *frames: int) -> ClipTargets:
    """The same clip after somebody deleted the labels of some frames."""
    unlabelled = torch.zeros(len(target.void), dtype=torch.bool)
    unlabelled[list(frames)] = True
    masks = target.masks & ~unlabelled[:, None, None]
    visible = masks.flatten(1).any(1)
    return ClipTargets(masks=masks[visible], classes=target.classes[visible], track_ids=target.track_ids[visible],
                       void=~masks[visible].any(0), unlabelled=unlabelled)


def maps(prediction: ClipPrediction) -> Iterator[Tensor]:
    """Every prediction about pixels, with the frames on the second last axis but two."""
    for layer in (prediction, *prediction.auxiliary):
        yield from (layer.mask_logits, layer.pixel_features)
    if prediction.semantic_logits is not None:
        yield prediction.semantic_logits


def disturbed(prediction: ClipPrediction, item: int, frame: int) -> ClipPrediction:
    """The same prediction with other values in one frame of one clip."""
    def other(values: Tensor) -> Tensor:
        changed = values.detach().clone()
        changed[item, :, frame] = torch.randn_like(changed[item, :, frame])
        return changed

    def layer(part: ClipPrediction | LayerPrediction) -> dict[str, Tensor]:
        return {"mask_logits": other(part.mask_logits), "pixel_features": other(part.pixel_features)}

    return replace(prediction, **layer(prediction), semantic_logits=other(prediction.semantic_logits),
                   auxiliary=tuple(replace(part, **layer(part)) for part in prediction.auxiliary))


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(3)


@every_criterion
def test_what_is_predicted_in_such_a_frame_changes_no_loss_and_gets_no_gradient(config):
    """The first clip lacks the labels of its second frame, the second clip lacks none."""
    prediction = random_prediction(2)
    targets = [forgotten(clip(4), 1), clip(3, seed=1)]
    losses = config.build()(prediction, targets, generator=generator())
    sum(losses.values()).backward()
    used = [part.grad for part in maps(prediction) if part.grad is not None]
    assert len(used) >= 3
    for gradient in used:
        assert gradient.isfinite().all()
        assert not gradient[0, :, 1].any()
        assert gradient[0, :, 0].any()
        assert gradient[1, :, 1].any()
    again = config.build()(disturbed(prediction, 0, 1), targets, generator=generator())
    assert_close(again, losses)
    with_labels = config.build()(disturbed(prediction, 1, 1), targets, generator=generator())
    assert any(not torch.equal(with_labels[name], losses[name]) for name in losses)


@pytest.mark.parametrize("changes", [{}, {"void_counts": True}, {"share_matching": False}], ids=str)
def test_a_kmax_clip_has_the_losses_of_its_labelled_frames_alone(changes):
    config = KMaxLossConfig(pixel_samples=999, semantic_samples=0, **changes)
    prediction = random_prediction(1)
    whole = config.build()(prediction, [forgotten(clip(4), 1)])
    alone = config.build()(_frames(prediction, slice(0, 1)), [part_of(clip(4), slice(0, 1))])
    assert_close(whole, alone)


def _frames(prediction: ClipPrediction, part: slice) -> ClipPrediction:
    def cut(layer: ClipPrediction | LayerPrediction) -> dict[str, Tensor]:
        return {"mask_logits": layer.mask_logits[:, :, part], "pixel_features": layer.pixel_features[:, :, part]}

    return replace(prediction, **cut(prediction), semantic_logits=prediction.semantic_logits[:, :, part],
                   auxiliary=tuple(replace(layer, **cut(layer)) for layer in prediction.auxiliary))


@every_criterion
def test_a_clip_without_any_label_teaches_nothing_beside_one_that_has_some(config):
    prediction = random_prediction(2)
    losses = config.build()(prediction, [forgotten(clip(4), 0, 1), clip(3, seed=1)], generator=generator())
    sum(losses.values()).backward()
    for part in (*maps(prediction), prediction.class_logits, *(layer.class_logits for layer in prediction.auxiliary)):
        assert part.grad is None or (not part.grad[0].any() and part.grad.isfinite().all())
    assert prediction.class_logits.grad[1].any()


@every_criterion
@pytest.mark.parametrize("frames", [(0, 1), (1,)], ids=["no label at all", "void where there is a label"])
def test_a_batch_of_such_clips_gives_finite_losses(config, frames):
    prediction = random_prediction(2)
    target = forgotten(clip(0), *frames)
    losses = config.build()(prediction, [target, target], generator=generator())
    total = sum(losses.values())
    total.backward()
    assert total.isfinite()
    assert all(part.grad is None or part.grad.isfinite().all() for part in maps(prediction))
    assert (total == 0) == (frames == (0, 1))


@every_criterion
def test_clips_with_every_label_have_the_losses_that_they_had_before(config):
    targets = [clip(4), clip(3, seed=1)]
    stated = [replace(target, unlabelled=torch.zeros(FRAMES, dtype=torch.bool)) for target in targets]
    losses = [config.build()(random_prediction(2), each, generator=generator()) for each in (targets, stated)]
    assert all(torch.equal(losses[0][name], losses[1][name]) for name in losses[0])


@pytest.mark.parametrize("segmentation", ["sum", "mean"])
@pytest.mark.parametrize("assignment", ["matched", "overlap"])
def test_a_pair_of_which_one_clip_has_no_label_links_nothing(assignment, segmentation):
    linking = TubeLinking(TubeLinkingConfig(dim=8, heads=2, ffn=16))
    prediction = replace(random_prediction(2), queries=torch.randn(2, QUERIES, 8, requires_grad=True))
    criterion = Mask2FormerLossConfig(points=POINTS).build()
    config = LinkingLossConfig(assignment=assignment, points=64, segmentation=segmentation)
    target = forgotten(clip(3), 0, 1)
    assert not len(target.classes)
    losses = {**LinkingCriterion(config)(linking, prediction, [clip(3), target], generator=generator()),
              **pair_losses(criterion, prediction, [clip(3), target], segmentation=segmentation)}
    sum(losses.values()).backward()
    assert (losses["contrast"], losses["cosine"]) == (0, 0)
    assert prediction.mask_logits.grad[0].any()
    assert not prediction.mask_logits.grad[1].any()
    assert prediction.class_logits.grad[0].any()
    assert not prediction.class_logits.grad[1].any()


def test_overlaps_of_tubes_are_those_in_frames_with_a_label():
    logits = random_prediction(1).mask_logits.detach()
    alone = tube_overlaps(logits[:, :, :1], [part_of(clip(4), slice(0, 1))])
    assert_close(tube_overlaps(logits, [forgotten(clip(4), 1)]), alone)


def test_vita_learns_nothing_from_a_frame_without_a_label():
    """Neither the detector's frame losses, class loss included, nor those of the video read it."""
    layers = 2
    targets = [forgotten(clip(4), 1)]
    frames = _leaves(FRAMES, layers=layers)
    masks = (2 * torch.randn(layers, QUERIES, FRAMES, HEIGHT, WIDTH)).requires_grad_()
    video = VideoPrediction(class_logits=torch.randn(layers, QUERIES, CLASSES + 1, requires_grad=True),
                            mask_embeddings=torch.empty(0), queries=torch.empty(0),
                            clip_similarity=torch.randn(layers, FRAMES, QUERIES, 4, requires_grad=True),
                            video_similarity=torch.randn(layers, QUERIES, 4, requires_grad=True))
    criterion = JointCriterion(Mask2FormerLossConfig(points=POINTS), VitaLossConfig(), layers=layers)
    losses = criterion(JointPrediction(frames, (video,), (masks,)), targets, generator=generator())
    sum(losses.values()).backward()
    assert all(loss.isfinite() for loss in losses.values())
    for layer in (frames, *frames.auxiliary):
        for part in (layer.class_logits, layer.mask_logits):
            assert part.grad[0].any()
            assert not part.grad[1].any()
    assert masks.grad[:, :, 0].any()
    assert not masks.grad[:, :, 1].any()
    assert video.clip_similarity.grad[:, 0].any()
    assert not video.clip_similarity.grad[:, 1].any()


def _leaves(count: int, *, layers: int) -> ClipPrediction:
    """A prediction about single frames."""
    def layer() -> dict[str, Tensor]:
        return {"class_logits": torch.randn(count, QUERIES, CLASSES + 1, requires_grad=True),
                "mask_logits": torch.randn(count, QUERIES, 1, HEIGHT, WIDTH, requires_grad=True),
                "queries": torch.randn(count, QUERIES, 4)}

    return ClipPrediction(**layer(), mask_embeddings=torch.empty(0), pixel_features=torch.empty(0),
                          auxiliary=tuple(LayerPrediction(**layer()) for _ in range(layers)))


HEADS = {
    "maxtron": CrossClipLossConfig(mask_weight=0.3), "void counts": CrossClipLossConfig(void_counts=True),
    "tube_link": MaskCrossClipLossConfig(), "points": MaskCrossClipLossConfig(points=POINTS),
    "vita": VitaLossConfig(similarity_weight=0, points=POINTS)}


def without_weights(evidence: PixelEvidence, item: int, *clips: int) -> PixelEvidence:
    """The evidence of videos after somebody deleted the labels of some clips of one of them."""
    weights = evidence.weights.clone()
    weights[item, list(clips)] = 0
    tubes = evidence.tubes.clone()
    tubes[item, list(clips)] = -1
    areas = [area.clone() for area in evidence.areas]
    areas[item][list(clips)] = 0
    return replace(evidence, weights=weights, tubes=tubes, areas=tuple(areas))


@pytest.mark.parametrize("config", HEADS.values(), ids=HEADS)
@pytest.mark.parametrize("clips", [(1,), (0, 1)], ids=["one clip", "the whole window"])
def test_a_head_learns_nothing_from_clips_without_a_label(config, clips):
    predictions, masks = as_videos(random_prediction(2))
    masks = [part.detach().requires_grad_() for part in masks]
    targets = [clip(4), clip(3, seed=1)]
    evidence = without_weights(dense_evidence(*targets), 0, *clips)
    if len(clips) == FRAMES:        # no tube has a pixel in the window, so it has no tubes
        evidence = replace(evidence, classes=(torch.empty(0, dtype=torch.int64), evidence.classes[1]),
                           areas=(torch.empty(FRAMES, 0), evidence.areas[1]),
                           overlaps=(torch.empty(0, 0, dtype=torch.bool), evidence.overlaps[1]))
    losses = config.build()(predictions, masks, evidence, queries=_queries())
    total = sum(losses.values())
    total.backward()
    assert total.isfinite()
    for layer, part in zip(predictions, masks):
        assert part.grad is None or not part.grad[0, list(clips)].any()
        assert layer.class_logits.grad[0].any() == (len(clips) < FRAMES)
        assert layer.class_logits.grad[1].any()


@pytest.mark.parametrize("config", HEADS.values(), ids=HEADS)
def test_a_head_gets_finite_losses_from_windows_without_any_label(config):
    predictions, masks = as_videos(random_prediction(1))
    evidence = without_weights(dense_evidence(clip(0)), 0, 0, 1)
    losses = config.build()(predictions, masks, evidence, queries=_queries())
    assert all(loss == 0 for loss in losses.values())


def _queries() -> VideoQueries:
    return VideoQueries(queries=torch.empty(0), mask_embeddings=None, class_logits=torch.empty(0))


def test_the_weights_of_a_batch_are_those_of_its_frames():
    targets = clip_targets([forgotten(clip(4), 1), clip(3, seed=1)])
    weights = rearrange(targets.weights, "b (t p) -> b t p", t=FRAMES)
    assert weights.any(-1).tolist() == [[True, False], [True, True]]
    assert targets.known.tolist() == [True, True]
    assert clip_targets([forgotten(clip(4), 0, 1)]).known.tolist() == [False]
