"""A small random world for the loss tests: clips cut into tubes below a strip of void, and predictions about them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from model.contracts import ClipPrediction, ClipTargets, LayerPrediction, PixelEvidence, VideoPrediction
from model.labels import FIRST_OVERLAP, VOID

FRAMES = 2
HEIGHT = 8
WIDTH = 10
CLASSES = 5
QUERIES = 7


def clip(tubes: int, *, seed: int = 0, void_rows: int = 2) -> ClipTargets:
    """Every labelled pixel belongs to the nearest of `tubes` random points; the first rows are void."""
    generator = torch.Generator().manual_seed(seed)
    points = torch.rand(tubes, 2, generator=generator) * torch.tensor([HEIGHT - void_rows, WIDTH])
    points[:, 0] += void_rows
    grid = torch.cartesian_prod(torch.arange(HEIGHT), torch.arange(WIDTH)).float()
    nearest = torch.cdist(grid, points).argmin(1) if tubes else torch.zeros(len(grid))
    nearest = nearest.view(1, HEIGHT, WIDTH).repeat(FRAMES, 1, 1)
    nearest[:, :void_rows] = -1
    masks = torch.stack([nearest == tube for tube in range(tubes)]) if tubes else torch.zeros(0, *nearest.shape).bool()
    return ClipTargets(masks=masks, classes=torch.randint(0, CLASSES, (tubes,), generator=generator),
                       track_ids=torch.arange(tubes), void=~masks.any(0))


def random_prediction(batch: int, *, layers: int = 2, queries: int = QUERIES, seed: int = 0) -> ClipPrediction:
    """Random leaves that require gradients, with `layers` auxiliary layers."""
    generator = torch.Generator().manual_seed(seed)

    def leaf(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    def layer() -> dict[str, Tensor]:
        return {"class_logits": leaf(batch, queries, CLASSES + 1).requires_grad_(),
                "mask_logits": (2 * leaf(batch, queries, FRAMES, HEIGHT, WIDTH)).requires_grad_(),
                "pixel_features": F.normalize(leaf(batch, 6, FRAMES, HEIGHT, WIDTH), dim=1).requires_grad_()}

    return ClipPrediction(**layer(), queries=leaf(batch, queries, 4), mask_embeddings=leaf(batch, queries, 6),
                          auxiliary=tuple(LayerPrediction(**layer()) for _ in range(layers)),
                          semantic_logits=leaf(batch, CLASSES + 1, FRAMES, HEIGHT, WIDTH).requires_grad_())


def perfect_logits(targets: ClipTargets, *, queries: int = QUERIES, order: Sequence[int] | None = None
                   ) -> tuple[Tensor, Tensor]:
    """Class logits 1 n classes+1 and mask logits 1 n t h w of a prediction that is certain and right.

    Query order[i] predicts tube i. All other queries predict "no object", and one of them covers the void.
    """
    order = list(order or range(len(targets.classes)))
    class_logits = torch.full((1, queries, CLASSES + 1), -20.0)
    class_logits[0, :, CLASSES] = 20.0
    class_logits[0, order, CLASSES] = -20.0
    class_logits[0, order, targets.classes] = 20.0
    mask_logits = torch.full((1, queries, *targets.void.shape), -20.0)
    mask_logits[0, order] = torch.where(targets.masks, 20.0, -20.0)
    spare = next(query for query in range(queries) if query not in order)
    mask_logits[0, spare] = torch.where(targets.void, 20.0, -20.0)
    return class_logits, mask_logits


def items(prediction: ClipPrediction) -> list[ClipPrediction]:
    """The clips of a batch as batches of one."""
    def part(layer, item):
        return {name: getattr(layer, name)[item:item + 1] for name in ("class_logits", "mask_logits", "pixel_features")}

    return [ClipPrediction(**part(prediction, item), queries=prediction.queries[item:item + 1],
                           mask_embeddings=prediction.mask_embeddings[item:item + 1],
                           auxiliary=tuple(LayerPrediction(**part(layer, item)) for layer in prediction.auxiliary),
                           semantic_logits=prediction.semantic_logits[item:item + 1])
            for item in range(len(prediction.class_logits))]


def dense_evidence(*videos: ClipTargets) -> PixelEvidence:
    """Every pixel with weight 1; each frame is a clip. Tubes may overlap."""
    painted = [paint(video) for video in videos]
    tubes = rearrange(torch.stack([tubes for tubes, _ in painted]), "b k h w -> b k (h w)")
    return PixelEvidence(
        pixel_features=torch.empty(0), tubes=tubes, weights=torch.ones(tubes.shape),
        classes=tuple(video.classes for video in videos), overlaps=tuple(overlaps for _, overlaps in painted),
        areas=tuple(rearrange(video.masks, "m k h w -> k m (h w)").sum(-1).float() for video in videos))


def paint(video: ClipTargets) -> tuple[Tensor, Tensor]:
    """The tube or the overlap of each pixel, k h w, and the tubes of each overlap, s m bool."""
    members = rearrange(video.masks, "m k h w -> k h w m")
    is_shared = members.sum(-1) > 1
    tubes = torch.full(is_shared.shape, VOID)
    for tube, mask in enumerate(video.masks):
        tubes[mask] = tube
    overlaps = members[is_shared]
    if len(overlaps):
        overlaps, positions = overlaps.unique(dim=0, return_inverse=True)
        tubes[is_shared] = FIRST_OVERLAP - positions
    return tubes, overlaps


def as_videos(prediction: ClipPrediction) -> tuple[list[VideoPrediction], list[Tensor]]:
    """A prediction about clips as one about videos, the last layer last, and the mask logits b k n p of each layer."""
    layers = [*prediction.auxiliary, prediction]
    return ([VideoPrediction(class_logits=layer.class_logits, mask_embeddings=torch.empty(0), queries=torch.empty(0))
             for layer in layers],
            [rearrange(layer.mask_logits, "b n k h w -> b k n (h w)") for layer in layers])
