"""The similarity loss equals its formula, and frame queries are matched to the tubes of their frames."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor
from torch.testing import assert_close

from model.contracts import ClipTargets, PixelEvidence, VideoPrediction, VideoQueries
from model.losses.binary_masks import MatchingCosts
from model.losses.cross_clip import CrossClipCriterion, MaskCrossClipLossConfig
from model.losses.targets import NO_TUBE, video_targets
from model.losses.vita import VitaLossConfig, frame_tubes, queries_to_compare, similarity_loss
from tests.model.losses.world import CLASSES, FRAMES, QUERIES, as_videos, clip, dense_evidence, random_prediction

CONFIG = VitaLossConfig()


def plain(embeddings: Tensor, tubes: Tensor) -> Tensor:
    """Every ordered pair of matched queries of one video, one after the other."""
    losses = []
    for vectors, labels in zip(embeddings, tubes.tolist()):
        for one, first in zip(vectors, labels):
            losses += [F.binary_cross_entropy_with_logits(one @ other, torch.tensor(float(first == second)))
                       for other, second in zip(vectors, labels) if NO_TUBE not in (first, second)]
    return torch.stack(losses).mean()


def test_the_loss_is_the_mean_over_pairs_within_each_video():
    embeddings = torch.randn(2, 6, 4)
    tubes = torch.tensor([[0, 1, -1, 0, 1, 2], [0, -1, -1, 0, -1, -1]])
    assert_close(similarity_loss(embeddings, tubes), plain(embeddings, tubes))


def test_queries_without_an_object_and_their_order_change_nothing():
    embeddings = torch.randn(1, 6, 4)
    tubes = torch.tensor([[0, 1, -1, 0, 1, 2]])
    order = torch.randperm(6)
    loss = similarity_loss(embeddings, tubes)
    assert_close(similarity_loss(embeddings[:, order], tubes[:, order]), loss)
    assert_close(similarity_loss(torch.cat([embeddings, torch.randn(1, 9, 4)], 1),
                                 F.pad(tubes, (0, 9), value=NO_TUBE)), loss)


def test_embeddings_that_tell_objects_apart_have_no_loss():
    one = 10 * torch.tensor([1.0, -1.0])
    embeddings = torch.stack([one, one, -one])[None]
    tubes = torch.tensor([[4, 4, 7]])
    assert similarity_loss(embeddings, tubes) < 1e-6
    assert similarity_loss(embeddings, torch.tensor([[4, 7, 7]])) > 10


def test_a_batch_without_any_match_has_no_loss_and_keeps_the_graph():
    embeddings = torch.randn(1, 3, 4, requires_grad=True)
    loss = similarity_loss(embeddings, torch.full((1, 3), NO_TUBE))
    loss.backward()
    assert loss == 0
    assert not embeddings.grad.any()


def detector_on(evidence: PixelEvidence, videos: list[ClipTargets]) -> tuple[VideoQueries, PixelEvidence, Tensor]:
    """A perfect detector on one-hot pixel features, so that mask embeddings are the masks; the last entry is constant.

    Query order[k, m] of frame k predicts tube m, and every frame has another order.
    """
    generator = torch.Generator().manual_seed(0)
    pixels = evidence.tubes.shape[-1]
    features = torch.eye(pixels).expand(len(videos), FRAMES, pixels, pixels)
    embeddings = torch.full((len(videos), FRAMES, QUERIES, pixels + 1), -5.0)
    classes = torch.zeros(len(videos), FRAMES, QUERIES, CLASSES + 1)
    order = torch.stack([torch.randperm(QUERIES, generator=generator) for _ in range(FRAMES)])
    for item, video in enumerate(videos):
        for frame in range(FRAMES):
            for tube, mask in enumerate(video.masks[:, frame].flatten(1)):
                embeddings[item, frame, order[frame, tube], :-1] = torch.where(mask, 15.0, -5.0)
                classes[item, frame, order[frame, tube], video.classes[tube]] = 5.0
    queries = VideoQueries(queries=torch.randn(len(videos), FRAMES, QUERIES, 4), mask_embeddings=embeddings,
                           class_logits=classes)
    return queries, replace(evidence, pixel_features=features), order


def test_frame_queries_are_matched_to_the_tubes_whose_masks_they_predict():
    videos = [clip(3), clip(4, seed=1)]
    evidence = dense_evidence(*videos)
    queries, evidence, order = detector_on(evidence, videos)
    tubes = frame_tubes(queries, evidence, video_targets(evidence), costs=MatchingCosts())
    for item, video in enumerate(videos):
        for frame in range(FRAMES):
            expected = torch.full((QUERIES,), NO_TUBE)
            expected[order[frame, :len(video.classes)]] = torch.arange(len(video.classes))
            assert torch.equal(tubes[item, frame], expected)


def test_a_tube_is_not_matched_in_a_frame_without_it():
    video = clip(3)
    video.masks[1, 0] = False
    evidence = dense_evidence(replace(video, void=~video.masks.any(0)))
    queries, evidence, _ = detector_on(evidence, [video])
    tubes = frame_tubes(queries, evidence, video_targets(evidence), costs=MatchingCosts())
    assert set(tubes[0, 0].tolist()) == {NO_TUBE, 0, 2}
    assert set(tubes[0, 1].tolist()) == {NO_TUBE, 0, 1, 2}


def test_repeated_frames_of_weight_zero_have_no_tubes():
    evidence = dense_evidence(clip(3))
    queries, evidence, _ = detector_on(evidence, [clip(3)])
    weights = evidence.weights.clone()
    areas = evidence.areas[0].clone()
    weights[:, 1] = 0
    areas[1] = 0
    evidence = replace(evidence, weights=weights, areas=(areas,))
    tubes = frame_tubes(queries, evidence, video_targets(evidence), costs=MatchingCosts())
    assert (tubes[0, 1] == NO_TUBE).all()
    assert (tubes[0, 0] != NO_TUBE).sum() == 3


def test_without_a_class_cost_the_detector_may_have_other_classes():
    evidence = dense_evidence(clip(3))
    queries, evidence, _ = detector_on(evidence, [clip(3)])
    targets = video_targets(evidence)
    masks_alone = MatchingCosts(class_weight=0)
    other = replace(queries, class_logits=torch.randn(1, FRAMES, QUERIES, 2))
    assert torch.equal(frame_tubes(other, evidence, targets, costs=masks_alone),
                       frame_tubes(queries, evidence, targets, costs=masks_alone))


def with_similarity(layers: list[VideoPrediction], *, batch: int) -> list[VideoPrediction]:
    return [replace(layer, clip_similarity=torch.randn(batch, FRAMES, QUERIES, 4),
                    video_similarity=torch.randn(batch, QUERIES, 4)) for layer in layers]


def test_the_criterion_adds_the_similarity_of_the_last_layer_to_the_losses_of_masks_and_classes():
    prediction = random_prediction(2)
    videos = [clip(3), clip(4, seed=1)]
    layers, masks = as_videos(prediction)
    layers = with_similarity(layers, batch=2)
    queries, evidence, _ = detector_on(dense_evidence(*videos), videos)
    losses = CrossClipCriterion(CONFIG)(layers, masks, evidence, queries=queries)
    others = CrossClipCriterion(MaskCrossClipLossConfig())(layers, masks, evidence)
    assert losses.keys() - others.keys() == {"similarity"}
    assert_close({name: losses[name] for name in others}, others)
    assert set(CrossClipCriterion(replace(CONFIG, similarity_weight=0))(layers, masks, evidence)) == set(others)
    double = CrossClipCriterion(replace(CONFIG, similarity_weight=1.0))(layers, masks, evidence, queries=queries)
    assert_close(double["similarity"], 2 * losses["similarity"])


def test_frame_queries_alone_are_compared_where_the_head_gives_no_embeddings_of_video_queries():
    layer = with_similarity(as_videos(random_prediction(1))[0], batch=1)[-1]
    in_frames = torch.zeros(1, FRAMES, QUERIES)
    tubes = torch.ones(1, QUERIES)
    assert queries_to_compare(layer, in_frames, tubes)[1].tolist() == [[0] * FRAMES * QUERIES + [1] * QUERIES]
    embeddings, matched = queries_to_compare(replace(layer, video_similarity=None), in_frames, tubes)
    assert torch.equal(embeddings, rearrange(layer.clip_similarity, "b k n c -> b (k n) c"))
    assert matched.shape == (1, FRAMES * QUERIES)
    with pytest.raises(ValueError, match="similarity_weight=0"):
        queries_to_compare(replace(layer, clip_similarity=None), in_frames, tubes)
