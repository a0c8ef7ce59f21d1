"""Semantic maps from tiles equal the plain formula."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from model.contracts import ClipPrediction, Geometry
from model.postprocess.resize import MaskResizer
from model.postprocess.semantic import SemanticMerger, semantic_video

CLASSES = 4
GEOMETRY = Geometry(source=(80, 150), resized=(40, 75), padded=(64, 96))


def scene(seed: int = 0, *, frames: int = 3) -> ClipPrediction:
    generator = torch.Generator().manual_seed(seed)
    nothing = torch.empty(1, 6, 0)
    return ClipPrediction(class_logits=torch.randn(1, 6, CLASSES + 1, generator=generator),
                          mask_logits=3 * torch.randn(1, 6, frames, 16, 24, generator=generator),
                          queries=nothing, mask_embeddings=nothing, pixel_features=nothing)


def merged(*clips: tuple[ClipPrediction, int]) -> np.ndarray:
    merger = SemanticMerger(num_classes=CLASSES, geometry=GEOMETRY)
    for clip, frames in clips:
        merger.add(clip, frames)
    return np.stack(list(merger.finish()["semantic"]))


def test_tiles_equal_the_formula_over_the_whole_frame():
    clip = scene()
    masks = MaskResizer(GEOMETRY, size=(16, 24))(clip.mask_logits[0]).double().sigmoid()
    scores = torch.einsum("nc,nthw->thwc", clip.class_logits[0].double().softmax(-1)[:, :-1], masks)
    best = scores.topk(2).values
    sure = (best[..., 0] - best[..., 1] > 1e-6).numpy()
    maps = merged((clip, 3))
    assert maps.shape == (3, 80, 150)
    assert maps.dtype == np.int32
    np.testing.assert_array_equal(maps[sure], scores.argmax(-1).numpy()[sure])
    assert len(np.unique(maps)) > 2


def test_clips_are_independent_and_repeats_are_cut():
    first = scene(0)
    second = scene(1)
    together = merged((first, 3), (second, 1))
    np.testing.assert_array_equal(together, np.concatenate([merged((first, 3)), merged((second, 3))[:1]]))


def test_names_are_attached_and_misuse_is_refused():
    merger = SemanticMerger(num_classes=CLASSES, geometry=GEOMETRY)
    with pytest.raises(ValueError, match="no clip was added"):
        merger.finish()
    merger.add(scene(), 3)
    video = semantic_video(merger.finish()["semantic"], video_id="street", frame_names=tuple("abc"))
    assert (video.video_id, len(list(video.frames))) == ("street", 3)
    with pytest.raises(ValueError, match=r"street.*2 frames but 3"):
        semantic_video(video.frames, video_id="street", frame_names=tuple("ab"))
    broken = scene()
    broken.mask_logits[0, 0, 2, 0, 0] = float("nan")
    with pytest.raises(ValueError, match="frame 2 hold NaN"):
        merger.add(broken, 3)
