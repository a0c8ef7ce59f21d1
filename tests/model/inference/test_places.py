"""Places and looks of queries against a plain loop over pixels, and under mirroring, time reversal and batching."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from model.contracts import ClipPrediction
from model.inference import QueryCollector, make_results, with_places

CLASSES = 3


def clip(masks: Tensor) -> ClipPrediction:
    """masks: b n t h w, logits."""
    b, n = masks.shape[:2]
    return ClipPrediction(class_logits=torch.zeros(b, n, CLASSES + 1), mask_logits=masks, queries=torch.zeros(b, n, 4),
                          mask_embeddings=torch.zeros(b, n, 2), pixel_features=torch.zeros(b, 2, *masks.shape[2:]))


def drawn(*, real: tuple[int, int] = (5, 7), queries: int = 4, frames: int = 2, seed: int = 0):
    """Mask logits and frames of one clip of 6 x 8 cells at stride 4, of which `real` are no padding."""
    generator = torch.Generator().manual_seed(seed)
    masks = 2 * torch.randn(1, queries, frames, 6, 8, generator=generator)
    pictures = torch.randint(0, 256, (1, frames, 3, 24, 32), generator=generator, dtype=torch.uint8)
    real_pixels = torch.zeros(1, frames, 24, 32, dtype=torch.bool)
    real_pixels[:, :, :4 * real[0], :4 * real[1]] = True
    return masks, pictures, real_pixels


def plain(masks: Tensor, pictures: Tensor, real: tuple[int, int], *, compete: bool) -> tuple[np.ndarray, np.ndarray]:
    """Pixel by pixel, for one clip."""
    inside = (masks[0].softmax(0) > 0.3 if compete else masks[0].sigmoid() > 0.5).numpy()
    n, t = inside.shape[:2]
    places = np.zeros((n, t, 5))
    looks = np.zeros((n, 6))
    for query in range(n):
        colours = []
        for frame in range(t):
            cells = [(y, x) for y in range(real[0]) for x in range(real[1]) if inside[query, frame, y, x]]
            colours += [pictures[0, frame, :, 4 * y, 4 * x].numpy() / 255 for y, x in cells]
            if cells:
                points = (np.array(cells) + 0.5) / real
                places[query, frame] = [len(cells) / (real[0] * real[1]), *points.mean(0), *points.std(0)]
        if colours:
            looks[query] = [*np.mean(colours, 0), *np.std(colours, 0)]
    return places, looks


@pytest.mark.parametrize("compete", [True, False])
@pytest.mark.parametrize("real", [(5, 7), (6, 8), (1, 1)])
def test_they_are_those_of_a_loop_over_pixels(real, compete):
    masks, pictures, real_pixels = drawn(real=real)
    seen = with_places(clip(masks), pictures, real_pixels, compete=compete)
    places, looks = plain(masks, pictures, real, compete=compete)
    assert (places[..., 0] > 0).any()
    np.testing.assert_allclose(seen.places[0], places, atol=1e-5)
    np.testing.assert_allclose(seen.looks[0], looks, atol=1e-4)


def test_a_query_without_a_mask_has_zeros():
    masks, pictures, real_pixels = drawn()
    masks[:, 1] = -9
    seen = with_places(clip(masks), pictures, real_pixels, compete=False)
    assert not seen.places[:, 1].any()
    assert not seen.looks[:, 1].any()
    assert seen.places[:, 0].any()


def test_mirrored_clips_have_mirrored_places_exactly():
    masks, pictures, real_pixels = drawn()
    width = 7
    mirrored = masks.clone()
    mirrored[..., :width] = masks[..., :width].flip(-1)
    one = with_places(clip(masks), pictures, real_pixels, compete=True).places
    other = with_places(clip(mirrored), pictures, real_pixels, compete=True).places
    seen = one[..., 0] > 0
    expected = one.clone()
    expected[..., 2] = torch.where(seen, 1 - one[..., 2], 0)
    torch.testing.assert_close(other, expected, rtol=0, atol=1e-6)


def test_clips_read_backwards_have_their_places_backwards():
    masks, pictures, real_pixels = drawn(frames=3)
    one = with_places(clip(masks), pictures, real_pixels, compete=True)
    other = with_places(clip(masks.flip(2)), pictures.flip(1), real_pixels.flip(1), compete=True)
    assert torch.equal(other.places, one.places.flip(2))
    torch.testing.assert_close(other.looks, one.looks, rtol=0, atol=1e-6)


def test_a_batch_of_two_equals_two_of_one():
    first = drawn(seed=1)
    second = drawn(seed=2, real=(6, 3))
    both = with_places(clip(torch.cat([first[0], second[0]])), torch.cat([first[1], second[1]]),
                       torch.cat([first[2], second[2]]), compete=True)
    for index, one in enumerate((first, second)):
        alone = with_places(clip(one[0]), *one[1:], compete=True)
        torch.testing.assert_close(both.places[index], alone.places[0], rtol=0, atol=1e-6)
        torch.testing.assert_close(both.looks[index], alone.looks[0], rtol=0, atol=1e-6)


def test_nothing_is_seen_in_repeats_of_the_last_frame():
    masks, pictures, real_pixels = drawn()
    seen = with_places(clip(masks), pictures, real_pixels, compete=False)
    queries = make_results([(seen, 2), (seen, 1)], [QueryCollector()], num_classes=CLASSES)["queries"]
    assert torch.equal(queries.places[:, 0], seen.places)
    assert torch.equal(queries.places[:, 1, :, 0], seen.places[:, :, 0])
    assert not queries.places[:, 1, :, 1].any()
    assert seen.places[:, :, 1].any()
