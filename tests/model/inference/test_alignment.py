"""Clips are aligned by what their prediction states, here the decoder queries of Tube-Link, as a plain formula says."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment

from model.contracts import ClipPrediction
from model.inference import Aligned, NearOnline
from tests.model.inference.ways import made

CLASSES = 5
QUERIES = 10


class Kept:
    """A merger that keeps its input."""

    def __init__(self) -> None:
        self.masks: list[torch.Tensor] = []

    def add(self, mask_logits: torch.Tensor) -> None:
        self.masks.append(mask_logits)

    def finish(self, class_logits: torch.Tensor) -> torch.Tensor:
        return class_logits


def tubes(seed: int) -> list[ClipPrediction]:
    """Noisy queries in another order in every clip. All mask embeddings are alike, so they cannot align anything."""
    generator = torch.Generator().manual_seed(seed)
    objects = torch.randn(QUERIES, 16, generator=generator)
    clips = []
    for frames in (4, 4, 3, 3):
        order = torch.randperm(QUERIES, generator=generator)
        queries = objects[order] + 0.8 * torch.randn(QUERIES, 16, generator=generator)
        clips.append(ClipPrediction(
            class_logits=torch.randn(1, QUERIES, CLASSES + 1, generator=generator), queries=queries[None],
            mask_logits=torch.randn(1, QUERIES, frames, 3, 4, generator=generator), alignment=queries[None],
            mask_embeddings=torch.zeros(1, QUERIES, 1), pixel_features=torch.empty(0)))
    return clips


def plain_orders(clips: list[ClipPrediction]) -> list[np.ndarray]:
    """Each clip against the aligned clip before it: the assignment of least summed 1 - cosine, in float64."""
    orders = []
    before = None
    for clip in clips:
        queries = clip.queries[0].double().numpy()
        unit = queries / np.linalg.norm(queries, axis=1, keepdims=True)
        order = np.arange(len(unit)) if before is None else linear_sum_assignment(1 - before @ unit.T)[1]
        before = unit[order]
        orders.append(order)
    return orders


@pytest.mark.parametrize("seed", range(5))
def test_decoder_queries_align_clips_of_any_length_as_the_formula_says(seed):
    clips = tubes(seed)
    merger = Kept()
    clips_with_lengths = [(clip, clip.mask_logits.shape[2]) for clip in clips]
    logits = made(clips_with_lengths, Aligned([NearOnline({"tracks": lambda: merger})]), classes=CLASSES)["tracks"]
    orders = plain_orders(clips)
    assert any((order != np.arange(QUERIES)).any() for order in orders)
    masks = torch.cat([clip.mask_logits[0, order] for clip, order in zip(clips, orders)], 1)
    assert torch.equal(torch.cat(merger.masks, 1), masks)
    mean = torch.stack([clip.class_logits[0, order] for clip, order in zip(clips, orders)]).double().mean(0)
    torch.testing.assert_close(logits.double(), mean)
