"""The total loss of one training step of each family, as its recipe sets it, equals that of the public code.

Where the recorded cases hold the terms of the public code (kMaX-DeepLab and MaXTron on it), they are weighted as in its
configurations. Everything else is held to the plain formulas of `tests.model.losses.plain`, for given predictions,
targets and random numbers.
"""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor
from torch.testing import assert_close

from jobs.recipes import find_recipe
from jobs.recipes.schema import StageOneConfig
from jobs.train_stage_one import joint_losses, losses_on_clips
from model.association.tube_linking import TubeLinking, TubeLinkingConfig
from model.contracts import ClipPrediction, ClipTargets, LayerPrediction, VideoPrediction, VideoQueries
from model.joint import JointPrediction
from model.losses.queries import QueryLossConfig
from tests.fidelity import test_kmax_criterion as recorded
from tests.fidelity.cases import case_id, load_case
from tests.model.losses import plain
from tests.model.losses.plain import Tubes
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

COUNT = 16
STUFF = (1, 3)
DIM = 8

# Weights in the public configurations: kmax_r50.yaml, maxtron_wc_r50.yaml and maxtron_cc_r50.yaml of TACJu/MaXTron.
KMAX_IMAGE = {"loss_ce": 3, "loss_mask": 0.3, "loss_dice": 3, "loss_pixel_insdis": 1, "loss_aux_semantic": 1}
KMAX_CLIP = {"loss_ce": 4, "loss_mask": 0.1, "loss_dice": 5, "loss_pixel_insdis": 1, "loss_aux_semantic": 1}
KMAX_VIDEO = {"loss_ce": 4, "loss_mask": 0, "loss_dice": 4}


def with_weights_of(recipe: QueryLossConfig, case: QueryLossConfig) -> QueryLossConfig:
    """The settings of a case with the weights of a recipe, for the terms that the case has."""
    weights = {field.name: getattr(recipe, field.name) for field in fields(recipe) if field.name.endswith("_weight")}
    return replace(case, **{name: weight for name, weight in weights.items()
                            if name != "smallest_weight" and getattr(case, name)})


def recorded_total(case, weights: dict[str, float]) -> Tensor:
    """The terms of the public code, of the final prediction and (with a number at the end) of the auxiliary ones."""
    terms = {name.removeprefix("loss."): value for name, value in case.outputs.items() if name.startswith("loss.")}
    return sum(weights[name.rstrip("0123456789").rstrip("_")] * value for name, value in terms.items())


@pytest.mark.parametrize("path", recorded.CASES, ids=case_id)
def test_kmax_on_images_clips_and_videos(path: Path):
    case = load_case(path)
    leaves = recorded.predicted(case)
    targets = recorded.ground_truth(case)
    if case.arguments.get("stage") == "cross_clip":
        recipe = find_recipe("vipseg_video_kmax_r50_offline")
        config = with_weights_of(recipe.stage_two.losses, recorded.video_config(case))
        total = config.build()(*recorded.video_predictions(leaves), dense_evidence(*targets))
        assert_close(sum(total.values()), recorded_total(case, KMAX_VIDEO), rtol=1e-4, atol=1e-5)
        return
    image = case.family == "kmax_image"
    settings = recorded.image_config(case) if image else recorded.clip_config(case)
    recipe = find_recipe("coco_kmax_r50" if image else "vipseg_video_kmax_r50_near_online")
    config = with_weights_of(recipe.stage_one.losses, settings)
    layers = config.build().layer_losses(recorded.clip_prediction(case, leaves, targets), targets,
                                         draw=recorded.recorded_draw(case, config))
    total = sum(config.weights[name] * loss.mean() for terms in layers for name, loss in terms.items())
    assert_close(total, recorded_total(case, KMAX_IMAGE if image else KMAX_CLIP), rtol=1e-4, atol=1e-5)


def stacked(maps: Tensor) -> Tensor:
    """x t h w -> x 1 (t h) w: Tube-Link's long image of a clip."""
    return rearrange(maps, "x t h w -> x 1 (t h) w")


def tubes_of(target: ClipTargets, *, apart: bool = False) -> Tubes:
    masks = target.masks.float()
    return Tubes(masks if apart else stacked(masks), target.classes)


def segmentation(prediction: ClipPrediction, targets: list[ClipTargets], *, apart: bool = False,
                 reserved: tuple[int, ...] = ()) -> Tensor:
    """The plain total over all decoder layers, the final one last."""
    tubes = [tubes_of(target, apart=apart) for target in targets]
    return sum(plain.layer_loss(layer.class_logits, [masks if apart else stacked(masks) for masks in layer.mask_logits],
                                tubes, count=COUNT, reserved=reserved)
               for layer in (*prediction.auxiliary, prediction))


def part(target: ClipTargets, frames: slice) -> ClipTargets:
    """Some frames of a clip, with the tubes that are seen in them."""
    masks = target.masks[:, frames]
    seen = masks.flatten(1).any(1)
    return ClipTargets(masks=masks[seen], classes=target.classes[seen], track_ids=target.track_ids[seen],
                       void=target.void[frames])


def cut(prediction: ClipPrediction, *, frames: int = FRAMES, clips: slice = slice(None)) -> ClipPrediction:
    def fields_of(layer: ClipPrediction | LayerPrediction) -> dict[str, Tensor]:
        return {"class_logits": layer.class_logits[clips], "mask_logits": layer.mask_logits[clips, :, :frames]}

    return replace(prediction, **fields_of(prediction),
                   auxiliary=tuple(replace(layer, **fields_of(layer)) for layer in prediction.auxiliary))


def stage_of(name: str) -> StageOneConfig:
    """Stage one of a recipe with few points."""
    one = find_recipe(name).stage_one
    return replace(one, losses=replace(one.losses, points=replace(one.losses.points, count=COUNT)))


def total_of(losses) -> Tensor:
    return sum(losses.values())


@pytest.mark.parametrize(("name", "frames"), [
    ("coco_mask2former_instance_r50", 1), ("coco_mask2former_panoptic_swin_l", 1),
    ("youtube_vis_2021_tube_link_r50", FRAMES), ("ovis_tube_link_swin_l_near_online", FRAMES),
    ("vspw_tube_link_r50", FRAMES), ("vipseg_vss_tube_link_swin_l", FRAMES)])
def test_mask2former_on_images_and_tube_link_on_clips(name: str, frames: int):
    prediction = cut(random_prediction(2), frames=frames)
    targets = [part(target, slice(frames)) for target in (clip(3), clip(4, seed=1))]
    batch = SimpleNamespace(frames=None, real_pixels=None, targets=targets)
    torch.manual_seed(5)
    ours = losses_on_clips(stage_of(name), None)(lambda *_, **__: prediction, batch)
    torch.manual_seed(5)
    assert_close(total_of(ours), segmentation(prediction, targets))


def pair_targets(classes: list[int], *, hidden: int | None) -> ClipTargets:
    """A clip of 2 FRAMES frames; one tube is not seen in its second half."""
    halves = [clip(3, seed=seed).masks.clone() for seed in (0, 4)]
    if hidden is not None:
        halves[1][hidden] = False
    masks = torch.cat(halves, 1)
    return ClipTargets(masks=masks, classes=torch.tensor(classes), track_ids=torch.arange(3), void=~masks.any(0))


def test_tube_link_on_pairs_adds_the_losses_of_both_clips_and_those_of_linking():
    one = stage_of("vipseg_tube_link_r50")
    one = replace(one, segmenter=replace(one.segmenter, num_classes=CLASSES, stuff_classes=STUFF),
                  losses=replace(one.losses, stuff_classes=STUFF),
                  linking=replace(one.linking, points=COUNT, stuff_classes=STUFF))
    torch.manual_seed(0)
    linking = TubeLinking(TubeLinkingConfig(dim=4, heads=2, ffn=DIM))
    torch.nn.init.normal_(linking.head[4].weight)       # so that embeddings differ
    prediction = random_prediction(4)
    targets = [pair_targets([0, 1, 2], hidden=2), pair_targets([3, 4, 2], hidden=None)]
    frames = torch.zeros(2, 2 * FRAMES, 3, HEIGHT, WIDTH)
    batch = SimpleNamespace(frames=frames, real_pixels=frames[:, :, 0], targets=targets)
    torch.manual_seed(5)
    ours = losses_on_clips(one, SimpleNamespace(linking=linking))(lambda *_, **__: prediction, batch)
    torch.manual_seed(5)
    halves = [[part(target, frames) for target in targets] for frames in (slice(FRAMES), slice(FRAMES, None))]
    expected = sum(segmentation(cut(prediction, clips=clips), half, reserved=STUFF)
                   for clips, half in zip((slice(2), slice(2, 4)), halves))
    expected = expected + plain_linking(linking, prediction, halves)
    assert_close(total_of(ours), expected)


def plain_linking(linking: TubeLinking, prediction: ClipPrediction, halves: list[list[ClipTargets]]) -> Tensor:
    """Mean over the pairs; thing queries are matched again, with costs of their own, at new points."""
    things = QUERIES - len(STUFF)
    queries = prediction.queries[:, :things]
    embeddings = linking.embeddings(torch.cat([linking(queries[:2], queries[2:]), queries[2:]]))
    assigned = []
    for target, classes, masks, points in zip([*halves[0], *halves[1]], prediction.class_logits,
                                              prediction.mask_logits, [torch.rand(1, COUNT, 2) for _ in range(4)]):
        of_things = torch.tensor([int(label) not in STUFF for label in target.classes])
        pairs = plain.matched(classes[:things], stacked(masks[:things]), tubes_of(target).only(of_things), points,
                              dice_cost=4.0, smoothing=1e-3)
        tracks = target.track_ids[of_things]
        assigned.append((torch.tensor([query for query, _ in pairs]), tracks[[tube for _, tube in pairs]]))
    return sum(plain.linking_loss(tuple(embeddings[clip][assigned[clip][0]] for clip in (key, key + 2)),
                                  (assigned[key][1], assigned[key + 2][1])) for key in range(2)) / 2


def test_vita_adds_the_losses_of_frames_of_videos_and_of_similarity():
    layers = 2
    one = stage_of("youtube_vis_2019_vita_r50")
    one = replace(one, joint=replace(one.joint, layers=layers))
    targets = [clip(3), clip(4, seed=1)]
    targets[0].masks[1, 0] = False                      # the first frame lacks a tube
    frames = cut(random_prediction(2 * FRAMES), frames=1)
    videos = random_prediction(layers * 2, layers=1, seed=3)
    embeddings = {"clip_similarity": torch.randn(layers * 2, FRAMES, QUERIES, DIM),
                  "video_similarity": torch.randn(layers * 2, QUERIES, DIM)}
    of_layers = [VideoPrediction(class_logits=layer.class_logits, mask_embeddings=torch.empty(0),
                                 queries=torch.empty(0), **embeddings) for layer in (*videos.auxiliary, videos)]
    prediction = JointPrediction(frames, tuple(of_layers),
                                 tuple(layer.mask_logits for layer in (*videos.auxiliary, videos)))
    batch = SimpleNamespace(frames=None, real_pixels=None, targets=targets)
    torch.manual_seed(5)
    ours = joint_losses(one)(lambda *_: prediction, batch)
    torch.manual_seed(5)
    in_frames = [part(target, slice(t, t + 1)) for target in targets for t in range(FRAMES)]
    expected = segmentation(frames, in_frames) + segmentation(videos, targets * layers, apart=True)
    groups = [[] for _ in range(layers * 2)]            # (embedding, track) of the matched queries of each video
    for number, layer in enumerate([*frames.auxiliary, frames][-layers:]):
        points = [torch.rand(1, COUNT, 2) for _ in in_frames]
        for frame, target in enumerate(in_frames):
            video = 2 * number + frame // FRAMES
            for query, tube in plain.matched(layer.class_logits[frame], stacked(layer.mask_logits[frame]),
                                             tubes_of(target), points[frame]):
                groups[video].append((embeddings["clip_similarity"][video, frame % FRAMES, query],
                                      target.track_ids[tube]))
    points = [torch.rand(1, COUNT, 2) for _ in groups]
    for video, group in enumerate(groups):
        target = targets[video % 2]
        for query, tube in plain.matched(videos.class_logits[video], videos.mask_logits[video],
                                         tubes_of(target, apart=True), points[video]):
            group.append((embeddings["video_similarity"][video, query], target.track_ids[tube]))
    expected = expected + plain.similarity_loss([tuple(map(torch.stack, zip(*group))) for group in groups])
    assert_close(total_of(ours), expected)


@pytest.mark.parametrize("name", ["youtube_vis_2021_tube_link_r50_offline", "youtube_vis_2019_vita_r50_frozen",
                                  "synthetic_vis"])
def test_stage_two_on_binary_masks_supervises_every_layer_by_its_own_match(name: str):
    """At points where the recipe has a published score, at every stored pixel in the synthetic one."""
    losses = find_recipe(name).stage_two.losses
    is_vita = losses.kind == "vita"
    prediction = random_prediction(2)
    videos = [clip(3), clip(2, seed=1)]
    evidence = replace(dense_evidence(*videos), pixel_features=torch.randn(2, FRAMES, HEIGHT * WIDTH, DIM))
    queries = VideoQueries(queries=torch.empty(0), class_logits=torch.randn(2, FRAMES, QUERIES, 9),
                           mask_embeddings=torch.randn(2, FRAMES, QUERIES, DIM + 1))
    embeddings = {"clip_similarity": torch.randn(2, FRAMES, QUERIES, DIM),
                  "video_similarity": torch.randn(2, QUERIES, DIM)} if is_vita else {}
    layers, masks = as_videos(prediction)
    ours = losses.build()([replace(layer, **embeddings) for layer in layers], masks, evidence, queries=queries)
    expected = sum(plain_video_layer(layer.class_logits, layer.mask_logits, videos, points=losses.points is not None,
                                     groups=FRAMES if is_vita else 1)
                   for layer in (*prediction.auxiliary, prediction))
    if is_vita:
        expected = expected + plain.similarity_loss([similar(video, item, prediction, evidence, queries, embeddings)
                                                     for item, video in enumerate(videos)])
    assert_close(total_of(ours), expected)


def pixel_match(classes: Tensor | None, masks: Tensor, tubes: Tensor, labels: Tensor) -> list[plain.Pair]:
    """By every pixel. masks n p, tubes m p; classes n c, None: masks alone decide."""
    cost = torch.zeros(len(masks), len(tubes))
    for query, mask in enumerate(masks):
        for tube, truth in enumerate(tubes):
            chance = 0 if classes is None else classes[query].softmax(-1)[labels[tube]]
            cost[query, tube] = (5 * F.binary_cross_entropy_with_logits(mask, truth)
                                 + 5 * plain.dice(mask, truth) - 2 * chance)
    return sorted(zip(*map(list, plain.linear_sum_assignment(cost.detach().numpy()))))


def plain_video_layer(classes: Tensor, masks: Tensor, videos: list[ClipTargets], *, points: bool, groups: int
                      ) -> Tensor:
    """Classes b n c, masks b n t h w. points: the mean over 12,544 of them, in each of `groups` parts of the video."""
    matches = [pixel_match(*item[:2], video.masks.flatten(1).float(), video.classes)
               for *item, video in zip(classes, masks.flatten(2), videos)]
    total = plain.CLASS * plain.class_loss(classes, matches, [tubes_of(video) for video in videos])
    number = sum(len(video.classes) for video in videos)
    for item, video, pairs in zip(masks, videos, matches):
        for query, tube in pairs:
            mask = item[query].reshape(groups, -1)
            truth = video.masks[tube].reshape(groups, -1).float()
            counts = torch.full_like(mask, 12_544 / 4 / mask.shape[1]) if points else torch.ones_like(mask)
            quarter = mask.shape[1] // 4
            for row, order in zip(counts, mask.detach().abs().argsort(1)):
                row[order[:quarter]] += points * 12_544 * 3 / 4 / quarter
            losses = F.binary_cross_entropy_with_logits(mask, truth, weight=counts, reduction="sum")
            share = mask.sigmoid()
            dice = 1 - (2 * (counts * share * truth).sum() + 1) / ((counts * (share + truth)).sum() + 1)
            total = total + (plain.MASK * losses / counts.sum() + plain.DICE * dice) / number
    return total


def similar(video: ClipTargets, item: int, prediction: ClipPrediction, evidence, queries: VideoQueries,
            embeddings: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """The embeddings of all matched queries of a video and their tubes; frame queries match by masks alone."""
    group = []
    for frame in range(FRAMES):
        kernels = queries.mask_embeddings[item, frame]
        masks = kernels[:, :-1] @ evidence.pixel_features[item, frame].T + kernels[:, -1:]
        tubes = video.masks[:, frame].flatten(1).float()
        seen = tubes.any(1).nonzero()[:, 0]
        group += [(embeddings["clip_similarity"][item, frame, query], seen[tube])
                  for query, tube in pixel_match(None, masks, tubes[seen], video.classes[seen])]
    group += [(embeddings["video_similarity"][item, query], torch.tensor(tube)) for query, tube in pixel_match(
        prediction.class_logits[item], prediction.mask_logits[item].flatten(1), video.masks.flatten(1).float(),
        video.classes)]
    return tuple(map(torch.stack, zip(*group)))
