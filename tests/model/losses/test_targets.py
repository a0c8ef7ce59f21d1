from __future__ import annotations

import torch

from model.contracts import ClipTargets, PixelEvidence
from model.losses.targets import NO_TUBE, clip_targets, mean_where_not_zero, video_targets
from tests.model.losses.world import clip


def test_a_batch_of_clips_with_different_numbers_of_tubes_is_padded_with_rows_of_no_weight():
    targets = clip_targets([clip(3), clip(0), clip(5)])
    assert targets.masks.shape[:2] == (3, 5)
    assert targets.classes[0, 3:].tolist() == [NO_TUBE, NO_TUBE]
    assert targets.areas[0, 3:].sum() == targets.masks[0, 3:].sum() == 0
    assert targets.areas[1].sum() == targets.labelled[1].sum() == 0
    assert torch.equal(targets.areas[2], clip(5).masks.flatten(1).sum(1).float())


def test_labelled_and_void_share_the_weight_of_every_pixel():
    targets = clip_targets([clip(3)])
    assert torch.equal(targets.labelled + targets.void, targets.weights)
    assert torch.equal(targets.void[0] == 1, clip(3).void.flatten())


def test_tubes_that_overlap_share_a_pixel_and_disjoint_ones_keep_theirs():
    masks = torch.zeros(2, 1, 1, 4, dtype=torch.bool)
    masks[0, ..., :3] = True
    masks[1, ..., 2:] = True
    overlapping = ClipTargets(masks=masks, classes=torch.tensor([0, 1]), track_ids=torch.tensor([1, 2]),
                              void=~masks.any(0))
    shared = clip_targets([overlapping]).sharing_pixels()
    assert shared.masks[0].tolist() == [[1, 1, 0.5, 0], [0, 0, 0.5, 1]]
    assert shared.areas[0].tolist() == [2.5, 1.5]
    disjoint = clip_targets([clip(4)])
    assert torch.equal(disjoint.sharing_pixels().masks, disjoint.masks)


def test_pixels_of_a_dropped_tube_become_void():
    targets = clip_targets([clip(3)])
    kept = targets.keeping(torch.tensor([[True, False, True]]))
    assert torch.equal(kept.void[0], targets.void[0] + targets.masks[0, 1])
    assert kept.areas[0, 1] == 0
    assert torch.equal(kept.compared, kept.labelled)
    assert torch.equal(targets.counting_void().keeping(torch.tensor([[True, False, True]])).compared, targets.weights)


def test_evidence_of_every_pixel_is_the_dense_clip():
    target = clip(4)
    tubes = torch.where(target.void, -1, target.masks.int().argmax(0)).flatten(1)       # k p: each frame is a clip
    evidence = PixelEvidence(
        pixel_features=torch.empty(0), tubes=tubes[None], weights=torch.ones(1, *tubes.shape),
        classes=(target.classes,), areas=(target.masks.flatten(2).sum(2).T.float(),))
    video = video_targets(evidence)
    dense = clip_targets([target])
    for name in ("masks", "areas", "classes", "weights", "labelled"):
        assert torch.equal(getattr(video, name), getattr(dense, name)), name


def test_evidence_of_overlapping_tubes_is_the_dense_clip_too():
    generator = torch.Generator().manual_seed(0)
    masks = torch.rand(3, 2, 4, 5, generator=generator) > 0.5                          # m k h w: each frame is a clip
    target = ClipTargets(masks=masks, classes=torch.tensor([2, 0, 1]), track_ids=torch.arange(3), void=~masks.any(0))
    overlaps = torch.tensor([[1, 1, 0], [1, 0, 1], [0, 1, 1], [1, 1, 1]]).bool()       # s m
    tubes = torch.where(target.void, -1, masks.int().argmax(0))
    for number, members in enumerate(overlaps):
        tubes[(masks == members[:, None, None, None]).all(0)] = -2 - number
    nothing = clip(0)
    evidence = PixelEvidence(
        pixel_features=torch.empty(0), tubes=torch.stack([tubes.flatten(1), torch.full((2, 20), -1)]),
        weights=torch.ones(2, 2, 20), classes=(target.classes, nothing.classes),
        areas=(masks.flatten(2).sum(2).T.float(), torch.zeros(2, 0)), overlaps=(overlaps, torch.zeros(0, 0).bool()))
    video = video_targets(evidence)
    dense = clip_targets([target])
    for name in ("masks", "areas", "classes", "weights", "labelled"):
        assert torch.equal(getattr(video, name)[:1], getattr(dense, name)), name
    assert video.masks[1].sum() == video.labelled[1].sum() == 0


def test_a_mean_leaves_out_exact_zeros_and_weights_the_rest():
    loss = torch.tensor([[4.0, 0.0, 2.0], [0.0, 0.0, 0.0]])
    assert mean_where_not_zero(loss).tolist() == [3, 0]
    assert mean_where_not_zero(loss, weights=torch.tensor([[2.0, 5.0, 1.0], [1.0, 1.0, 1.0]])).tolist() == [2, 0]
